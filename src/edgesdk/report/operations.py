"""Where the time of a forward pass goes: what `edgesdk profile --ops` measured, as rows for a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["OPERATION_HEAD", "operation_rows"]

OPERATION_HEAD = ("operation", "calls", "µs a token", "of the time", "bytes a token", "GB/s", "of read")
_NONE = "-"


def operation_rows(times: Mapping[str, Any], read_gb_per_s: float) -> list[tuple[str, ...]]:
    """One row per operation, and what no operation has: cells under OPERATION_HEAD.

    times: `prefill` or `decode` of the `ops` of a measurement; read_gb_per_s: what the same threads read from memory
    """
    n_tokens, whole = times["tokens"], times["seconds"]
    rows: list[tuple[str, ...]] = []
    for op in (one for one in times["ops"] if one["calls"]):
        speed = op["gb_per_s"]
        rows.append(
            (
                str(op["op"]),
                str(op["calls"]),
                *_time(op["seconds"], n_tokens, whole),
                f"{op['bytes'] / n_tokens:,.0f}" if op["bytes"] else _NONE,
                _NONE if speed is None else f"{speed:.1f}",
                _NONE if speed is None else f"{speed / read_gb_per_s:.0%}",
            )
        )
    rest = whole - sum(op["seconds"] for op in times["ops"])
    rows.append(("other", _NONE, *_time(rest, n_tokens, whole), _NONE, _NONE, _NONE))
    return rows


def _time(seconds: float, n_tokens: int, whole: float) -> tuple[str, str]:
    return f"{seconds / n_tokens * 1e6:,.1f}", f"{seconds / whole:.1%}"
