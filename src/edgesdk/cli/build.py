"""`edgesdk build`: compiles a model into OUT/model.edge and OUT/build.json, and bundles it for targets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

import edgesdk
from edgesdk.cli.bundle import TARGETS_HELP, bundle_artifact
from edgesdk.cli.console import print_json, say
from edgesdk.cli.inspect import print_ladder
from edgesdk.cli.options import Json, examples
from edgesdk.cli.progress import StepProgress
from edgesdk.cloud.config import RECOVER_EPOCHS, BuildConfig, preset
from edgesdk.formats import Artifact
from edgesdk.formats.ladder import level_table
from edgesdk.targets import load_profiles
from edgesdk.targets.bundle import check_targets

__all__ = ["EXAMPLES", "build"]

EXAMPLES = examples(
    "edgesdk build smollm2 -o out",
    "edgesdk build ./my-model --targets android,jetson -o out",
    "edgesdk build ./my-model --preset fast -o out",
    "edgesdk build hf:org/name --eval-text wiki.txt -o out",
    "edgesdk build model.gguf -o out --json",
    "edgesdk build /shared/model --ray 10.0.0.1:6379 -o out",
)


def build(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A Hugging Face folder, hf:org/name, a GGUF file, or smollm2.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for model.edge and build.json.", show_default=False)],
    targets: Annotated[
        str | None, typer.Option("--targets", metavar="LIST", help=TARGETS_HELP, show_default=False)
    ] = None,
    preset_name: Annotated[
        str, typer.Option("--preset", help="default; fast: less text, a coarser search; uniql: a baseline.")
    ] = "default",
    allocate: Annotated[
        str | None,
        typer.Option("--allocate", help="measured, uniform or block-influence.", show_default=False),
    ] = None,
    axes: Annotated[
        str | None,
        typer.Option("--axes", help="What levels give up: all, width or bits.", show_default=False),
    ] = None,
    max_bits: Annotated[
        int | None,
        typer.Option(
            "--max-bits", help="Bits of the full level's blocks: 4, or 6 (embedding and head 8).", show_default=False
        ),
    ] = None,
    max_file_growth: Annotated[
        float | None,
        typer.Option(
            "--max-file-growth",
            help="Bytes that only smaller levels use, as a share of the full level's.",
            show_default=False,
        ),
    ] = None,
    max_rate: Annotated[
        float | None, typer.Option("--max-rate", help="Rate of the smallest level.", show_default=False)
    ] = None,
    step: Annotated[
        float | None, typer.Option("--step", help="Rate from one level to the next.", show_default=False)
    ] = None,
    recover: Annotated[
        bool,
        typer.Option(
            "--recover",
            help="Experimental: train what only smaller levels own. Half an hour on 2 cores.",
        ),
    ] = False,
    calibration_text: Annotated[
        Path | None,
        typer.Option(
            "--calibration-text", help="Text to calibrate on. Default: sampled from the model.", show_default=False
        ),
    ] = None,
    eval_text: Annotated[
        Path | None,
        typer.Option(
            "--eval-text",
            help="Text to measure levels on. Default: sampled, unseen by calibration.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of all sampling.")] = 0,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="[ADDRESS]",
            help="Quantize on a running Ray cluster, HOST:PORT; without an address the one of this machine.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compile a model once into one file that holds all its sizes.

    With --targets, OUT/TARGET/ holds what runs it there (see edgesdk bundle). A build that was stopped goes on where
    it was: its work lies in OUT/work.
    """
    profiles = [] if targets is None else load_profiles(targets)
    check_targets(profiles)
    config = _config(
        preset_name, allocate, axes, max_bits, max_file_growth, max_rate, step, calibration_text, eval_text, seed
    )
    if recover:
        config = replace(config, recover=replace(config.recover, n_epochs=RECOVER_EPOCHS))
    with StepProgress() as progress:
        path = edgesdk.build(model, out, config, progress=progress, ray=ray)
    manifests = bundle_artifact(path, profiles, out) if profiles else []
    artifact = Artifact.open(path)
    if as_json:
        print_json(level_table(artifact))
    else:
        print_ladder(artifact)
    for written in (path, *(manifest.parent for manifest in manifests)):
        say(f"wrote {written}")


def _config(
    name: str,
    allocate: str | None,
    axes: str | None,
    max_bits: int | None,
    max_file_growth: float | None,
    max_rate: float | None,
    step: float | None,
    calibration_text: Path | None,
    eval_text: Path | None,
    seed: int,
) -> BuildConfig:
    config = preset(name)
    ladder, calibrate, quality, quantize = config.allocate, config.calibrate, config.evaluate, config.quantize
    if max_bits is not None:
        quantize = replace(quantize, max_bits=max_bits, model_bits=8 if max_bits > 4 else quantize.model_bits)
    return replace(
        config,
        allocate=replace(
            ladder,
            method=ladder.method if allocate is None else allocate,
            axes=ladder.axes if axes is None else axes,
            max_file_growth=ladder.max_file_growth if max_file_growth is None else max_file_growth,
            max_rate=ladder.max_rate if max_rate is None else max_rate,
            step=ladder.step if step is None else step,
        ),
        quantize=quantize,
        calibrate=replace(calibrate, seed=seed, text=str(calibration_text or calibrate.text)),
        evaluate=replace(quality, text=str(eval_text or quality.text)),
    )
