"""Packs quantized blocks into an artifact: cuts every weight along the ladder's allocation and names the pieces."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesdk.cloud.families.blocks import NORMS, Attention, Block, ModelConfig, Ssm, Weight
from edgesdk.cloud.sizes import LevelPlan, model_panels, model_weights
from edgesdk.formats.tiles import pack_panel, padded_bytes
from edgesdk.formats.writer import ArtifactWriter, Piece

__all__ = [
    "ROW_BIASES",
    "BlockVectors",
    "QuantizedWeight",
    "model_header",
    "write_artifact",
]

ROW_BIASES = {"attention": ("q", "k"), "mlp": ("gate", "up"), "ssm": ("z", "x", "b", "c")}
"""Weights of a block whose outputs may have a bias of their own."""


@dataclass(frozen=True)
class QuantizedWeight:
    """codes (rows, columns) uint8 and scales (rows, n_groups) float16, axes in file order (SPEC.md section 3).

    error: mean squared error of what the weight computes, in units of its output, where it is known
    """

    codes: NDArray[np.uint8]
    scales: NDArray[np.float16]
    bits: int
    group: int
    codebook: tuple[int, ...] | None  # 2 ** bits int8 values at 2, 3 and 4 bits
    error: float | None = None

    def values(self) -> NDArray[np.int8]:
        """The integers that the codes stand for, to be multiplied with their group's scale."""
        if self.codebook is not None:
            return np.asarray(self.codebook, np.int8)[self.codes]
        return self.codes.view(np.int8) if self.bits == 8 else (self.codes.astype(np.int8) - np.int8(32))


@dataclass(frozen=True)
class BlockVectors:
    """A block's small tensors in file order.

    vectors: norm (d_model,), inv_freq of attention, where a block has them post_norm (d_model,), q_norm and k_norm
    (head_dim,), what `_ssm_pieces` lists of a state-space mixer, and row biases: q_bias, k_bias, gate_bias, up_bias,
    z_bias, x_bias, b_bias, c_bias
    (a value bias is folded into the block's bias: attention weights sum to 1)
    level_bias: one (d_model,) vector per level, or None where the block adds no bias
    """

    vectors: Mapping[str, NDArray[Any]]
    level_bias: tuple[NDArray[np.float32] | None, ...]


def write_artifact(
    path: Path,
    config: ModelConfig,
    ladder: Sequence[LevelPlan],
    weight: Callable[[int | None, str, int], QuantizedWeight],
    block_vectors: Callable[[int], BlockVectors],
    model_tensors: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, Any],
    levels: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Writes one artifact and returns its level records with their sizes.

    ladder: smallest level first, ending with the full sizes
    weight: loads a weight by block index (None: embedding and head), role and bits; called for every piece of it, one
        in memory at a time
    block_vectors: a block's small tensors, by index
    model_tensors: norm, tokenizer.* and chat_template, all part of level 0
    metadata: the header's fields beside model, codebooks, panels, runs and levels; levels: rate and quality per level
    """
    writer = ArtifactWriter(len(ladder))
    codebooks: list[list[int]] = []
    top = len(ladder) - 1
    for name in model_weights(config):
        for piece in _model_pieces(config, name, ladder, partial(weight, None, name), codebooks):
            writer.add(piece)
    for name, tensor in model_tensors.items():
        writer.add(Piece(name, 0, top, str(tensor.dtype), tensor.shape, tensor))
    for index, block in enumerate(config.blocks):
        kept = [level.kept[index] for level in ladder]
        bits_of = [level.bits[index] for level in ladder]
        for piece in _block_pieces(block, kept, bits_of, partial(weight, index), block_vectors(index), codebooks):
            writer.add(piece)
    fields = {"model": model_header(config), **metadata, "codebooks": codebooks}
    return writer.write(path, fields, levels)


def _model_pieces(
    config: ModelConfig,
    name: str,
    ladder: Sequence[LevelPlan],
    load: Callable[[int], QuantizedWeight],
    codebooks: list[list[int]],
) -> Iterator[Piece]:
    """Embedding or head: rows that have the same bits at every level are one panel."""
    bits_of = zip(model_panels(config), zip(*(level.model_bits for level in ladder), strict=True), strict=True)
    own = [(panel, bits) for panel, bits in bits_of if panel.weight == name]
    merged = [(bits, [panel for panel, _ in group]) for bits, group in itertools.groupby(own, key=lambda pair: pair[1])]
    for index, (bits, panels) in enumerate(merged):
        box = (panels[0].begin, panels[-1].end, 0, config.d_model)
        panel_name = name if len(merged) == 1 else f"{name}.{index}"
        for first, last, version in _versions(bits):
            make = partial(load, version)
            yield _panel_piece(panel_name, first, last, box, make(), codebooks, make)


def _versions(bits: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(first level, last level, bits) of each version of a weight: levels in a row that use the same bits share it."""
    for value, group in itertools.groupby(enumerate(bits), key=lambda pair: pair[1]):
        levels = [level for level, _ in group]
        yield levels[0], levels[-1], value


