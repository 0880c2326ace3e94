"""Quantization of weights to codes on grids of integers. One file per method, one line each here."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from edgesdk.cloud.quantize import gptq, gptq_uniform, rtn
from edgesdk.cloud.quantize.grid import Grid

__all__ = ["METHODS", "QuantizeMethod"]


class QuantizeMethod(Protocol):
    """From a weight and the moment of what it reads to codes, scales and grid; see gptq.quantize."""

    def __call__(
        self, weight: Tensor, moment: Tensor, group: int, damping: float, *, columns_sorted: bool, bits: int = 4
    ) -> tuple[Tensor, Tensor, Grid]:
        """Quantizes one weight."""
        ...


METHODS: dict[str, QuantizeMethod] = {
    "gptq": gptq.quantize,  # learned grid, scales searched by the error that counts, errors spread over later columns
    "gptq-uniform": gptq_uniform.quantize,  # baseline: uniform grid, errors spread over later columns
    "rtn": rtn.quantize,  # baseline: uniform grid, round to nearest
}
