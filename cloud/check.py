"""The check that every build makes: sorting must not change the function."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edgesdk.cloud.reference import Decoder
from edgesdk.errors import ModelError

__all__ = ["TOLERANCE", "check_unchanged", "relative_difference"]

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}
"""Largest difference of logits, as a share of the largest |logit|."""


def check_unchanged(source: Decoder, sort: Callable[[Decoder], Decoder], tokens: Tensor) -> dict[str, float]:
    """Compares the logits of a model and its sorted self on `tokens` (1, n) in float32 and float64.

    sort: makes the sorted model, in the dtype of the one it is given. Returns the differences.
    Raises ModelError when one is above its tolerance: the sorted model would not be the model that was given.
    """
    exact = source.double()
    differences = {
        "float32": relative_difference(source, sort(source), tokens),
        "float64": relative_difference(exact, sort(exact), tokens),
    }
    for name, difference in differences.items():
        limit = TOLERANCE[getattr(torch, name)]
        if not difference <= limit:
            raise ModelError(
                f"sorting changed the function: logits differ by {difference:.1e} of the largest one in {name}, "
                f"allowed are {limit:.0e}",
                hint="a weight may not be finite, or the family declares a wrong axis; please report this model",
            )
    return differences


@torch.inference_mode()
def relative_difference(a: Decoder, b: Decoder, tokens: Tensor) -> float:
    """max |logits_a - logits_b| / max |logits_a|."""
    first = a.forward(tokens)
    return float((first - b.forward(tokens)).abs().max() / first.abs().max())
