"""What the artifact's header says about its origin and its levels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from edgesdk.cloud.checkpoint import Checkpoint
from edgesdk.cloud.config import BuildConfig
from edgesdk.cloud.evaluate import LevelQuality
from edgesdk.cloud.sizes import LevelPlan, PackedSizes, model_weights
from edgesdk.cloud.tokenizer import ArtifactTokenizer
from edgesdk.cloud.workdir import fingerprint
from edgesdk.errors import ModelError

__all__ = ["artifact_metadata", "file_sha256", "level_records"]


def artifact_metadata(
    checkpoint: Checkpoint, tokenizer: ArtifactTokenizer, config: BuildConfig, evaluation: Tensor
) -> dict[str, Any]:
    """The header's fields beside model, panels and levels; the source's perplexity is not known yet."""
    import edgesdk

    own = config.evaluate.text == "self"
    return {
        "tokenizer": dict(tokenizer.header),
        "evaluation": {
            "text": "sampled from the model, not used for calibration" if own else Path(config.evaluate.text).name,
            "sha256": fingerprint(evaluation.tolist()) if own else file_sha256(Path(config.evaluate.text)),
            "windows": fingerprint(evaluation.tolist()),
            "n_tokens": evaluation.numel(),
            "window_tokens": evaluation.shape[1],
            "source_perplexity": None,
        },
        "provenance": {
            "source": checkpoint.source.origin,
            "source_sha256": checkpoint.source.sha256,
            "licence": checkpoint.source.licence,
            "tool": f"edgesdk {edgesdk.__version__}",
            "settings": asdict(config),
        },
    }


def file_sha256(path: Path) -> str:
    """Hex digest of a text that the user gave."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read the text `{path}`: {error.strerror}") from error


def level_records(
    sizes: PackedSizes, ladder: Sequence[LevelPlan], quality: Sequence[LevelQuality] | None
) -> list[dict[str, Any]]:
    """The header's level records, sizes in the file left to the writer."""
    n_bytes = [sizes.level(level.kept, level.bits) for level in ladder]
    records = []
    for k, level in enumerate(ladder):
        measured = quality[k] if quality else None
        records.append(
            {
                "rate": 1 - n_bytes[k] / n_bytes[-1],
                "block_bytes": n_bytes[k],
                "allocation": [list(kept) for kept in level.kept],
                "perplexity": measured.perplexity if measured else None,
                "kl": measured.kl if measured else None,
                "gave_up": _gave_up(sizes, level, ladder[-1]),
            }
        )
    return records


def _gave_up(sizes: PackedSizes, level: LevelPlan, full: LevelPlan) -> dict[str, Any]:
    """Shares that a level lacks: of each axis over all blocks, of the bits of what it keeps, and blocks left out."""
    config = sizes.config
    lost: dict[str, int] = {}
    whole: dict[str, int] = {}
    for block, kept in zip(config.blocks, level.kept, strict=True):
        for axis, size in zip(block.axes, kept, strict=True):
            lost[axis.name] = lost.get(axis.name, 0) + axis.size - size
            whole[axis.name] = whole.get(axis.name, 0) + axis.size
    shares = {
        **{name: lost[name] / whole[name] for name in whole},
        "block bits": 1 - sizes.level(level.kept, level.bits) / sizes.level(level.kept, full.bits),
        **{
            f"{name} bits": 1 - sizes.model(level.model_bits, name) / sizes.model(full.model_bits, name)
            for name in model_weights(config)
        },
    }
    dropped = [block.name for block, kept in zip(config.blocks, level.kept, strict=True) if not any(kept)]
    return {**{name: round(share, 4) for name, share in shares.items()}, "blocks": dropped}
