"""Repairs that a level can own: the bias that stands in for the mean of what was given up (FLAP, arXiv 2312.11983)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from edgesdk.cloud.families.blocks import Block, Mlp
from edgesdk.cloud.reference import BlockWeights

__all__ = ["repaired_bias"]


def repaired_bias(
    block: Block,
    weights: BlockWeights,
    kept: Sequence[int],
    moments: Mapping[str, Tensor],
    deployed: BlockWeights | None = None,
) -> Tensor:
    """Output bias (d_model,) of a level: the mean output of the source block less that of the deployed weights.

    weights: the sorted full block; kept: the level's sizes; moments: hidden_mean (width,) or z_mean (n_heads, vo)
    deployed: the output weight as stored (dequantized `down` or `o`, full size); None: the float weights.
    bias = own bias + W E[x] - W_deployed[kept] E[x[kept]]; the mean of z is taken as it is before RoPE pairs are cut.
    """
    stored = deployed if deployed is not None else weights
    if isinstance(block, Mlp):
        mean = moments["hidden_mean"].double()
        constant = weights["down"].double() @ mean
        constant -= stored["down"][:, : kept[0]].double() @ mean[: kept[0]]
    else:
        mean = moments["z_mean"].double()
        constant = torch.einsum("dhs,hs->d", weights["o"].double(), mean)
        constant -= torch.einsum("dhs,hs->d", stored["o"][:, :, : kept[1]].double(), mean[:, : kept[1]])
    return (constant + weights["bias"].double() if "bias" in weights else constant).float()
