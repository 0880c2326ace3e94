"""Quantization of weights to 4-bit codes on int8 grids. One file per method, one line each here."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from edgesdk.cloud.quantize import gptq, rtn
from edgesdk.cloud.quantize.grid import Grid

__all__ = ["METHODS", "QuantizeMethod"]

QuantizeMethod = Callable[[Tensor, Tensor, int, float], tuple[Tensor, Tensor, Grid]]

METHODS: dict[str, QuantizeMethod] = {
    "gptq": gptq.quantize,  # learned grid, scales searched by the error that counts, errors spread over later columns
    "rtn": rtn.quantize,  # baseline: uniform grid, round to nearest
}
