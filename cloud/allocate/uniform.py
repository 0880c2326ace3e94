"""Baseline: every layer gives up the same share."""

from __future__ import annotations

from edgesdk.cloud.allocate.inputs import AllocateInputs
from edgesdk.cloud.allocate.layers import layer_ladder, layer_names, target_rates
from edgesdk.cloud.sizes import LevelPlan

__all__ = ["allocate"]


def allocate(inputs: AllocateInputs) -> list[LevelPlan]:
    """The ladder, smallest level first."""
    n_layers = len(layer_names(inputs.sizes.config))
    rates = target_rates(inputs.settings.max_rate, inputs.settings.step)
    return layer_ladder(inputs, rates, lambda rate: [rate] * n_layers)