def _block_pieces(
    block: Block,
    kept: Sequence[tuple[int, ...]],
    bits_of: Sequence[tuple[int, ...]],
    load: Callable[[str, int], QuantizedWeight],
    tensors: BlockVectors,
    codebooks: list[list[int]],
) -> Iterator[Piece]:
    top = len(kept) - 1
    for norm in NORMS:
        gain = tensors.vectors.get(norm)
        if gain is not None:
            yield Piece(f"{block.name}.{norm}", 0, top, "float32", gain.shape, gain)
    for position, weight in enumerate(block.weights):
        name = f"{block.name}.{weight.role}"
        for first, last, bits in _versions([level[position] for level in bits_of]):
            for level in range(first, last + 1):
                begin, end = _cut(block, kept, level, weight.rows or weight.columns)
                begin = begin if level > first else 0  # a new version replaces what smaller levels use
                if end > begin:
                    yield _weight_piece(name, weight, (level, last), (begin, end), bits, load, codebooks)
        row_bias = tensors.vectors.get(f"{weight.role}_bias")
        for level in range(top + 1):
            begin, end = _cut(block, kept, level, weight.rows or weight.columns)
            if row_bias is not None and end > begin:
                yield Piece(f"{name}.bias", level, top, "float32", (end - begin,), row_bias[begin:end])
    if isinstance(block, Ssm):
        yield from _ssm_pieces(block, kept, tensors.vectors)
    for level in range(top + 1):
        if isinstance(block, Attention):
            begin, end = (n // 2 for n in _cut(block, kept, level, ("qk", block.n_kv_heads)))
            if end > begin:
                values = tensors.vectors["inv_freq"][begin:end]
                yield Piece(f"{block.name}.inv_freq", level, top, "float32", values.shape, values)
        bias = tensors.level_bias[level]
        if bias is not None:
            yield Piece(f"{block.name}.bias", level, level, "float16", bias.shape, bias.astype(np.float16))


def _ssm_pieces(block: Ssm, kept: Sequence[tuple[int, ...]], vectors: Mapping[str, NDArray[Any]]) -> Iterator[Piece]:
    """dt (n_heads * d_model,) float16; dt_bias, a, d (n_heads,); conv (rows, taps + 1) of x, b, c; gain (rows,)."""
    top = len(kept) - 1
    for name in ("dt", "dt_bias", "a", "d"):
        values = vectors[name]
        yield Piece(f"{block.name}.{name.replace('_', '.')}", 0, top, str(values.dtype), values.shape, values)
    heads, groups = ("head", block.n_heads), ("state", block.n_groups)
    for name, axis in (("x_conv", heads), ("b_conv", groups), ("c_conv", groups), ("gain", heads)):
        for level in range(top + 1):
            begin, end = _cut(block, kept, level, axis)
            if end > begin:
                values = vectors[name][begin:end].reshape(-1)
                yield Piece(f"{block.name}.{name.replace('_', '.')}", level, top, "float32", values.shape, values)


def _weight_piece(
    name: str,
    weight: Weight,
    levels: tuple[int, int],
    cut: tuple[int, int],
    bits: int,
    load: Callable[[str, int], QuantizedWeight],
    codebooks: list[list[int]],
) -> Piece:
    quantized = load(weight.role, bits)
    rows, columns = quantized.codes.shape
    box = (*cut, 0, columns) if weight.rows else (0, rows, *cut)
    return _panel_piece(name, *levels, box, quantized, codebooks, partial(load, weight.role, bits))


def _cut(block: Block, kept: Sequence[tuple[int, ...]], level: int, axis: tuple[str, int] | None) -> tuple[int, int]:
    """The elements of an axis that a level adds to the level below it."""
    if axis is None:
        raise ValueError(f"{block.name}: a weight needs one cut axis")
    position = next(i for i, a in enumerate(block.axes) if a.name == axis[0])
    below = kept[level - 1][position] if level else 0
    return below * axis[1], kept[level][position] * axis[1]


def _panel_piece(
    name: str,
    level: int,
    last_level: int,
    box: tuple[int, int, int, int],
    weight: QuantizedWeight,
    codebooks: list[list[int]],
    load: Callable[[], QuantizedWeight],
) -> Piece:
    row_begin, row_end, column_begin, column_end = box
    bits, group = weight.bits, weight.group
    codebook = -1
    if weight.codebook is not None:
        values = list(weight.codebook)
        codebook = codebooks.index(values) if values in codebooks else len(codebooks)
        if codebook == len(codebooks):
            codebooks.append(values)

    def pack() -> NDArray[np.uint8]:
        source = load()
        codes = source.codes[row_begin:row_end, column_begin:column_end]
        scales = source.scales[row_begin:row_end, column_begin // group : -(-column_end // group)]
        return pack_panel(codes, scales, bits, group)

    n_bytes = padded_bytes(row_end - row_begin, column_end - column_begin, bits, group)
    return Piece(name, level, last_level, "uint8", (n_bytes,), pack, (*box, bits, group, codebook))


def _row_biases(block: Block) -> list[str]:
    if isinstance(block, Ssm):  # one bias of `in` for all of them
        return list(ROW_BIASES[block.kind]) if "in_bias" in block.sources else []
    return [role for role in ROW_BIASES[block.kind] if f"{role}_bias" in block.sources]


def model_header(config: ModelConfig) -> dict[str, Any]:
    """The header's `model` field (SPEC.md section 3)."""
    blocks: list[dict[str, Any]] = []
    for block in config.blocks:
        entry: dict[str, Any] = {
            "name": block.name,
            "kind": block.kind,
            "axes": {axis.name: [axis.size, axis.quantum] for axis in block.axes},
            "row_bias": _row_biases(block),
        }
        optional: dict[str, Any] = {"post_norm": block.post_norm}
        if isinstance(block, Attention):
            entry |= {
                "n_heads": block.n_heads,
                "n_kv_heads": block.n_kv_heads,
                "softmax_scale": block.softmax_scale,
            }
            optional |= {"qk_norm": block.qk_norm, "window": block.window, "softcap": block.softcap}
        elif isinstance(block, Ssm):
            low, high = block.step_limits
            entry |= {
                "n_heads": block.n_heads,
                "n_groups": block.n_groups,
                "norm_groups": block.norm_groups,
                "conv_kernel": block.conv_kernel,
                "step_limits": [low, high if math.isfinite(high) else None],
            }
        else:
            entry |= {"activation": block.activation, "gated": block.gated}
        blocks.append(entry | {name: value for name, value in optional.items() if value})
    header = {
        "family": config.family,
        "name": config.name,
        "d_model": config.d_model,
        "vocab_size": config.vocab_size,
        "max_context": config.max_context,
        "norm_eps": config.norm_eps,
        "embedding_scale": config.embedding_scale,
        "tied_head": config.tied_head,
        "blocks": blocks,
    }
    return header if config.logit_softcap is None else header | {"logit_softcap": config.logit_softcap}
