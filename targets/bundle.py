"""Bundles: for each target one folder with the engine, the SDK and a manifest, beside the one artifact they share."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgesdk.errors import UsageError
from edgesdk.targets.connections.push import file_sha256
from edgesdk.targets.manifest import MANIFEST_VERSION, BundledLevel, largest_within
from edgesdk.targets.native import NativeBuild, build_native
from edgesdk.targets.profile import Profile
from edgesdk.targets.toolchain import find_program, find_toolchain

__all__ = ["BundledArtifact", "check_targets", "write_bundles"]


@dataclass(frozen=True)
class BundledArtifact:
    """The artifact that bundles share, and its levels, smallest first."""

    path: Path
    levels: tuple[BundledLevel, ...]


Progress = Callable[[str, int, int], None]  # (step, done, total)


def check_targets(profiles: Sequence[Profile]) -> None:
    """Finds every tool that bundles for these targets need, so that a long build does not end with one missing.

    Raises MissingExtraError, ToolchainError and UsageError.
    """
    for profile in profiles:
        find_toolchain(profile)
        for name in ("cmake", "ninja"):
            find_program(name)


def write_bundles(
    artifact: BundledArtifact, profiles: Sequence[Profile], out: Path, progress: Progress | None = None
) -> list[Path]:
    """Writes OUT/TARGET/ for each profile and returns the paths of the manifests, in the order of the profiles.

    The artifact is linked by its path relative to the folder of the target, not copied. A folder appears whole or not
    at all, and replaces an older bundle; a folder that is no bundle is left alone.
    Raises UsageError, and what build_native raises.
    """
    for profile in profiles:
        _default_level(artifact, profile)
        _check_replaceable(out / profile.name)
    digest = file_sha256(artifact.path, artifact.path.stat().st_size)
    manifests = []
    for profile in profiles:
        step = f"bundle {profile.name}"

        def advance(done: int, total: int, step: str = step) -> None:
            if progress is not None:
                progress(step, done, total)

        native = build_native(profile, advance)
        manifests.append(_write_bundle(artifact, digest, profile, native, out / profile.name))
        advance(1, 1)
    return manifests


def _write_bundle(artifact: BundledArtifact, digest: str, profile: Profile, native: NativeBuild, folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{profile.name}-", dir=folder.parent) as name:
        fresh = Path(name) / "new"
        shutil.copytree(native.folder, fresh)
        manifest = _manifest(artifact, digest, profile, native, folder, fresh)
        (fresh / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
        if folder.exists():
            folder.rename(Path(name) / "old")
        fresh.rename(folder)
    return folder / "manifest.json"


def _manifest(
    artifact: BundledArtifact, digest: str, profile: Profile, native: NativeBuild, folder: Path, fresh: Path
) -> dict[str, Any]:
    files = sorted(path for path in fresh.rglob("*") if path.is_file())
    return {
        "format_version": MANIFEST_VERSION,
        "target": profile.name,
        "abi": native.toolchain.abi,
        "isa_floor": list(profile.isa_floor),
        "backends": [backend for backend in profile.backends if backend in native.backends],
        **_fastest_backends(profile, native),
        "default_budget_bytes": _budget(profile),
        "default_level": _default_level(artifact, profile),
        "limits": {
            "memory_gb_per_s": profile.memory_gb_per_s,
            "tokens_per_s": [round(profile.memory_gb_per_s * 1e9 / level.token_bytes, 1) for level in artifact.levels],
        },
        "artifact": {
            "path": Path(os.path.relpath(artifact.path.resolve(), folder.resolve())).as_posix(),
            "sha256": digest,
            "file_bytes": artifact.path.stat().st_size,
            "levels": [asdict(level) for level in artifact.levels],
        },
        "files": [
            {"path": path.relative_to(fresh).as_posix(), "sha256": file_sha256(path, n_bytes), "bytes": n_bytes}
            for path, n_bytes in ((path, path.stat().st_size) for path in files)
        ],
        "notes": [profile.notes, *native.toolchain.notes] if profile.notes else list(native.toolchain.notes),
    }


def _fastest_backends(profile: Profile, native: NativeBuild) -> dict[str, str]:
    """What the profile knows of speeds, as far as this build has those backends."""
    known = {"prefill_backend": profile.prefill_backend, "decode_backend": profile.decode_backend}
    return {key: backend for key, backend in known.items() if backend in native.backends}


def _budget(profile: Profile) -> int:
    return int(profile.memory_bytes * profile.memory_share)


def _default_level(artifact: BundledArtifact, profile: Profile) -> int:
    """The largest level that fits the target's default budget. Raises UsageError when none does."""
    budget = _budget(profile)
    found = largest_within(artifact.levels, budget)
    if found is None:
        raise UsageError(
            f"target `{profile.name}` grants {budget} bytes, the smallest level of `{artifact.path.name}` needs "
            f"{artifact.levels[0].total_bytes}",
            hint="build with smaller levels (--max-rate), or give a profile of your own with more memory",
        )
    return found.level


def _check_replaceable(folder: Path) -> None:
    if not folder.exists() or (folder.is_dir() and ((folder / "manifest.json").is_file() or not any(folder.iterdir()))):
        return
    raise UsageError(f"`{folder}` exists and is no bundle", hint="choose another folder with -o, or move it away")
