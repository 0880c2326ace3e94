"""The page of `edgesdk profile`: speed against bytes against quality, a curve per device; every figure in a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgesdk.errors import EdgeError, MissingExtraError
from edgesdk.report.html import document, figure, folded, table, text
from edgesdk.report.operations import OPERATION_HEAD, operation_rows

__all__ = ["write_measured"]

_NOT_TOLD = "not available"


def write_measured(measured: Mapping[str, Any], path: Path) -> None:
    """Writes one HTML file with its pictures inside. measured: what `edgesdk profile --json` prints.

    Raises MissingExtraError without matplotlib, EdgeError when the file cannot be written.
    """
    try:
        from edgesdk.report.bars import draw_operations
        from edgesdk.report.speeds import draw_speeds
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith("edgesdk"):
            raise
        raise MissingExtraError(
            f"a page needs `{missing.name}`, which is not installed", hint="pip install 'edgesdk[report]'"
        ) from missing
    with TemporaryDirectory() as folder:
        picture = Path(folder) / "speeds.png"
        draw_speeds(measured["devices"], picture)
        sections = [
            f"<p>{text(measured['artifact'])}, measured {text(measured['created'])}</p>",
            "<section>\n<h2>Speed against bytes against quality</h2>",
            figure(
                picture,
                "Decoding speed over the bytes that a level maps, perplexity over decoding speed, a curve per device "
                "and backend. The same figures stand in the tables below.",
                "Each point is a level at the setting that decodes it fastest; bars are as long as the fastest less "
                "the slowest run. Left: up is faster. Right: lower right is better. Quality is what the artifact says.",
            ),
            "</section>",
        ]
        if any(row["ops"] is not None for device in measured["devices"] for row in device["results"]):
            bars = Path(folder) / "operations.png"
            draw_operations(measured["devices"], bars)
            sections += _operations(bars)
        sections += [
            *map(_device_section, measured["devices"]),
            _failures(measured["failures"]),
        ]
        page = document("edgesdk profile", sections)
    try:
        path.write_text(page, "utf-8")
    except OSError as error:
        raise EdgeError(f"cannot write `{path}`: {error.strerror}", hint="choose another file with --html") from error


def _operations(picture: Path) -> list[str]:
    return [
        "<section>\n<h2>Where the time of a decoded token goes</h2>",
        figure(
            picture,
            "A bar per level in pieces of its operations, in microseconds a token. The same figures stand in the "
            "tables of operations below.",
            "One more run of each level, at the setting that decodes it fastest, with a clock around each operation. "
            "“other” is what lies between them. qkv, o, gate_up, down and head read the weights, attention reads the "
            "cache.",
        ),
        "</section>",
    ]


def _device_section(device: Mapping[str, Any]) -> str:
    return "\n".join(
        (
            f"<section>\n<h2>{text(device['name'])}</h2>",
            table("The device", ("what", "value"), _facts(device)),
            table("Measurements", _HEAD, map(_cells, device["results"])),
            _operation_table(device["results"]),
            "</section>",
        )
    )


def _operation_table(results: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (f"{row['level']}", str(row["threads"]), str(row["prompt_tokens"]), phase, *cells)
        for row in results
        if row["ops"] is not None
        for phase in ("prefill", "decode")
        for cells in operation_rows(row["ops"][phase], row["read_gb_per_s"])
    ]
    head = ("level", "threads", "prompt", "phase", *OPERATION_HEAD)
    return folded("Operations", head, rows, "Operations of every measurement") if rows else ""


def _facts(device: Mapping[str, Any]) -> Iterable[Sequence[str]]:
    info, throttling = device["info"], device["throttling"]
    detected = throttling["detected"]
    yield "model", info["model"]
    yield "SoC", info["soc"]
    yield "system", info["os"]
    yield "kernel sets", ", ".join(info["isa"])
    yield "memory", f"{info['memory_bytes']:,} bytes"
    yield "memory reading speed, measured", f"{device['read_gb_per_s']:.1f} GB/s"
    for name in ("before", "after"):
        celsius = device[name]["celsius"]
        yield f"warmest sensor {name}", _NOT_TOLD if celsius is None else f"{celsius:.0f} °C ({device[name]['sensor']})"
    yield "throttling", _NOT_TOLD if detected is None else f"detected: {throttling['why']}" if detected else "none seen"
    yield "first measurement, done again at the end", f"{throttling['repeat']:.0%} of its speed"
    for lacking in device["unavailable"]:
        yield f"backend {lacking['backend']}, which cannot be used", lacking["error"]


_HEAD = (
    "level", "backend", "threads", "prompt", "load ms", "first token ms", "prefill tok/s", "p95", "spread",
    "decode tok/s", "p95", "spread", "peak RSS", "mapped bytes", "GB/s", "of read", "joules", "perplexity", "KL",
)  # fmt: skip


def _cells(row: Mapping[str, Any]) -> Sequence[str]:
    speeds = [row[f"{phase}_tokens_per_s"] for phase in ("prefill", "decode")]
    joules = row["energy"]["joules"]
    quality = [_NOT_TOLD if row[key] is None else f"{row[key]:.4g}" for key in ("perplexity", "kl")]
    return (
        f"{row['level']} (rate {row['rate']:.3f})",
        f"{row['backend']} {row['backend_device'] or row['isa']}",
        str(row["threads"]),
        str(row["prompt_tokens"]),
        f"{row['load_ms']:.1f}",
        f"{row['first_token_ms']:.1f}",
        *(
            cell
            for speed in speeds
            for cell in (f"{speed['p50']:.1f}", f"{speed['p95']:.1f}", f"{speed['spread']:.0%}")
        ),
        f"{row['peak_rss_bytes']:,}",
        f"{row['mapped_bytes']:,}",
        f"{row['gb_per_s']:.2f}",
        f"{row['share_of_read']:.0%}",
        _NOT_TOLD if joules is None else f"{joules:.2f} ({row['energy']['source']})",
        *quality,
    )


def _failures(failures: Sequence[Mapping[str, str]]) -> str:
    if not failures:
        return ""
    lines = "".join(f"<li>{text(one['name'])}: {text(one['error'])}</li>" for one in failures)
    return f"<section>\n<h2>Devices that could not be measured</h2>\n<ul>{lines}</ul>\n</section>"
