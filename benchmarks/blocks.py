"""What blocks lose at one number of bits: embedding and head stay in float, every block weight has the same bits.

    python benchmarks/blocks.py [--bits 4 3] [--epochs 1] [--windows 8]

Quantized as `edgesdk build` does it, calibrated on WikiText-2's validation split; then scales and norm gains are
distilled as for a full level. Measured on the test split, in torch. Writes build/bench/blocks.json.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from figures import BENCH, Figure, write_figures
from rich.console import Console
from scores import Score, StoredSource, score_decoder
from subjects import find_subject

from edgesdk.cli.progress import StepProgress
from edgesdk.cloud.calibrate import collect_moments, text_windows
from edgesdk.cloud.checkpoint import open_checkpoint
from edgesdk.cloud.config import BuildConfig, preset
from edgesdk.cloud.families import load_model
from edgesdk.cloud.ordered import SortedModel
from edgesdk.cloud.quantize.rows import quantize_rows
from edgesdk.cloud.quantize.tasks import quantize_blocks
from edgesdk.cloud.reference import Decoder
from edgesdk.cloud.sizes import LevelPlan, full_allocation, model_weights
from edgesdk.cloud.stored import StoredWeights, codes_name, save_codes
from edgesdk.cloud.tasks import ModelFiles
from edgesdk.cloud.tasks.local import LocalExecutor
from edgesdk.cloud.tokenizer import import_tokenizer, to_tokenizers
from edgesdk.cloud.tune import Student, tune_scales
from edgesdk.cloud.workdir import WorkDirectory, fingerprint

TARGETS = {4: 1 / 1.035, 3: 1 / 1.20}  # perplexity of the source over that of the blocks, by bits
MODEL_BITS = 8  # of embedding and head while scales are distilled
COMMAND = "python benchmarks/blocks.py"
console = Console(highlight=False, width=150)


class Blocks:
    """The source, its statistics and its codes."""

    def __init__(self, config: BuildConfig) -> None:
        self.subject = find_subject("smollm2")
        self.folder = BENCH / "quality" / self.subject.name
        text = self.subject.calibration
        self.config = replace(config, calibrate=replace(config.calibrate, text=str(text)))
        checkpoint = open_checkpoint(str(self.subject.source))
        library = to_tokenizers(import_tokenizer(checkpoint.tokenizer_files, chat_template=None))
        self.source = Decoder.open(checkpoint, load_model(checkpoint))
        settings = config.calibrate
        self.texts = text_windows(
            text,
            lambda given: list(library.encode(given, add_special_tokens=False).ids),
            settings.n_windows,
            settings.window_tokens,
        )
        self.key = fingerprint("blocks", checkpoint.source.sha256, self.config.calibrate, self.config.quantize)
        with StepProgress() as progress:
            self.calibration = collect_moments(
                self.source, self.texts, self._work("moments"), lambda done, total: progress("calibrate", done, total)
            )
        self.ordered = SortedModel(self.source, self.calibration, self.config.rank.method)
        self.weights = StoredWeights(self._work("codes"))

    def plan(self, bits: int) -> LevelPlan:
        """A level with all block weights at `bits`; its codes are made here."""
        model = self.source.config
        plan = LevelPlan.of(model, full_allocation(model), bits, MODEL_BITS)
        wanted = [(index, role, bits) for index, role in plan.weight_bits(model) if index is not None]
        with StepProgress() as progress:
            quantize_blocks(
                ModelFiles.of(str(self.subject.source)),
                model,
                self.config,
                self.calibration,
                self.weights.codes,
                wanted,
                LocalExecutor(),
                lambda done, total: progress(f"quantize to {bits} bits", done, total),
            )
        for name in model_weights(model):
            matrix = self.source.head if name == "head" else self.source.embedding
            rows = quantize_rows(matrix, self.config.quantize.group, MODEL_BITS, self.calibration.head_moment())
            if not self.weights.codes.has(codes_name(None, name, MODEL_BITS)):
                save_codes(self.weights.codes, None, name, rows)
        return plan

    def tuned(self, plan: LevelPlan, n_epochs: int) -> StoredWeights:
        """The same weights with distilled scales and norm gains."""
        settings = replace(self.config.tune, n_epochs=n_epochs)
        work = self._work("tuned", settings, plan.bits)
        with StepProgress() as progress:
            tune_scales(
                self.source,
                Student.start(self.ordered, self.weights, [plan]),
                self.texts,
                settings,
                work,
                lambda done, total: progress("distil", done, total),
            )
        return replace(self.weights, tuned=work)

    def score(self, plan: LevelPlan, weights: StoredWeights, source: StoredSource) -> Score:
        """With the source's own embedding and head."""
        decoder = Student.start(self.ordered, weights, [plan]).decoder()
        return score_decoder(replace(decoder, embedding=self.source.embedding, head=self.source.head), source)

    def _work(self, step: str, *settings: object) -> WorkDirectory:
        return WorkDirectory(self.folder / "work", step, fingerprint(self.key, *settings))


def main() -> None:
    """Quantizes, distils, measures, writes."""
    parser = argparse.ArgumentParser(description="perplexity of blocks at one number of bits")
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 3], choices=(6, 4, 3, 2))
    parser.add_argument("--epochs", type=int, default=1, help="of the distillation")
    parser.add_argument("--windows", type=int, default=8)
    arguments = parser.parse_args()
    blocks = Blocks(preset("default"))
    subject = blocks.subject
    source = StoredSource.compute(subject.source, subject.windows(arguments.windows), blocks.folder, console.print)
    figures = []
    for bits in arguments.bits:
        plan = blocks.plan(bits)
        own = bits + 16 / blocks.config.quantize.group  # codes and scales
        for name, weights in (("", blocks.weights), (", distilled", blocks.tuned(plan, arguments.epochs))):
            score = blocks.score(plan, weights, source)
            ratio = source.perplexity / score.perplexity
            target = TARGETS.get(bits) if name else None
            title = f"perplexity of blocks at {own:g} bits{name}"
            figures.append(Figure(title, score.perplexity, source.perplexity, ratio, target, "ppl", COMMAND))
            console.print(f"{title}: {score.perplexity:.2f}, {1 / ratio:.4f} x float, KL {score.kl:.4f}")
    console.print(f"wrote {write_figures('blocks', figures)}")


if __name__ == "__main__":
    main()
