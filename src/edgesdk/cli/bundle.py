"""`edgesdk bundle`: for each target the engine, the SDK and a manifest, beside an artifact that is there already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import edgesdk
from edgesdk.cli.console import print_json
from edgesdk.cli.options import Artifact as ArtifactPath
from edgesdk.cli.options import Json, examples
from edgesdk.cli.progress import StepProgress
from edgesdk.formats import Artifact
from edgesdk.targets import load_profiles
from edgesdk.targets.bundle import BundledArtifact, BundledLevel, check_targets, write_bundles

if TYPE_CHECKING:
    from edgesdk.targets import Profile

__all__ = ["EXAMPLES", "TARGETS_HELP", "bundle", "bundle_artifact"]

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
    artifact = Artifact.open(path)
    with edgesdk.load(path, level=0, threads=1) as model:
        levels = tuple(
            BundledLevel(
                level=level.index,
                rate=level.rate,
                file_bytes=level.file_bytes,
                mapped_bytes=level.mapped_bytes,
                total_bytes=model.estimate(level.index).total_bytes,
            )
            for level in artifact.levels[: artifact.n_available_levels]
        )
    with StepProgress() as progress:
        return write_bundles(BundledArtifact(path, levels), profiles, out, progress)
