"""Parts of pages: tables, pictures inside the page, escaped text. What they give is also well-formed XML."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ["document", "figure", "folded", "table", "text"]

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
img { max-width: 100%; height: auto; }
figure { margin: 1rem 0; overflow-x: auto; }
figcaption, .note { color: #444; max-width: 60rem; }
.warning { border-left: 4px solid #d55e00; padding-left: .75rem; max-width: 60rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .75rem 0; font-variant-numeric: tabular-nums; font-size: .875rem; }
caption { text-align: left; font-weight: 600; padding: .25rem 0; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child { text-align: left; }
summary { cursor: pointer; }
@media (max-width: 48rem) { img { max-width: none; width: 48rem; } th:first-child { white-space: normal; } }
"""  # noqa: E501
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def document(title: str, sections: Iterable[str]) -> str:
    """The whole document; it needs no network and no script."""
    body = "\n".join(sections)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{text(_POLICY)}"/>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{text(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first cell of each row names it."""
    columns = "".join(f'<th scope="col">{text(name)}</th>' for name in head)
    body = "\n".join(
        f'<tr><th scope="row">{text(row[0])}</th>{"".join(f"<td>{text(cell)}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<div class="scroll"><table>\n<caption>{text(caption)}</caption>\n<thead><tr>{columns}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def folded(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], summary: str = "The same figures as a table"
) -> str:
    """A table that is opened by a click on its summary."""
    return f"<details>\n<summary>{text(summary)}</summary>\n{table(caption, head, rows)}\n</details>"


def figure(picture: Path, alternative: str, caption: str) -> str:
    """A PNG, inside the page, with its caption; alternative: the text for those who do not see it."""
    data = base64.b64encode(picture.read_bytes()).decode("ascii")
    return (
        f'<figure>\n<img alt="{text(alternative)}" src="data:image/png;base64,{data}"/>\n'
        f"<figcaption>{text(caption)}</figcaption>\n</figure>"
    )


def text(value: str) -> str:
    """Text for content and quoted attributes: nothing in it is markup, and what no page may hold becomes U+FFFD."""
    return html.escape(_UNPRINTABLE.sub("\ufffd", value))
