"""Factors of large moments in float64, made in place: one matrix is in memory, not five."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["inverse_factor", "widened"]


def widened(matrix: Tensor) -> Tensor:
    """A float64 copy that LAPACK can overwrite: columns lie one behind the other."""
    rows, columns = matrix.shape
    return torch.empty_strided((rows, columns), (1, rows), dtype=torch.float64).copy_(matrix)


def inverse_factor(moment: Tensor, damping: float) -> Tensor:
    """Upper Cholesky factor U of M^-1 = U^T U, M = moment + damping * mean diagonal * I; float32, (columns, columns).

    Where the noise of float32 sums makes M indefinite all the same, the damping grows tenfold until it is not.
    """
    work = widened(moment)
    diagonal = work.diagonal().clone()
    unit = max(float(diagonal.mean()), 1e-12)
    failed = torch.zeros((), dtype=torch.int32)
    while True:
        work.diagonal().copy_(diagonal + damping * unit)
        torch.linalg.cholesky_ex(work, out=(work, failed))
        if not failed or damping > 1:
            break
        damping *= 10
        work.copy_(moment)
    torch.cholesky_inverse(work, out=work)
    torch.linalg.cholesky(work, upper=True, out=work)
    return work.float()
