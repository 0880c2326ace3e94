"""Quantizes embeddings and heads, whose rows are looked up, multiplied, or both."""

from __future__ import annotations

import torch
from torch import Tensor

from edgesdk.cloud.pack import QuantizedWeight
from edgesdk.cloud.quantize.block import to_file
from edgesdk.cloud.quantize.gptq import quantize

__all__ = ["quantize_rows"]

_CHUNK_ROWS = 1 << 14
_DAMPING = 0.1  # a row that is looked up counts for itself, whatever the head reads


def quantize_rows(weight: Tensor, group: int, bits: int, moment: Tensor | None = None) -> QuantizedWeight:
    """Codes of 3, 4, 6 or 8 bits for an embedding or a head; weight (rows, columns).

    moment: (columns, columns) of what the head reads; None: the rows are only looked up, all columns count the same.
    """
    known = torch.eye(weight.shape[1]) if moment is None else moment
    first, *rest = weight.split(_CHUNK_ROWS)
    made = [quantize(first, known, group, _DAMPING, columns_sorted=False, bits=bits)]
    grid = made[0][2]
    made += [quantize(part, known, group, _DAMPING, columns_sorted=False, bits=bits, grid=grid) for part in rest]
    codes, scales = torch.cat([part[0] for part in made]), torch.cat([part[1] for part in made])
    return to_file(codes, scales, grid, bits, group)
