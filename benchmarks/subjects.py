"""What the quality benchmarks compress, how they build it and how they measure every level of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from figures import BENCH
from neutral import write_neutral
from rich.console import Console
from scores import Score, StoredSource
from texts import calibration_text, evaluation_text
from verdicts import Point

from edgesdk.cli.progress import StepProgress
from edgesdk.cloud.build import CODE_VERSION, build_model
from edgesdk.cloud.calibrate import text_windows
from edgesdk.cloud.checkpoint import open_checkpoint
from edgesdk.cloud.config import BuildConfig, EvaluateConfig
from edgesdk.cloud.evaluate import LevelQuality, evaluate_levels
from edgesdk.cloud.tokenizer import import_tokenizer, to_tokenizers
from edgesdk.cloud.workdir import fingerprint
from edgesdk.formats import Artifact

__all__ = ["Subject", "build", "find_subject", "our_points"]

console = Console(highlight=False, width=150)


@dataclass(frozen=True)
class Subject:
    """What both sides compress. calibration, test: texts; neither side may calibrate on the second."""

    name: str
    source: Path
    calibration: Path
    test: Path
    window_tokens: int
    details: dict[str, Any]

    def windows(self, n_windows: int) -> Any:
        """(n_windows, window_tokens) of the test text, spread over it: the windows of benchmarks/ladder.py."""
        checkpoint = open_checkpoint(str(self.source))
        library = to_tokenizers(import_tokenizer(checkpoint.tokenizer_files, chat_template=None))

        def tokenize(text: str) -> list[int]:
            return list(library.encode(text, add_special_tokens=False).ids)

        return text_windows(self.test, tokenize, n_windows, self.window_tokens)


def find_subject(name: str) -> Subject:
    """The model of that name; what is missing is written, but the trained model only by `make train-bench-model`."""
    if name == "smollm2":
        demo = open_checkpoint("smollm2").source
        source = write_neutral(demo.path, BENCH.parent / "neutral" / "smollm2.gguf")
        details = {"from": demo.origin, "source": "all channels permuted at random, F32 (benchmarks/neutral.py)"}
        return Subject(name, source, calibration_text(), evaluation_text(), 1024, details)
    folder = BENCH.parent / "bench-model"
    if not (folder / "model.json").is_file():
        raise SystemExit(f"error: no trained model in {folder}\nhint: run `make train-bench-model` (half an hour)")
    details = json.loads((folder / "model.json").read_text("utf-8"))
    texts = folder / "calibration.txt", folder / "test.txt"
    return Subject(name, folder / "model-f32.gguf", *texts, int(details["context"]), details)


def build(name: str, config: BuildConfig, subject: Subject, folder: Path) -> Path:
    """Builds an artifact, calibrated on the subject's text; one of the same settings, newer than the source, is kept.

    The build itself evaluates one window only: benchmarks measure what they need.
    """
    config = replace(
        config,
        calibrate=replace(config.calibrate, text=str(subject.calibration)),
        evaluate=EvaluateConfig(str(subject.test), 1, subject.window_tokens),
    )
    out = folder / f"{name}-{fingerprint(config, CODE_VERSION)}"
    if (out / "model.edge").is_file() and (out / "model.edge").stat().st_mtime > subject.source.stat().st_mtime:
        return out / "model.edge"
    console.print(f"building {name}")
    with StepProgress() as progress:
        return build_model(str(subject.source), out, config, work=folder / "work", progress=progress)


def our_points(name: str, path: Path, source: StoredSource, rates: Sequence[float] | None = None) -> list[Point]:
    """Levels of an artifact, measured through the engine, smallest first: all, or those nearest to `rates`."""
    artifact = Artifact.open(path)
    chosen = range(len(artifact.levels)) if rates is None else sorted({artifact.level_at_rate(r).index for r in rates})
    with StepProgress() as progress:
        quality, _ = evaluate_levels(
            path,
            chosen,
            source.windows,
            source,
            lambda done, total: progress(f"measure {name}", done, total),
        )
    levels = [artifact.levels[q.level] for q in quality]
    return [
        Point(name, f"level {q.level}", level.mapped_bytes, level.file_bytes, _score(q), rate=level.rate)
        for level, q in zip(levels, quality, strict=True)
    ]


def _score(quality: LevelQuality) -> Score:
    assert quality.kl is not None and quality.top1 is not None, "there is a source"
    return Score(quality.perplexity, quality.kl, quality.top1)
