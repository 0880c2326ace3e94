"""Ranking: from a block's weights and moments to the order of its axes. One file per method, one line each here."""

from __future__ import annotations

from collections.abc import Callable

from edgesdk.cloud.families.blocks import Block
from edgesdk.cloud.moments import Moments
from edgesdk.cloud.rank import given, magnitude, outputs, uniql
from edgesdk.cloud.reference import BlockWeights
from edgesdk.cloud.sort import Order

__all__ = ["METHODS", "RankMethod"]

RankMethod = Callable[[Block, BlockWeights, Moments], Order]

METHODS: dict[str, RankMethod] = {
    "outputs": outputs.rank,  # what each element adds to the block's output
    "uniql": uniql.rank,  # baseline: ridge leverage, PCA of values, pair energies
    "magnitude": magnitude.rank,  # baseline: norms of the weights
    "given": given.rank,  # baseline: no order at all
}
