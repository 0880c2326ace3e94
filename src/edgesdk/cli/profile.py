"""`edgesdk profile`: how fast an artifact's levels are on devices, and what they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

import edgesdk
from edgesdk.cli.console import print_json, print_table, say, size
from edgesdk.cli.options import Json, examples
from edgesdk.cli.progress import StepProgress
from edgesdk.errors import DeviceError, EdgeError, UsageError
from edgesdk.report.operations import OPERATION_HEAD, operation_rows
from edgesdk.targets.connections import Connection
from edgesdk.targets.deploy import Deployment, find_deployment
from edgesdk.targets.devices import Device, connect, find_device, list_devices
from edgesdk.targets.measure import Plan, csv_text, here, measure_device, target_profile, write_target_profile
from edgesdk.targets.profile import BACKENDS

__all__ = ["EXAMPLES", "profile"]

EXAMPLES = examples(
    "edgesdk profile out/model.edge --device local",
    "edgesdk profile out/android --device all --html speed.html",
    "edgesdk profile out/jetson --device orin --levels 0,4 --threads 1,4 --prompt-tokens 16,128 --json",
    "edgesdk profile out/jetson --device orin --levels 4 --ops",
    "edgesdk profile out/raspberry-pi-5 --device pi --backends cpu,opencl",
    "edgesdk profile out/jetson --device orin --save-target my-orin",
)


def profile(
    artifact: Annotated[
        Path,
        typer.Argument(
            metavar="ARTIFACT", help="An .edge file, a bundle, or the name of a deployment.", show_default=False
        ),
    ],
    device: Annotated[
        list[str],
        typer.Option(
            "--device", "-d", metavar="NAME", help="A device, or all; may be given again.", show_default=False
        ),
    ],
    levels: Annotated[str, typer.Option("--levels", help="Such as 0,3; default: all that are there.")] = "",
    threads: Annotated[str, typer.Option("--threads", help="Such as 1,4; default: 1 and one per core.")] = "",
    backends: Annotated[str, typer.Option("--backends", help="Such as cpu,opencl,cuda.")] = "cpu",
    prompt_tokens: Annotated[str, typer.Option("--prompt-tokens", help="Such as 16,128.")] = "128",
    decode_tokens: Annotated[int, typer.Option("--decode-tokens", min=1, help="Tokens to decode in a run.")] = 32,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Runs of each measurement, warm-up apart.")] = 5,
    ops: Annotated[bool, typer.Option("--ops", help="Also where the time goes, by kind of operation.")] = False,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write a CSV file.", show_default=False)] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with plots.", show_default=False)] = None,
    save_target: Annotated[
        str,
        typer.Option("--save-target", metavar="NAME", help="Write the target profile NAME.toml.", show_default=False),
    ] = "",
    as_json: Json = False,
) -> None:
    """Measure levels, threads, backends and prompt lengths on devices, and what else a device tells.

    A backend that a device lacks is a line that says why; threads are those of the CPU.

    The artifact must be deployed there (edgesdk deploy); on this machine an .edge file is measured where it lies.
    """
    plan = Plan(
        levels=_integers("--levels", levels, 0),
        threads=_integers("--threads", threads, 1),
        backends=_backends(backends),
        prompt_tokens=_integers("--prompt-tokens", prompt_tokens, 1),
        decode_tokens=decode_tokens,
        n_runs=runs,
        ops=ops,
    )
    if save_target and (len(device) != 1 or "all" in device):
        raise UsageError("--save-target needs one device", hint="give one --device NAME")
    if save_target and "cpu" not in plan.backends:
        raise UsageError("--save-target needs the CPU, which measures the memory", hint="such as --backends cpu,opencl")
    if not plan.backends or not plan.prompt_tokens:
        raise UsageError("nothing to measure: --backends and --prompt-tokens need a value")
    measured = _measure(artifact, device, plan)
    if csv is not None:
        _write(csv, csv_text(measured))
    if html is not None:
        from edgesdk.report.measured import write_measured

        write_measured(measured, html)
    if save_target:
        _save_target(save_target, measured)
    if as_json:
        print_json(measured)
    else:
        for one in measured["devices"]:
            _print_device(one)
    for failure in measured["failures"]:
        say(f"{failure['name']}: {failure['error']}")


def _measure(artifact: Path, names: Sequence[str], plan: Plan) -> dict[str, Any]:
    everything = "all" in names
    devices = list_devices()[0] if everything else [find_device(name) for name in names]
    results: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    with StepProgress() as progress:
        for one in devices:
            if one.state == "not asked":
                continue
            try:
                connection = connect(one)
                results.append(measure_device(connection, _deployment(connection, one, artifact), plan, progress))
            except DeviceError as error:
                if not everything and len(devices) == 1:
                    raise
                failures.append({"name": one.name, "error": str(error).replace("\nhint:", "; hint:")})
    if not results:
        raise DeviceError(
            "no device could be measured: " + "; ".join(f"{one['name']}: {one['error']}" for one in failures)
        )
    return {
        "format_version": 1,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "artifact": str(artifact),
        "devices": results,
        "failures": failures,
    }


def _deployment(connection: Connection, device: Device, artifact: Path) -> Deployment:
    """What is deployed there; on this machine an .edge file as it lies, run by the program of this package."""
    if device.full_name == "local" and artifact.suffix == ".edge" and artifact.is_file():
        program = Path(edgesdk.__file__).parent / "bin" / "edge-run"
        if not program.is_file():
            raise EdgeError("this package has no edge-run", hint="install edgesdk from a wheel, or `make install`")
        return here(artifact.resolve(), program)
    return find_deployment(connection, artifact)


def _integers(option: str, given: str, least: int) -> tuple[int, ...]:
    parts = [part.strip() for part in given.split(",") if part.strip()]
    if not all(part.isdigit() and int(part) >= least for part in parts):
        raise UsageError(f"{option} is `{given}`, expected numbers from {least}", hint=f"such as {option} 1,2")
    return tuple(dict.fromkeys(int(part) for part in parts))


def _backends(given: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in given.split(",") if part.strip()))
    if not set(names) <= set(BACKENDS):
        raise UsageError(f"--backends is `{given}`, expected names from {', '.join(BACKENDS)}")
    return names


def _write(path: Path, content: str) -> None:
    try:
        path.write_text(content, "utf-8")
    except OSError as error:
        raise EdgeError(f"cannot write `{path}`: {error.strerror}") from error


def _save_target(name: str, measured: Mapping[str, Any]) -> None:
    path = Path(name if name.endswith(".toml") else f"{name}.toml")
    write_target_profile(path, target_profile(path.stem, measured["devices"][0], measured["created"]))
    shown = path if path.is_absolute() else f"./{path}"
    say(f"wrote {path}; `edgesdk build MODEL --targets {shown} -o OUT` uses its memory and bandwidth")


def _print_device(device: Mapping[str, Any]) -> None:
    info, throttling = device["info"], device["throttling"]
    rows = [
        [
            str(row["level"]),
            str(row["threads"]),
            row["backend"],
            str(row["prompt_tokens"]),
            f"{row['load_ms']:.1f}",
            f"{row['first_token_ms']:.1f}",
            _speed(row["prefill_tokens_per_s"]),
            _speed(row["decode_tokens_per_s"]),
            size(row["peak_rss_bytes"]),
            size(row["mapped_bytes"]),
            f"{row['gb_per_s']:.1f}",
            f"{row['share_of_read']:.0%}",
            row["energy"]["source"] if row["energy"]["joules"] is None else f"{row['energy']['joules']:.1f} J",
        ]
        for row in device["results"]
    ]
    columns = ["level", "threads", "backend", "prompt", "load ms", "first ms", "prefill t/s", "decode t/s", "peak RSS"]
    title = f"{device['name']}: " + "; ".join(filter(None, (info["model"], info["soc"], info["os"])))
    print_table(title, [*columns, "mapped", "GB/s", "of read", "energy"], rows)
    for lacking in device["unavailable"]:
        typer.echo(f"{lacking['backend']} cannot be used: {lacking['error']}")
    typer.echo(
        f"prefill and decode: p50, what 95 % of runs reach, spread; memory reads at {device['read_gb_per_s']:.1f} GB/s"
    )
    celsius = [_celsius(device[when]) for when in ("before", "after")]
    detected = throttling["detected"]
    seen = "not available" if detected is None else f"detected: {throttling['why']}" if detected else "none seen"
    typer.echo(f"temperature before {celsius[0]}, after {celsius[1]}; throttling: {seen}")
    typer.echo(f"the first measurement, done again at the end, had {throttling['repeat']:.0%} of its speed")
    _print_operations(device["results"])


def _print_operations(results: Sequence[Mapping[str, Any]]) -> None:
    """Of the largest level that was measured; --json and --html have those of all."""
    largest = max(row["level"] for row in results)
    for row in results:
        if row["ops"] is None or row["level"] != largest:
            continue
        for phase, what in (("prefill", f"a prompt of {row['prompt_tokens']} tokens"), ("decode", "decoding")):
            title = f"\nlevel {row['level']}, {row['backend']}, {row['threads']} threads: operations of {what}"
            rows = operation_rows(row["ops"][phase], row["read_gb_per_s"])
            print_table(title, OPERATION_HEAD, rows, left=OPERATION_HEAD[0])


def _speed(speed: Mapping[str, float]) -> str:
    return f"{speed['p50']:.1f} ({speed['p95']:.1f}, {speed['spread']:.0%})"


def _celsius(condition: Mapping[str, Any]) -> str:
    return "not available" if condition["celsius"] is None else f"{condition['celsius']:.0f} °C"
