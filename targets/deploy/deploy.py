"""`deploy`: checks that a bundle suits a device, pushes what the device lacks, and starts the program once."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass

from edgesdk.errors import DeviceError, UsageError
from edgesdk.targets.connections import Connection, push_bytes, push_file
from edgesdk.targets.connections.push import file_sha256
from edgesdk.targets.deploy.bundle import Bundle
from edgesdk.targets.deploy.deployment import RECORD, Deployment, check_name
from edgesdk.targets.probe import DeviceInfo, probe

__all__ = ["Deployed", "check_fits", "deploy"]

Progress = Callable[[str, int, int], None]
"""Called with (file, bytes that are there, bytes in all)."""


@dataclass(frozen=True)
class Deployed:
    """What a deploy did. sent_bytes: what crossed the link; version: what `edge-run --version` said on the device."""

    deployment: Deployment
    sent_bytes: int
    version: str


def deploy(
    bundle: Bundle,
    connection: Connection,
    *,
    name: str = "",
    level: int | None = None,
    budget_bytes: int | None = None,
    progress: Progress | None = None,
) -> Deployed:
    """Makes ROOT/NAME on the device hold the bundle's program and its artifact, or the artifact's first bytes.

    name: default the artifact's; level: push only what this level and all smaller ones need; budget_bytes: likewise for
    the largest level that these bytes hold with one session, as `edgesdk.load` has it
    Every file is whole or not there; the record is written last. Raises DeviceError, UsageError.

    Example:
        deploy(read_bundle(Path("out/android")), connect(find_device("pixel")), level=0)
    """
    name = check_name(name or bundle.artifact.stem)
    if level is not None and budget_bytes is not None:
        raise UsageError("level and budget were given together", hint="give one of them")
    chosen = bundle.levels[-1] if level is None else bundle.level(level)
    if budget_bytes is not None:
        chosen = bundle.level_within(budget_bytes)
    n_bytes = chosen.file_bytes
    _check_unchanged(bundle)
    check_fits(bundle, probe(connection), connection.name)
    folder = f"{connection.root}/{name}"
    deployment = Deployment(
        name=name,
        target=bundle.target,
        folder=folder,
        artifact=f"{folder}/{bundle.artifact.name}",
        program=f"{folder}/{bundle.program.name}",
        sha256=bundle.sha256,
        level=chosen.level,
        file_bytes=n_bytes,
        backends=bundle.backends,
        prefill_backend=bundle.prefill_backend,
        decode_backend=bundle.decode_backend,
    )

    def report(file: str) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, total: progress(file, done, total)

    sent = push_file(
        connection,
        bundle.program,
        deployment.program,
        sha256=bundle.program_sha256,
        mode=0o755,
        progress=report(bundle.program.name),
    )
    sent += push_file(
        connection,
        bundle.artifact,
        deployment.artifact,
        n_bytes=n_bytes,
        sha256=bundle.sha256 if n_bytes == bundle.artifact.stat().st_size else None,
        progress=report(bundle.artifact.name),
    )
    version = _start_once(connection, deployment, bundle)
    push_bytes(connection, deployment.record(), f"{folder}/{RECORD}")
    return Deployed(deployment, sent, version)


def check_fits(bundle: Bundle, info: DeviceInfo, name: str) -> None:
    """Raises DeviceError when the bundle's program cannot run on such a device."""
    machine = bundle.abi.split("-")[0]
    advice = f"build for it: `edgesdk build MODEL --targets {_target_for(info)} -o OUT`"
    if info.machine != machine:
        raise DeviceError(
            f"the bundle is for {machine} ({bundle.abi}), `{name}` is {info.machine or 'unknown'}", hint=advice
        )
    floor = re.fullmatch(r".*-gnu(?:\.(\d+)\.(\d+))?", bundle.abi)
    if floor and info.android:
        raise DeviceError(f"the bundle needs glibc ({bundle.abi}), `{name}` is an Android device", hint=advice)
    have = re.fullmatch(r"glibc (\d+)\.(\d+).*", info.libc)
    if floor and floor[1] and have and (int(have[1]), int(have[2])) < (int(floor[1]), int(floor[2])):
        raise DeviceError(
            f"the bundle needs glibc {floor[1]}.{floor[2]} or later, `{name}` has {have[1]}.{have[2]}",
            hint='a profile of your own with `toolchain = "zig-aarch64-musl"` makes a static program (docs/targets.md)',
        )
    missing = [isa for isa in bundle.isa_floor if isa not in info.isa]
    if missing and info.isa:
        raise DeviceError(
            f"the bundle needs {', '.join(missing)}, `{name}` has {', '.join(info.isa)}",
            hint="build for a target with a lower floor, such as linux-aarch64",
        )


def _target_for(info: DeviceInfo) -> str:
    if info.android:
        return "android"
    return f"linux-{info.machine}" if info.machine in {"aarch64", "x86_64"} else "TARGET"


def _check_unchanged(bundle: Bundle) -> None:
    for path, wanted in ((bundle.program, bundle.program_sha256), (bundle.artifact, bundle.sha256)):
        found = file_sha256(path, path.stat().st_size)
        if found != wanted:
            raise UsageError(
                f"`{path}` has SHA-256 {found[:16]}…, the manifest says {wanted[:16]}…",
                hint="it was changed or cut after the build; build again",
            )


def _start_once(connection: Connection, deployment: Deployment, bundle: Bundle) -> str:
    finished = connection.run(f"{shlex.quote(deployment.program)} --version")
    if finished.status:
        raise DeviceError(
            f"`edge-run` does not start on `{connection.name}` (exit status {finished.status}): {finished.words[:300]}",
            hint=f"it was built for {bundle.abi}; a folder that is mounted noexec needs another `root` in devices.toml",
        )
    return finished.text.strip()
