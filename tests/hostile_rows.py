"""Hostile artifacts in which rows of the embedding have bits of their own: made from a good one by one change each."""

from __future__ import annotations

from collections.abc import Callable

from hostile import Header, Hostile

__all__ = ["ROW_CASES"]


def _renamed(name: str, new: str) -> Callable[[Header, Header], None]:
    """Gives a panel another name."""

    def change(outer: Header, edge: Header) -> None:
        outer[new] = outer.pop(name)
        edge["panels"][new] = edge["panels"].pop(name)

    return change


def _first_rows_are_whole(outer: Header, edge: Header) -> None:
    """The first rows are called `embed`, and the numbers of the others begin at 0."""

    def renamed(name: str) -> str:
        if not name.startswith("embed."):
            return name
        number, level = name.removeprefix("embed.").split("/")
        return f"embed/{level}" if number == "0" else f"embed.{int(number) - 1}/{level}"

    for table in (outer, edge["panels"]):
        entries = {renamed(name): entry for name, entry in table.items()}
        table.clear()
        table.update(entries)


def _extra(name: str, *, has_panel: bool = True) -> Callable[[Header, Header], None]:
    """A tensor more, in the padding of a run of level 0: a panel of 16 x 64 that is right in itself, or bytes."""

    def change(outer: Header, edge: Header) -> None:
        runs = [run for run in edge["runs"] if run["first_level"] == 0]
        pads = {n: t["data_offsets"] for n, t in outer.items() if n.startswith("pad.") and t["shape"][0] >= 640}
        pad, (begin, end) = next((n, o) for n, o in pads.items() if any(r["begin"] <= o[0] < r["end"] for r in runs))
        del outer[pad]
        first = -(-begin // 64) * 64
        parts = {"pad.9998": (begin, first), name: (first, first + 576), "pad.9999": (first + 576, end)}
        outer.update({n: {"dtype": "U8", "shape": [e - b], "data_offsets": [b, e]} for n, (b, e) in parts.items()})
        if has_panel:
            edge["panels"][name] = [0, 16, 0, 64, 4, 32, len(edge["codebooks"])]
            edge["codebooks"].append(list(range(-8, 8)))

    return change


def _uneven_rows(_: Header, edge: Header) -> None:
    """The border of the last two panels moves into a tile; both keep their bytes."""
    for name, box in edge["panels"].items():
        if name.startswith("embed.5/"):
            box[1] -= 4
        if name.startswith("embed.6/"):
            box[0] -= 4


def _swapped(name: str, other: str) -> Callable[[Header, Header], None]:
    """Two panels give each other their names."""

    def change(outer: Header, edge: Header) -> None:
        for table in (outer, edge["panels"]):
            table[name], table[other] = table[other], table[name]

    return change


ROW_CASES = (
    Hostile("part of a tile", "3", _uneven_rows),
    Hostile("rows in another order", "4.2", _swapped("embed.2/0", "embed.4/0")),
    Hostile("no first rows", "4.2", _renamed("embed.0/0", "embed.9/0")),
    Hostile("number with a zero", "4.2", _renamed("embed.1/0", "embed.01/0")),
    Hostile("whole beside rows", "4.2", _renamed("embed.6/0", "embed/0")),
    Hostile("whole in place of the first rows", "4.2", _first_rows_are_whole),
    Hostile("rows without a panel", "4", _extra("embed.7/0", has_panel=False)),
    Hostile("whole without a panel", "4", _extra("embed/0", has_panel=False)),
    Hostile("rows behind a gap", "4.2", _extra("embed.9/0")),
    Hostile("head of a tied model", "4.2", _extra("head/0")),
    Hostile("rows of a head of a tied model", "4.2", _extra("head.0/0")),
    Hostile("panel of no block", "4.2", _extra("blk.99.attn.q/0")),
)
