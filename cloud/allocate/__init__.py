"""Allocation: which blocks give up how much at each level. One file per method, one line each here."""

from __future__ import annotations

from collections.abc import Callable

from edgesdk.cloud.allocate import block_influence, measured, uniform
from edgesdk.cloud.allocate.inputs import AllocateInputs, BitLosses
from edgesdk.cloud.sizes import LevelPlan

__all__ = ["AXES", "METHODS", "AllocateInputs", "AllocateMethod", "BitLosses"]

AllocateMethod = Callable[[AllocateInputs], list[LevelPlan]]

AXES = ("all", "width", "bits")
"""What a ladder may give up: bits and sizes, only sizes (as UniQL does), or only bits."""

METHODS: dict[str, AllocateMethod] = {
    "measured": measured.allocate,  # least measured KL per byte first
    "uniform": uniform.allocate,  # baseline: the same rate everywhere
    "block-influence": block_influence.allocate,  # baseline: UniQL's softmax of block influence
}
