"""Figures of a sweep as plain data: statistics over runs, the table of a CSV, and the schema of the JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["CSV_COLUMNS", "MEASURED_SCHEMA", "csv_text", "summary"]

MEASURED_SCHEMA: dict[str, Any] = json.loads((Path(__file__).parent / "measured.schema.json").read_text("utf-8"))
"""JSON schema of what `edgesdk profile --json` prints."""

_STATISTICS = ("mean", "p50", "p95", "spread")
CSV_COLUMNS = (
    "device",
    "level",
    "rate",
    "perplexity",
    "kl",
    "backend",
    "backend_device",
    "isa",
    "threads",
    "prompt_tokens",
    "decode_tokens",
    "runs",
    "load_ms",
    "first_token_ms",
    *(f"prefill_tokens_per_s_{name}" for name in _STATISTICS),
    *(f"decode_tokens_per_s_{name}" for name in _STATISTICS),
    "peak_rss_bytes",
    "mapped_bytes",
    "token_bytes",
    "gb_per_s",
    "read_gb_per_s",
    "share_of_read",
    "energy_source",
    "energy_joules",
    "energy_watts",
    "error",
)


def summary(n_tokens: int, seconds: Sequence[float]) -> dict[str, float]:
    """Tokens per second over runs that each took `seconds` for `n_tokens`.

    mean; p50: at the median time; p95: what 95 % of the runs reach or exceed (nearest rank)
    spread: (fastest - slowest) / p50
    """
    speeds = sorted(n_tokens / max(value, 1e-9) for value in seconds)
    n = len(speeds)
    middle = n_tokens / max(median(seconds), 1e-9)
    return {
        "mean": sum(speeds) / n,
        "p50": middle,
        "p95": speeds[n - math.ceil(0.95 * n)],
        "spread": (speeds[-1] - speeds[0]) / middle,
    }


def csv_text(measured: Mapping[str, Any]) -> str:
    """One line per measurement, under CSV_COLUMNS; what is not available is empty.

    A backend that a device lacks is a line with its `error`.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for device in measured["devices"]:
        for row in device["results"]:
            writer.writerow(_flat(device["name"], row))
        for lacking in device["unavailable"]:
            writer.writerow(_flat(device["name"], lacking))
    return text.getvalue()


def _flat(device: str, row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {"device": device}
    for key, value in row.items():
        if isinstance(value, dict):
            flat.update({f"{key}_{name}": entry for name, entry in value.items()})
        else:
            flat[key] = value
    return {key: flat.get(key) for key in CSV_COLUMNS}
