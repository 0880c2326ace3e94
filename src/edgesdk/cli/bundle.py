"""`edgesdk bundle`: for each target the engine, the SDK and a manifest, beside an artifact that is there already."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import edgesdk
from edgesdk.cli.console import print_json, say, size
from edgesdk.cli.options import Artifact as ArtifactPath
from edgesdk.cli.options import Json, examples
from edgesdk.cli.progress import StepProgress
from edgesdk.formats import Artifact
from edgesdk.targets import load_profiles
from edgesdk.targets.bundle import BundledArtifact, check_targets, write_bundles
from edgesdk.targets.manifest import BundledLevel

if TYPE_CHECKING:
    from edgesdk.targets import Profile

__all__ = ["EXAMPLES", "TARGETS_HELP", "bundle", "bundle_artifact", "bundled_artifact"]

EXAMPLES = examples(
    "edgesdk bundle out/model.edge --targets android,jetson",
    "edgesdk bundle model.edge --targets raspberry-pi-5,./my-board.toml -o bundles",
)
TARGETS_HELP = "Targets to bundle for, with commas: android, jetson, raspberry-pi-5, ..., or a path to a profile."


def bundle(
    path: ArtifactPath,
    targets: Annotated[str, typer.Option("--targets", metavar="LIST", help=TARGETS_HELP, show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for the bundles. Default: the artifact's.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write OUT/TARGET/ for each target: edge-run, edge.h, the library where it can be made, and manifest.json.

    The artifact stays where it is; manifests name it by a relative path. The engine is built once per toolchain, with
    zig from the package ziglang for other processors, and kept.
    """
    profiles = load_profiles(targets)
    check_targets(profiles)
    manifests = bundle_artifact(path, profiles, path.parent if out is None else out)
    if as_json:
        rows = zip(profiles, manifests, strict=True)
        print_json([{"target": profile.name, "manifest": str(manifest)} for profile, manifest in rows])
    else:
        for manifest in manifests:
            typer.echo(str(manifest.parent))


def bundle_artifact(path: Path, profiles: list[Profile], out: Path) -> list[Path]:
    """Bundles of every level that the file holds; returns the paths of the manifests."""
    artifact = bundled_artifact(path)
    with StepProgress() as progress:
        manifests = write_bundles(artifact, profiles, out, progress)
    for manifest in manifests:
        _describe(json.loads(manifest.read_text("utf-8")))
    return manifests


def bundled_artifact(path: Path) -> BundledArtifact:
    """What manifests say of the levels that the file holds."""
    artifact = Artifact.open(path)
    levels = []
    for level in artifact.levels[: artifact.n_available_levels]:
        with edgesdk.load(path, level=level.index, threads=1, verify="off") as model:
            levels.append(
                BundledLevel(
                    level=level.index,
                    rate=level.rate,
                    file_bytes=level.file_bytes,
                    mapped_bytes=level.mapped_bytes,
                    total_bytes=model.estimate(level.index).total_bytes,
                    token_bytes=model.bytes_per_token,
                )
            )
    return BundledArtifact(path, tuple(levels))


def _describe(manifest: Mapping[str, Any]) -> None:
    index, levels = manifest["default_level"], manifest["artifact"]["levels"]
    say(
        f"{manifest['target']}: level {index} of 0..{len(levels) - 1} by default, {size(levels[index]['total_bytes'])} "
        f"of a budget of {size(manifest['default_budget_bytes'])}; its memory "
        f"({manifest['limits']['memory_gb_per_s']:g} GB/s) allows at most "
        f"{manifest['limits']['tokens_per_s'][index]:,.0f} tokens/s"
    )
