"""What an artifact's header says about its levels: sizes, quality, what each block keeps, bits of each weight."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesdk.formats import Artifact, LevelInfo
from edgesdk.formats.rules import TABLES, weight_shapes
from edgesdk.formats.tiles import packed_bytes

__all__ = ["BlockBits", "Ladder", "LevelFigures", "read_ladder", "short_labels"]

Panels = dict[str, list[list[int]]]
"""Weight -> boxes (SPEC.md section 4) of the panels that one level uses of it."""


@dataclass(frozen=True)
class LevelFigures:
    """One level. perplexity and kl (nats per token): None where not measured.

    kept: per block, bytes of its panels as a share of those at the top level
    kept_weights: weights of all blocks that are still there, as a share
    bits_per_weight: of those, scales included
    """

    index: int
    rate: float
    mapped_bytes: int
    file_bytes: int
    perplexity: float | None
    kl: float | None
    kept: tuple[float, ...]
    kept_weights: float
    bits_per_weight: float


@dataclass(frozen=True)
class BlockBits:
    """Mean bits of the codes of a block's weights at one level, scales apart; None: the block was left out."""

    block: str
    kind: str
    bits: Mapping[str, float | None]


@dataclass(frozen=True)
class Ladder:
    """One artifact, as the report shows it.

    label: what tells it from the other artifacts of the report; text: what its quality was measured on, "" if nothing
    bits_level: the level that `bits` and `model_bits` (embedding, head) describe
    """

    label: str
    model: str
    text: str
    source_perplexity: float | None
    blocks: tuple[str, ...]
    levels: tuple[LevelFigures, ...]
    bits_level: int
    bits: tuple[BlockBits, ...]
    model_bits: Mapping[str, float]


def short_labels(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    parts = [path.absolute().parts for path in paths]
    for count in range(1, max(map(len, parts), default=1)):
        labels = ["/".join(part[-count:]) for part in parts]
        if len(set(labels)) == len(set(parts)):
            return labels
    return [str(path) for path in paths]


def read_ladder(path: Path, label: str, bits_level: int | None = None) -> Ladder:
    """Reads an artifact's header. bits_level: the level whose bits are listed, default the top one.

    Raises what Artifact.open raises, and UsageError when there is no such level.
    """
    artifact = Artifact.open(path)
    level = artifact.levels[-1] if bits_level is None else artifact.level(bits_level)
    blocks = artifact.edge["model"]["blocks"]
    used = [_panels(artifact, one.index) for one in artifact.levels]
    top_bytes, top_weights = _block_bytes(blocks, used[-1]), _block_weights(blocks, used[-1])
    figures = []
    for one, panels in zip(artifact.levels, used, strict=True):
        n_bytes, n_weights = _block_bytes(blocks, panels), _block_weights(blocks, panels)
        kept = tuple(now / top for now, top in zip(n_bytes, top_bytes, strict=True))
        bits = 8 * sum(n_bytes) / sum(n_weights) if any(n_weights) else 0.0
        figures.append(_figures(one, kept, sum(n_weights) / sum(top_weights), bits))
    text, source_perplexity = _evaluation(artifact.edge.get("evaluation"))
    return Ladder(
        label=label,
        model=str(artifact.edge["model"].get("name", "")),
        text=text,
        source_perplexity=source_perplexity,
        blocks=tuple(block["name"] for block in blocks),
        levels=tuple(figures),
        bits_level=level.index,
        bits=tuple(
            _block_bits(block, kept, used[level.index]) for block, kept in zip(blocks, level.allocation, strict=True)
        ),
        model_bits={
            name: _mean_bits([artifact.edge["panels"][piece] for piece in pieces])
            for name in TABLES
            if (pieces := artifact.pieces(name, level.index))
        },
    )


def _figures(level: LevelInfo, kept: tuple[float, ...], kept_weights: float, bits: float) -> LevelFigures:
    sizes = (level.index, level.rate, level.mapped_bytes, level.file_bytes)
    return LevelFigures(*sizes, level.perplexity, level.kl, kept, kept_weights, bits)


def _panels(artifact: Artifact, level: int) -> Panels:
    found: Panels = {}
    for name in artifact.used_names(level):
        if name in artifact.edge["panels"]:
            found.setdefault(name.rpartition("/")[0], []).append(artifact.edge["panels"][name])
    return found


def _roles(block: Mapping[str, Any]) -> list[str]:
    return list(weight_shapes(block, (0,) * len(block["axes"]), 0))


def _boxes(block: Mapping[str, Any], panels: Panels) -> list[list[int]]:
    return [box for role in _roles(block) for box in panels.get(f"{block['name']}.{role}", [])]


def _block_bytes(blocks: Sequence[Mapping[str, Any]], panels: Panels) -> list[int]:
    """Bytes of each block's panels, before padding: they add up to the level's `block_bytes`."""
    return [sum(packed_bytes(b[1] - b[0], b[3] - b[2], b[4], b[5]) for b in _boxes(block, panels)) for block in blocks]


def _block_weights(blocks: Sequence[Mapping[str, Any]], panels: Panels) -> list[int]:
    return [sum((b[1] - b[0]) * (b[3] - b[2]) for b in _boxes(block, panels)) for block in blocks]


def _block_bits(block: Mapping[str, Any], kept: tuple[int, ...], panels: Panels) -> BlockBits:
    names = {role: f"{block['name']}.{role}" for role in _roles(block)}
    bits = {role: _mean_bits(panels[name]) if any(kept) else None for role, name in names.items()}
    return BlockBits(block["name"], block["kind"], bits)


def _mean_bits(boxes: Sequence[Sequence[int]]) -> float:
    weights = [(box[1] - box[0]) * (box[3] - box[2]) for box in boxes]
    return sum(n * box[4] for n, box in zip(weights, boxes, strict=True)) / sum(weights)


def _evaluation(entry: Any) -> tuple[str, float | None]:
    """The text that levels were measured on and the source's perplexity; the header's field is free-form."""
    if not isinstance(entry, dict):
        return "", None
    text, value = str(entry.get("text") or ""), entry.get("source_perplexity")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        return text, None
    return text, float(value)
