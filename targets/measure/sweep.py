"""Runs `edge-run bench` on a device for every level, backend, number of threads and prompt length of a plan."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from edgesdk.errors import DeviceError, UsageError
from edgesdk.targets.condition import held_back, read_condition
from edgesdk.targets.connections import Connection
from edgesdk.targets.deploy import Deployment, error_and_hint, refusal
from edgesdk.targets.energy import measured_script, parse_energy
from edgesdk.targets.measure.figures import summary
from edgesdk.targets.probe import DeviceInfo, probe

__all__ = ["Plan", "here", "measure_device"]

Progress = Callable[[str, int, int], None]
"""Called with (device, measurements that are done, measurements in all)."""

_SLOWER = 0.9  # the first measurement, done again at the end: below this share of its speed the device held back
_COPIED = (
    "level", "rate", "isa", "threads", "prompt_tokens", "decode_tokens", "load_ms", "first_token_ms", "peak_rss_bytes",
    "mapped_bytes", "token_bytes", "gb_per_s", "read_gb_per_s", "share_of_read", "logits_hash", "backend",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What is varied. Empty: all levels that are there; one thread and one per core.

    threads: of the CPU; a GPU, which they mean nothing to, is measured once
    ops: one more run of each setting tells where its time goes, by kind of operation
    """

    levels: tuple[int, ...] = ()
    threads: tuple[int, ...] = ()
    backends: tuple[str, ...] = ("cpu",)
    prompt_tokens: tuple[int, ...] = (128,)
    decode_tokens: int = 32
    n_runs: int = 5
    ops: bool = False


class _Setting(NamedTuple):
    level: int
    backend: str
    threads: int
    prompt_tokens: int


def here(artifact: Path, program: Path) -> Deployment:
    """An artifact on this machine as if it were deployed: measured where it lies."""
    return Deployment("", "", str(artifact.parent), str(artifact), str(program), "", -1, 0, ())


def measure_device(
    connection: Connection, deployment: Deployment, plan: Plan, progress: Progress | None = None
) -> dict[str, Any]:
    """One entry of `devices` of MEASURED_SCHEMA; a GPU that the device lacks, or that fails at a level, is told there.

    Raises DeviceError, also where no backend of the plan can be used, and UsageError for a level that is not there.
    """
    info = probe(connection)
    levels = _levels(connection, deployment)
    refusals = {backend: refusal(connection, deployment, backend) for backend in plan.backends}
    unavailable = [{"backend": backend, "error": why} for backend, why in refusals.items() if why]
    usable = tuple(backend for backend, why in refusals.items() if not why)
    settings = _settings(replace(plan, backends=usable), levels, info)
    before = info.condition
    measured: dict[_Setting, dict[str, Any]] = {}
    for done, setting in enumerate(settings):
        if progress is not None:
            progress(connection.name, done, len(settings) + 1)
        try:
            measured[setting] = _measure(connection, deployment, plan, setting, levels[setting.level])
        except DeviceError as error:
            if setting.backend == "cpu":
                raise
            why = "; hint: ".join(filter(None, (error.message, error.hint)))
            lacking = {"backend": setting.backend, "error": f"level {setting.level}: {why}"}
            if lacking not in unavailable:  # once for all prompts
                unavailable.append(lacking)
    if not measured:
        reasons = "; ".join(one["error"] for one in unavailable)
        raise DeviceError(f"`{connection.name}` can use none of the backends: {reasons}")
    if progress is not None:
        progress(connection.name, len(settings), len(settings) + 1)
    results = list(measured.values())
    first = next(iter(measured))
    again = _measure(connection, deployment, replace(plan, ops=False), first, levels[first.level])
    repeat = again["decode_tokens_per_s"]["p50"] / results[0]["decode_tokens_per_s"]["p50"]
    after = read_condition(connection)
    detected, why = held_back(before, after)
    if repeat < _SLOWER:
        slower = f"the first measurement, done again at the end, was {1 - repeat:.0%} slower"
        detected, why = True, f"{why}; {slower}" if detected else slower
    if progress is not None:
        progress(connection.name, len(settings) + 1, len(settings) + 1)
    return {
        "name": connection.name,
        "kind": connection.kind,
        "target": deployment.target,
        "info": info.as_dict(),
        "before": asdict(before),
        "after": asdict(after),
        "throttling": {"detected": detected, "why": why, "repeat": repeat},
        "read_gb_per_s": _read_gb_per_s(results),
        "unavailable": unavailable,
        "results": results,
    }


