"""Baseline after UniQL (arXiv 2512.03383): layers that change the residual stream less give up more."""

from __future__ import annotations

import math

from edgesdk.cloud.allocate.inputs import AllocateInputs
from edgesdk.cloud.allocate.layers import layer_ladder, target_rates
from edgesdk.cloud.sizes import LevelPlan

__all__ = ["allocate"]

_TEMPERATURE = 0.1
_MOST = 0.85


def allocate(inputs: AllocateInputs) -> list[LevelPlan]:
    """rate_l = L * rate * softmax(-s_l / 0.1) within [0, 0.85], s_l = 1 - mean cosine of layer l's input and output."""
    scores = [-(1 - similarity) / _TEMPERATURE for similarity in inputs.layer_similarity]
    top = max(scores)
    weights = [math.exp(score - top) for score in scores]
    shares = [weight * len(weights) / sum(weights) for weight in weights]
    rates = target_rates(inputs.settings.max_rate, inputs.settings.step)
    return layer_ladder(inputs, rates, lambda rate: [min(_MOST, rate * share) for share in shares])
