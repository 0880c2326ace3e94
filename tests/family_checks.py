"""What is measured of every dense family; tests/cloud/test_dense_families.py holds limits, docs/families.md figures.

python tests/family_checks.py [VARIANT ...]      prints rows of that table
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from reference_model import ReferenceModel
from tiny_families import VARIANTS, write_tiny_family

from edgesdk.cloud.build import build_model
from edgesdk.cloud.check import check_unchanged
from edgesdk.cloud.checkpoint import open_checkpoint
from edgesdk.cloud.config import AllocateConfig, BuildConfig, CalibrateConfig, EvaluateConfig, TuneConfig
from edgesdk.cloud.families import load_model
from edgesdk.cloud.families.blocks import Block
from edgesdk.cloud.moments import Moments, MomentsAccumulator
from edgesdk.cloud.rank import METHODS
from edgesdk.cloud.reference import Decoder, mask_block, run_block, slice_block
from edgesdk.cloud.sort import sort_block
from edgesdk.device import load
from edgesdk.formats import Artifact

SMALL = BuildConfig(
    calibrate=CalibrateConfig(n_windows=16, window_tokens=64),
    allocate=AllocateConfig(n_windows=2, window_tokens=32, max_rate=0.4, step=0.2),
    tune=TuneConfig(wide_share=0.2, wide_windows=4),
    evaluate=EvaluateConfig(n_windows=2, window_tokens=48),
)
N_TOKENS = 40


class Opened:
    """A tiny checkpoint of a variant, and the model of transformers that wrote it."""

    def __init__(self, folder: Path, variant: str) -> None:
        self.variant, self.small = variant, folder.with_name("small")
        self.model = write_tiny_family(folder, variant)
        self.checkpoint = open_checkpoint(str(folder))
        self.config = load_model(self.checkpoint)
        self.decoder = Decoder.open(self.checkpoint, self.config)
        self.tokens = torch.randint(0, 320, (2, N_TOKENS), generator=torch.Generator().manual_seed(3))
        self.moments = self._moments()

    @torch.no_grad()
    def _moments(self) -> list[Moments]:
        found, x = [], self.decoder.embed(self.tokens)
        for index, block in enumerate(self.config.blocks):
            accumulator = MomentsAccumulator()
            out = run_block(block, self.decoder.block_weights(index), x, self.config.norm_eps, accumulator.tap)
            accumulator.see_residual(x, out)
            found.append(accumulator.finish())
            x = out
        return found

    def sorted(self, decoder: Decoder, method: str = "outputs") -> Decoder:
        """The sorted self of the model in the dtype of `decoder`."""
        blocks = []
        for index, block in enumerate(self.config.blocks):
            order = METHODS[method](block, self.decoder.block_weights(index), self.moments[index])
            blocks.append(sort_block(block, decoder.block_weights(index), order))
        return replace(decoder, block_weights=lambda index: blocks[index])

    @torch.no_grad()
    def logit_difference(self) -> float:
        """To transformers, in float32: largest difference of logits, as a share of the largest of them."""
        theirs = self.model(self.tokens).logits
        if not theirs.std() > 0.1:
            raise ValueError(f"{self.variant}: logits that say nothing")
        return float((self.decoder.forward(self.tokens) - theirs).abs().max() / theirs.abs().max())

    def sort_differences(self, method: str = "outputs") -> dict[str, float]:
        """The same between the model and its sorted self, in float32 and float64."""
        return check_unchanged(self.decoder, lambda d: self.sorted(d, method), self.tokens[:1])

    @torch.no_grad()
    def slice_difference(self) -> float:
        """Slice against mask at every size of every axis, and nothing: largest difference as a share, in float64.

        Raises ValueError when a cut changes nothing.
        """
        decoder, worst = self.sorted(self.decoder.double()), 0.0
        x = decoder.embed(self.tokens[:1])
        for index, block in enumerate(decoder.config.blocks):
            weights = decoder.block_weights(index)
            whole = run_block(block, weights, x, 1e-5)
            for kept in allocations(block):
                cut = run_block(block, slice_block(block, weights, kept), x, 1e-5)
                masked = run_block(block, mask_block(block, weights, kept), x, 1e-5)
                worst = max(worst, float((cut - masked).abs().max() / masked.abs().max()))
                if not (cut - whole).abs().max() > 0:
                    raise ValueError(f"{block.name}: {kept} computes the whole")
        return worst

    def build(self) -> Path:
        """The artifact of a model of smaller weights, whose attention is not chaotic."""
        write_tiny_family(self.small, self.variant, initializer_range=0.06)
        return build_model(str(self.small), self.small.parent / "out", SMALL)


def allocations(block: Block) -> list[tuple[int, ...]]:
    """Every size of each axis with the others whole, and nothing."""
    full = tuple(axis.size for axis in block.axes)
    cut = [
        (*full[:position], size, *full[position + 1 :])
        for position, axis in enumerate(block.axes)
        for size in range(axis.quantum, axis.size, axis.quantum)
    ]
    return [*cut, (0,) * len(full)]


def engine_is_oracle(artifact: Path, threads: int) -> list[bool]:
    """Whether the engine's logits equal the oracle's to the bit, at each level."""
    tokens = list(range(3, 3 + N_TOKENS))
    levels = range(len(Artifact.open(artifact).levels))
    return [
        np.array_equal(
            load(artifact, level=level, threads=threads).logits(tokens), ReferenceModel(artifact, level).logits(tokens)
        )
        for level in levels
    ]


def decode_is_prefill(artifact: Path, kv_bits: int) -> bool:
    """Whether a prompt and then single tokens, or other cuts, give the logits of one prefill, to the bit."""
    tokens = np.random.default_rng(1).integers(0, 320, 200).astype(np.int32)
    whole = load(artifact, kv_bits=kv_bits, threads=2).logits(tokens.tolist())
    same = []
    for chunk, sizes in ((None, [150] + [1] * 50), (7, [3, 100, 1, 96]), (64, [200])):
        session = load(artifact, kv_bits=kv_bits, threads=2, chunk=chunk).session()
        parts = [session._native.feed(part, True, True) for part in np.split(tokens, np.cumsum(sizes)[:-1])]
        same.append(np.array_equal(np.concatenate(parts), whole))
    return all(same)


def main() -> None:
    parser = argparse.ArgumentParser(description="print rows of the table in docs/families.md")
    parser.add_argument("variants", nargs="*", default=list(VARIANTS))
    for variant in parser.parse_args().variants:
        with tempfile.TemporaryDirectory() as folder:
            opened = Opened(Path(folder) / "model", variant)
            sort = opened.sort_differences()
            figures = [f"{opened.logit_difference():.1e}", f"{sort['float32']:.1e}, {sort['float64']:.1e}"]
            figures.append(f"{opened.slice_difference():.1e}")
            artifact = opened.build()
            equal = engine_is_oracle(artifact, threads=2)
            figures.append(f"{sum(equal)} of {len(equal)} levels")
            figures.append("yes" if all(decode_is_prefill(artifact, bits) for bits in (8, 16)) else "no")
        sys.stdout.write("| " + " | ".join([variant, *figures]) + " |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