def _read_gb_per_s(results: Sequence[Mapping[str, Any]]) -> float:
    """The best reading speed over the most bytes: what fits the caches would promise too much of the memory."""
    most = max(row["token_bytes"] for row in results)
    return max(float(row["read_gb_per_s"]) for row in results if row["token_bytes"] == most)


def _levels(connection: Connection, deployment: Deployment) -> dict[int, Mapping[str, Any]]:
    """What `edge-run info` says of each level that the device holds."""
    finished = connection.run(deployment.command(["info", "--json"]))
    if finished.status:
        raise _refused(connection, finished.words)
    entries = _json(connection, finished.text)["levels"]
    return {entry["index"]: entry for entry in entries if entry["available"]}


def _settings(plan: Plan, levels: Mapping[int, Mapping[str, Any]], info: DeviceInfo) -> list[_Setting]:
    missing = [level for level in plan.levels if level not in levels]
    if missing:
        raise UsageError(
            f"level {missing[0]} is not on the device", hint=f"it holds levels 0 to {max(levels)}; deploy a larger one"
        )
    threads = plan.threads or tuple(sorted({1, max(1, info.n_cores)}))
    chosen = plan.levels or tuple(sorted(levels))
    every = product(chosen, plan.backends, threads, plan.prompt_tokens)
    return [one for one in map(_Setting._make, every) if one.backend == "cpu" or one.threads == max(threads)]


def _measure(
    connection: Connection, deployment: Deployment, plan: Plan, setting: _Setting, level: Mapping[str, Any]
) -> dict[str, Any]:
    arguments = [
        "bench", "--json", f"--level={setting.level}", f"--threads={setting.threads}", f"--runs={plan.n_runs}",
        f"--prompt-tokens={setting.prompt_tokens}", f"--decode-tokens={plan.decode_tokens}",
        f"--context={setting.prompt_tokens + plan.decode_tokens}", f"--backend={setting.backend}",
        *(["--ops"] if plan.ops else []),
    ]  # fmt: skip
    script = measured_script(deployment.command(arguments).removeprefix("exec "))
    finished = connection.run(script, quiet_s=None)
    if finished.status:
        raise _refused(connection, _without_readings(finished.stderr.decode("utf-8", "replace")))
    row = _json(connection, finished.text)["levels"][0]
    needed = (*_COPIED, "device", "prefill_seconds", "decode_seconds", *(["ops"] if plan.ops else []))
    absent = [key for key in needed if key not in row]
    if absent:
        raise DeviceError(
            f"`edge-run` on `{connection.name}` does not measure `{absent[0]}`: it is older than this edgesdk",
            hint="build the bundle again and deploy it",
        )
    return {
        **{key: row[key] for key in _COPIED},
        "backend_device": row["device"],
        "perplexity": level["ppl"],
        "kl": level["kl"],
        "runs": plan.n_runs,
        "prefill_tokens_per_s": summary(setting.prompt_tokens, row["prefill_seconds"]),
        "decode_tokens_per_s": summary(plan.decode_tokens, row["decode_seconds"]),
        "energy": asdict(parse_energy(finished.stderr.decode("utf-8", "replace"))),
        "ops": row["ops"] if plan.ops else None,
    }


def _json(connection: Connection, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DeviceError(
            f"`edge-run` on `{connection.name}` printed what is no JSON: {text[:80]!r}", hint="deploy the bundle again"
        ) from error


def _without_readings(stderr: str) -> str:
    readings = ("energy_", "power_", "uptime=")
    return "\n".join(line for line in stderr.splitlines() if not line.startswith(readings))


def _refused(connection: Connection, words: str) -> DeviceError:
    """edge-run's own error and hint, under the device's name."""
    said, hint = error_and_hint(words)
    return DeviceError(f"`edge-run` on `{connection.name}`: {said}", hint=hint)
