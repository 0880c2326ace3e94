"""Quality of ladders on the models of train_state_models.py: orders of channels and states, and 4 bits.

    python benchmarks/state_models.py [--model mamba2|bamba]

Every order (rank.METHODS) gets the same 4-bit quantizer and the same uniform rates, so that levels have equal bytes to
the byte; nothing is tuned afterwards. Perplexity is measured through the engine on the held-out text. Writes
build/bench/state-models-MODEL.json: per rate the baseline's perplexity over that of the order by outputs, and the float
model's over that of 4 bits.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from figures import Figure, write_figures
from train_state_models import FOLDER, MODELS

from edgesdk.cloud.build import build_model
from edgesdk.cloud.config import (
    AllocateConfig,
    BuildConfig,
    CalibrateConfig,
    EvaluateConfig,
    RankConfig,
    TuneConfig,
)
from edgesdk.formats import Artifact

RATES = (0.15, 0.25, 0.35)
OURS = "outputs"
BASELINES = ("magnitude", "given", "uniql")
FLOAT_SHARE = 1 / 1.05  # 4 bits may cost 5 % of the float model's perplexity
COMMAND = "python benchmarks/state_models.py"


def settings(folder: Path, method: str) -> BuildConfig:
    """A uniform ladder with one order of channels and states."""
    return BuildConfig(
        calibrate=CalibrateConfig(text=str(folder / "calibration.txt"), n_windows=96),
        rank=RankConfig(method),
        allocate=AllocateConfig(method="uniform", axes="width", max_rate=RATES[-1], step=0.05),
        tune=TuneConfig(wide_share=0.0, n_epochs=0),
        evaluate=EvaluateConfig(text=str(folder / "test.txt"), n_windows=32, window_tokens=256),
    )


def perplexities(artifact: Artifact) -> dict[float, tuple[float, int]]:
    """Perplexity and bytes of the blocks at each rate of RATES, and at 0."""
    levels = [artifact.level_at_rate(rate) for rate in (0.0, *RATES)]
    return {
        rate: (level.perplexity or 0.0, level.block_bytes) for rate, level in zip((0.0, *RATES), levels, strict=True)
    }


def figures_of(name: str, measured: Mapping[str, Mapping[float, tuple[float, int]]], source: float) -> list[Figure]:
    """One figure per rate and baseline, and one for 4 bits."""
    full = measured[OURS][0.0][0]
    made = [Figure(f"{name}: 4 bits against float", full, source, source / full, FLOAT_SHARE, "perplexity", COMMAND)]
    for rate in RATES:
        ours, n_bytes = measured[OURS][rate]
        for method in BASELINES:
            theirs, other_bytes = measured[method][rate]
            if other_bytes != n_bytes:
                raise SystemExit(f"error: {method} has {other_bytes} bytes at rate {rate}, {OURS} has {n_bytes}")
            label = f"{name}: order by {OURS} against {method}, rate {rate}"
            made.append(Figure(label, ours, theirs, theirs / ours, 1.0, "perplexity", COMMAND))
    return made


def measure(name: str) -> list[Figure]:
    """Builds a ladder for every order and compares them."""
    folder = FOLDER / name
    if not (folder / "model.json").is_file():
        raise SystemExit(f"error: {folder} has no model\nhint: run benchmarks/train_state_models.py")
    measured: dict[str, dict[float, tuple[float, int]]] = {}
    source: Any = None
    for method in (OURS, *BASELINES):
        out = folder / f"by-{method}"
        path = build_model(str(folder / "hf"), out, settings(folder, method), work=folder / "work")
        artifact = Artifact.open(path)
        measured[method] = perplexities(artifact)
        source = artifact.edge["evaluation"]["source_perplexity"]
        row = ", ".join(f"{rate}: {ppl:.2f}" for rate, (ppl, _) in measured[method].items())
        print(f"{name}, {method}: float {source:.2f}; {row}", flush=True)
    default = replace(settings(folder, OURS), allocate=AllocateConfig(max_rate=RATES[-1], step=0.05), tune=TuneConfig())
    tuned = perplexities(
        Artifact.open(build_model(str(folder / "hf"), folder / "default", default, work=folder / "work"))
    )
    print(f"{name}, default preset: " + ", ".join(f"{rate}: {ppl:.2f}" for rate, (ppl, _) in tuned.items()), flush=True)
    return figures_of(name, measured, source)


def main(names: Sequence[str] | None = None) -> None:
    """Measures the models and writes the figures."""
    parser = argparse.ArgumentParser(description="orders of channels and states on small trained models")
    parser.add_argument("--model", choices=MODELS, action="append")
    for name in parser.parse_args(names).model or MODELS:
        write_figures(f"state-models-{name}", measure(name))


if __name__ == "__main__":
    main()
