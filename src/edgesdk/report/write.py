"""Writes a report into a folder: index.html, which holds everything, and its pictures as files beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgesdk.errors import EdgeError, MissingExtraError, UsageError
from edgesdk.report.html import document
from edgesdk.report.ladders import read_ladder, short_labels
from edgesdk.report.page import ladder_section, quality_section
from edgesdk.report.series import read_series

__all__ = ["WrittenReport", "write_report"]


@dataclass(frozen=True)
class WrittenReport:
    """Files that were written."""

    page: Path
    pictures: tuple[Path, ...]


def write_report(
    artifacts: Sequence[Path], out: Path, *, compare: Mapping[str, Path] | None = None, level: int | None = None
) -> WrittenReport:
    """Draws artifacts, and points of others beside them, into `out` (made if it is not there).

    compare: name -> JSON file, a list of {"name", "mapped_bytes", "file_bytes", "perplexity", optional "kl" and "text"}
    or what `edgesdk eval --json` printed; level: whose bits are shown, default the top one
    Raises MissingExtraError without matplotlib, UsageError and ArtifactError for files that cannot be read.

    Example:
        write_report([Path("model.edge")], Path("report"), compare={"llama.cpp": Path("quality.json")})
    """
    if not artifacts:
        raise UsageError("no artifact to report on")
    try:
        from edgesdk.report.curves import curves, draw_quality
        from edgesdk.report.heatmaps import draw_bits, draw_kept
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith("edgesdk"):
            raise
        raise MissingExtraError(
            f"a report needs `{missing.name}`, which is not installed", hint="pip install 'edgesdk[report]'"
        ) from missing
    labels = short_labels(artifacts)
    ladders = [read_ladder(path, label, level) for path, label in zip(artifacts, labels, strict=True)]
    series = [read_series(name, path) for name, path in (compare or {}).items()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        quality = out / "quality.png"
        pictures = [quality] if draw_quality(curves(ladders, series), quality) else []
        sections = [quality_section(ladders, series, quality if pictures else None)]
        for number, ladder in enumerate(ladders, start=1):
            kept, bits = out / f"kept-{number}.png", out / f"bits-{number}.png"
            draw_kept(ladder, kept)
            draw_bits(ladder, bits)
            pictures += [kept, bits]
            sections.append(ladder_section(ladder, kept, bits))
        index = out / "index.html"
        index.write_text(document("edgesdk report", sections), encoding="utf-8")
    except OSError as error:
        raise EdgeError(f"cannot write to `{out}`: {error.strerror}", hint="choose another folder with -o") from error
    return WrittenReport(index, tuple(pictures))
