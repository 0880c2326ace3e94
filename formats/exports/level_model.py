"""What an exporter gets: one level as a llama-like decoder of layers, its weights dequantized on demand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesdk.errors import UsageError
from edgesdk.formats.exports.natural import Floats, natural_block
from edgesdk.formats.reader import Artifact, LevelInfo

__all__ = ["LayerSizes", "LevelModel", "full_heads", "geometric_theta", "open_level_model"]

_THETA_TOLERANCE = 1e-4


@dataclass(frozen=True)
class LayerSizes:
    """What a level keeps of one layer: elements of a query/key and a value/output head, channels of the MLP."""

    qk: int
    vo: int
    width: int


@dataclass(frozen=True)
class LevelModel:
    """One level; `layers` in order, each an attention (block 2 i) and an MLP (block 2 i + 1)."""

    artifact: Artifact
    level: LevelInfo
    d_model: int
    vocab_size: int
    max_context: int
    norm_eps: float
    tied_head: bool
    n_heads: int
    n_kv_heads: int
    head_dim: int
    width: int  # of the full model's MLPs
    softmax_scale: float
    layers: tuple[LayerSizes, ...]

    @property
    def is_full(self) -> bool:
        """Whether this is the full level: nothing is cut."""
        return all(layer == LayerSizes(self.head_dim, self.head_dim, self.width) for layer in self.layers)

    @property
    def name(self) -> str:
        """Of the source model."""
        return str(self.artifact.edge["model"]["name"])

    @property
    def embedding(self) -> Floats:
        """(vocab_size, d_model)"""
        return self.artifact.weight("embed", self.level.index)

    @property
    def head(self) -> Floats:
        """(vocab_size, d_model); the embedding where the model is tied"""
        return self.embedding if self.tied_head else self.artifact.weight("head", self.level.index)

    @property
    def norm(self) -> Floats:
        """Gain of the last norm, (d_model,)"""
        return self.artifact.vector("norm", self.level.index)

    def attention(self, layer: int) -> dict[str, Floats]:
        """norm, q, k, v, o, inv_freq, and where they are there q_bias, k_bias and bias: see `natural_block`."""
        return natural_block(self.artifact, self.level.index, 2 * layer)

    def mlp(self, layer: int) -> dict[str, Floats]:
        """norm, gate, up, down, and where they are there gate_bias, up_bias and bias: see `natural_block`."""
        return natural_block(self.artifact, self.level.index, 2 * layer + 1)

    @property
    def natural_frequencies(self) -> Floats:
        """The rotary frequencies of a head of the full model in their natural order, falling: (head_dim / 2,)."""
        first = str(self.artifact.edge["model"]["blocks"][0]["name"])
        stored = self.artifact.vector(f"{first}.inv_freq", len(self.artifact.levels) - 1)
        heads = stored.reshape(-1, self.n_kv_heads, self._quantum // 2).transpose(1, 0, 2)
        return np.sort(heads[0].reshape(-1))[::-1].copy()

    @property
    def _quantum(self) -> int:
        return int(self.artifact.edge["model"]["blocks"][0]["axes"]["qk"][1])

    @property
    def special_tokens(self) -> tuple[int | None, tuple[int, ...]]:
        """Ids of the first token (None: there is none) and of those that end a text."""
        tokenizer = self.artifact.edge.get("tokenizer") or {}
        return tokenizer.get("bos_id"), tuple(tokenizer.get("eos_ids") or ())


def open_level_model(artifact: Artifact, level: int) -> LevelModel:
    """Raises UsageError for models that exporters do not know: all that is not an attention and a gated MLP in turn."""
    model = artifact.edge["model"]
    info = artifact.level(level)
    blocks = model["blocks"]
    problems = _problems(model)
    if problems:
        raise UsageError(
            f"`{model['name']}` ({model['family']}) cannot be exported: it has {', '.join(problems)}",
            hint="exports know llama-like decoders: layers of attention and silu-gated MLP; "
            "`edgesdk run` and `edgesdk bundle` take all families",
        )
    attention, mlp = blocks[0], blocks[1]
    kept = [sizes for block in info.allocation for sizes in block]
    return LevelModel(
        artifact,
        info,
        model["d_model"],
        model["vocab_size"],
        model["max_context"],
        model["norm_eps"],
        model["tied_head"],
        attention["n_heads"],
        attention["n_kv_heads"],
        attention["axes"]["qk"][0],
        mlp["axes"]["width"][0],
        attention["softmax_scale"],
        tuple(LayerSizes(*kept[i : i + 3]) for i in range(0, len(kept), 3)),
    )


def _problems(model: Mapping[str, Any]) -> list[str]:
    """What exporters have no words for, each once."""
    blocks = model["blocks"]
    kinds = {block["kind"] for block in blocks} - {"attention", "mlp"}
    if kinds:
        return [f"{', '.join(sorted(kinds))} blocks"]
    if len(blocks) < 2 or [block["kind"] for block in blocks] != ["attention", "mlp"] * (len(blocks) // 2):
        return ["blocks that are not attention and MLP in turn"]
    names = ("qk_norm", "post_norm", "window", "softcap")
    found = [name for name in names if any(block.get(name) for block in blocks)]
    if any(not block["gated"] or block["activation"] != "silu" for block in blocks[1::2]):
        found.append("an MLP that is not gated by silu")
    if model.get("logit_softcap"):
        found.append("logit_softcap")
    if model["embedding_scale"] != 1:
        found.append("embedding_scale")
    same = ("n_heads", "n_kv_heads", "softmax_scale", "axes")
    if any([block[key] for key in same] != [blocks[0][key] for key in same] for block in blocks[::2]):
        found.append("layers with different heads")
    return found


def full_heads(model: LevelModel, weights: Mapping[str, Floats]) -> dict[str, Floats]:
    """An attention with all its heads at full size: what the level gave up is zero, pairs stand at natural places.

    So q, k and their biases turn with the model's own rotary frequencies; v and o get zeros behind what is kept.
    returns q (n_heads, head_dim, d_model), k, v, o (d_model, n_heads, head_dim), norm, and the biases that are there
    """
    natural, size = model.natural_frequencies, model.head_dim
    out = {role: weights[role] for role in ("norm", "bias") if role in weights}
    pairs = weights["inv_freq"].shape[1]
    places = np.stack([pair_places(kept, natural) for kept in weights["inv_freq"]])  # (n_kv_heads, pairs)
    halves = np.concatenate([places, places + size // 2], axis=1)
    for role in ("q", "k"):
        group = len(weights[role]) // model.n_kv_heads
        rows = np.repeat(halves, group, axis=0)  # (heads, 2 * pairs)
        for name in {role, f"{role}_bias"} & weights.keys():
            full = np.zeros((len(weights[name]), size, *weights[name].shape[2:]), np.float32)
            if pairs:
                full[np.arange(len(full))[:, None], rows] = weights[name]
            out[name] = full
    vo = weights["v"].shape[1]
    out["v"] = np.zeros((model.n_kv_heads, size, model.d_model), np.float32)
    out["v"][:, :vo] = weights["v"]
    out["o"] = np.zeros((model.d_model, model.n_heads, size), np.float32)
    out["o"][:, :, :vo] = weights["o"]
    return out


def pair_places(kept: Floats, natural: Floats) -> NDArray[np.int64]:
    """Where the pairs with these frequencies stand in `natural` (falling); equal ones one behind the other."""
    first = np.searchsorted(-natural, -kept, side="left")
    earlier = np.tril(first[:, None] == first[None, :], -1).sum(1)
    places: NDArray[np.int64] = first + earlier
    if len(places) and (places.max() >= len(natural) or not np.array_equal(natural[places], kept)):
        raise UsageError("this level has rotary frequencies that the full model has not")
    return places


def geometric_theta(frequencies: Floats) -> float | None:
    """The theta of plain rotary positions, theta^(-2 i / head_dim); None where the frequencies are others."""
    pairs = len(frequencies)
    if pairs < 2 or frequencies[-1] <= 0:
        return None
    theta = float(frequencies[-1]) ** (-pairs / (pairs - 1))
    theta = float(round(theta)) if abs(theta - round(theta)) < _THETA_TOLERANCE * theta else theta
    wanted = theta ** (-np.arange(pairs) / pairs)
    return theta if np.allclose(frequencies, wanted, rtol=_THETA_TOLERANCE, atol=0) else None
