"""Sections of the report: pictures, and every figure of every picture in a table beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgesdk.report.html import figure, folded, table, text
from edgesdk.report.ladders import Ladder
from edgesdk.report.series import Series

__all__ = ["ladder_section", "quality_section"]

_NO_FIGURE = "not measured"


def quality_section(ladders: Sequence[Ladder], series: Sequence[Series], picture: Path | None) -> str:
    """Quality against bytes: the picture (None: nothing to draw), what was measured on which text, and all figures."""
    parts = ["<section>\n<h2>Quality against bytes</h2>"]
    if picture is None:
        parts.append(
            '<p class="note">No level was measured: build with an evaluation, or use <code>edgesdk eval</code>.</p>'
        )
    else:
        parts.append(
            figure(
                picture,
                "Perplexity and KL divergence to the source, on log axes, over the bytes that are mapped. "
                "The same figures stand in the tables below.",
                "Lines join the levels of one file; points that stand alone are files of a fixed size. Lower and "
                "further left is better. The axes do not begin at 0. Bytes are those of the weights, without the "
                "key/value cache. A log axis has no place for 0: what is 0 stands in the tables alone.",
            )
        )
    tables = [*map(_level_table, ladders), *map(_series_table, series)]
    return "\n".join((*parts, _texts(ladders, series), *tables, "</section>"))


def ladder_section(ladder: Ladder, kept: Path, bits: Path) -> str:
    """What one artifact's levels gave up, block by block, and the bits of its weights."""
    title = f"{ladder.label}: {ladder.model}" if ladder.model else ladder.label
    levels = [f"level {level.index}" for level in ladder.levels]
    shares = [(name, *(f"{level.kept[b]:.1%}" for level in ladder.levels)) for b, name in enumerate(ladder.blocks)]
    rows = [(name, "", f"{value:.3g}") for name, value in ladder.model_bits.items()]
    for block in ladder.bits:
        rows += [(block.block, role, _number(value, ".3g", "left out")) for role, value in block.bits.items()]
    return "\n".join(
        (
            f"<section>\n<h2>{text(title)}</h2>",
            "<h3>What each level gave up, block by block</h3>",
            figure(
                kept,
                f"Heat map of {ladder.label}: share of each block's bytes that each level keeps.",
                "Rows are blocks in forward order, columns levels; bytes of codes and scales, as a share of the "
                "block's bytes at the top level. Fewer bytes are fewer channels, fewer bits, or both; 0 is a block "
                "that was left out.",
            ),
            folded("Share of each block's bytes that a level keeps", ("block", *levels), shares),
            "<h3>Bits of each weight</h3>",
            figure(
                bits,
                f"Heat map of {ladder.label}: bits of the codes of each weight at level {ladder.bits_level}.",
                f"Bits of the codes at level {ladder.bits_level}, the mean over a weight's panels; scales come on top: "
                "the table of levels has bits with scales.",
            ),
            folded(f"Bits of codes at level {ladder.bits_level}", ("tensor", "weight", "bits"), rows),
            "</section>",
        )
    )


def _texts(ladders: Sequence[Ladder], series: Sequence[Series]) -> str:
    """What each curve was measured on, and a warning where the texts differ or are not known."""
    lines, texts = [], set()
    measured = [ladder for ladder in ladders if any(level.perplexity is not None for level in ladder.levels)]
    for ladder in measured:
        texts.add(ladder.text)
        source = "" if ladder.source_perplexity is None else f"; its source has {ladder.source_perplexity:.3f}"
        lines.append(f"<li>{text(ladder.label)}: {text(ladder.text or 'a text that it does not name')}{source}</li>")
    for one in series:
        texts.add(one.text)
        lines.append(f"<li>{text(one.name)}: {text(one.text or 'a text that it does not name')}</li>")
    if not lines:
        return ""
    warning = ""
    if len(texts) > 1 or (texts == {""} and len(lines) > 1):
        warning = (
            '<p class="warning"><strong>Not the same text.</strong> As far as the files say, these curves were '
            "measured on different texts: compare their shapes, not their heights.</p>"
        )
    return f"<p>Perplexity was measured on</p>\n<ul>\n{''.join(lines)}\n</ul>\n{warning}"


def _level_table(ladder: Ladder) -> str:
    head = ("level", "rate", "mapped bytes", "file bytes", "weights kept", "bits a weight", "perplexity", "KL")
    rows = [
        (
            str(one.index),
            f"{one.rate:.4f}",
            f"{one.mapped_bytes:,}",
            f"{one.file_bytes:,}",
            f"{one.kept_weights:.1%}",
            f"{one.bits_per_weight:.3f}",
            _number(one.perplexity, ".3f"),
            _number(one.kl, ".4f"),
        )
        for one in ladder.levels
    ]
    return table(f"Levels of {ladder.label} (weights and bits, scales included, are those of the blocks)", head, rows)


def _series_table(series: Series) -> str:
    head = ("name", "mapped bytes", "file bytes", "perplexity", "KL")
    rows = [
        (p.name, f"{p.mapped_bytes:,}", f"{p.file_bytes:,}", f"{p.perplexity:.3f}", _number(p.kl, ".4f"))
        for p in series.points
    ]
    return table(series.name, head, rows)


def _number(value: float | None, form: str, missing: str = _NO_FIGURE) -> str:
    return missing if value is None else format(value, form)
