"""Repairs that a level can own: the bias that stands in for the mean of what was given up (FLAP, arXiv 2312.11983)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from edgesdk.cloud.families.blocks import Block, Mlp, Ssm
from edgesdk.cloud.ordered import SortedModel
from edgesdk.cloud.quantize.block import dequantized
from edgesdk.cloud.reference import BlockWeights
from edgesdk.cloud.sizes import LevelPlan
from edgesdk.cloud.stored import StoredWeights
from edgesdk.cloud.workdir import fingerprint

__all__ = ["level_biases", "repaired_bias"]


def level_biases(ordered: SortedModel, weights: StoredWeights, ladder: Sequence[LevelPlan], index: int) -> Tensor:
    """The biases (n_levels, d_model) that repair a block at each level: recovered ones, or computed once and kept.

    Tuned scales are left out: they already make up for what they change.
    """
    recovered = weights.biases(index)
    if recovered is not None:
        return recovered
    block = ordered.decoder.config.blocks[index]
    position, output = next((i, w) for i, w in enumerate(block.weights) if w.columns is not None)
    states = [(level.kept[index], level.bits[index][position]) for level in ladder]
    name = f"bias-{index:03d}-{fingerprint(states)}.safetensors"
    if not weights.codes.has(name):
        source, moments = ordered.decoder.block_weights(index), ordered.moments(index)
        untuned = StoredWeights(weights.codes)
        made: dict[tuple[tuple[int, ...], int], Tensor] = {}
        for bits in sorted({bits for _, bits in states}):
            deployed = {output.role: dequantized(block, output, untuned.weight(index, output.role, bits))}
            for kept in sorted({kept for kept, own in states if own == bits}):
                made[kept, bits] = repaired_bias(block, source, kept, moments, deployed)
        weights.codes.save(name, {"bias": torch.stack([made[state] for state in states])})
    return weights.codes.load(name)[0]["bias"]


def repaired_bias(
    block: Block,
    weights: BlockWeights,
    kept: Sequence[int],
    moments: Mapping[str, Tensor],
    deployed: BlockWeights | None = None,
) -> Tensor:
    """Output bias (d_model,) of a level: the mean output of the source block less that of the deployed weights.

    weights: the sorted full block; kept: the level's sizes
    moments: hidden_mean (width,), or (n_heads, head) of a mixer, or z_mean (n_heads, vo); and output_mean (d_model,)
    deployed: the output weight as stored (dequantized `down`, `o` or `out`, full size); None: the float weights.
    bias = own bias + W E[x] - W_deployed[kept] E[x[kept]]; the means are those before RoPE pairs or states are cut.
    A block with a post norm that is left out adds its bias behind that norm: the mean of what the block added.
    """
    if block.post_norm and not any(kept):
        return moments["output_mean"].float()
    stored = deployed if deployed is not None else weights
    if isinstance(block, Mlp):
        mean = moments["hidden_mean"].double()
        constant = weights["down"].double() @ mean
        constant -= stored["down"][:, : kept[0]].double() @ mean[: kept[0]]
    else:
        role, name = ("out", "hidden_mean") if isinstance(block, Ssm) else ("o", "z_mean")
        mean = moments[name].double()
        constant = torch.einsum("dhs,hs->d", weights[role].double(), mean)
        constant -= torch.einsum("dhs,hs->d", stored[role][:, :, : kept[1]].double(), mean[:, : kept[1]])
    return (constant + weights["bias"].double() if "bias" in weights else constant).float()
