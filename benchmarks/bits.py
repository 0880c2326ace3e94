"""Decoding with blocks of 2, 3 and 6 bits against 4: what fewer bits give in speed, interleaved, pinned.

    python benchmarks/bits.py [--rounds 5] [--threads 1 2]

Two shapes with random codes (speed does not depend on values), both larger than a last-level cache: Llama-3.2-1B's
and SmolLM2-135M's. Writes build/bench/bits.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from figures import BENCH, Figure, write_figures
from rounds import take_rounds
from shapes import LLAMA_1B, SMOLLM2_135M, shape_config, write_shape
from sides import OurModel
from speed import show

import edgesdk

BITS = (2, 3, 4, 6)
SHAPES: dict[str, tuple[dict[str, Any], int]] = {"SmolLM2-135M": (SMOLLM2_135M, 96), "Llama-3.2-1B": (LLAMA_1B, 32)}
COMMAND = "python benchmarks/bits.py"


def main() -> None:
    """Prints and writes tokens per second, and their ratio to those of 4 bits."""
    parser = argparse.ArgumentParser(description="decoding by bits of block weights")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    edge_run, folder = Path(edgesdk.__file__).parent / "bin" / "edge-run", BENCH / "speed"
    folder.mkdir(parents=True, exist_ok=True)
    models: dict[tuple[str, int], OurModel] = {}
    for name, (config, _) in SHAPES.items():
        for bits in BITS:
            path = folder / f"{name}-{bits}.edge"
            if not path.is_file() or path.stat().st_mtime < Path(__file__).with_name("shapes.py").stat().st_mtime:
                write_shape(path, shape_config(config, f"{name} shape"), (0.0,), bits=bits)
            models[name, bits] = OurModel(edge_run, path)

    def rate(name: str, bits: int, threads: int) -> float:
        return float(models[name, bits].bench(0, threads, 16, SHAPES[name][1])["decode_tokens_per_s"])

    measurements: dict[str, Callable[[], float]] = {
        f"{name} {bits} bits x{threads}": partial(rate, name, bits, threads)
        for name in SHAPES
        for threads in options.threads
        for bits in BITS
    }
    samples = take_rounds(measurements, options.rounds, print)
    figures = []
    for name in SHAPES:
        for threads in options.threads:
            four = samples[f"{name} 4 bits x{threads}"].median
            for bits in BITS:
                own = samples[f"{name} {bits} bits x{threads}"].median
                less = models[name, 4].bytes_per_token() / models[name, bits].bytes_per_token()
                label = f"decode, {name} shape, {bits} bits over 4 (bytes: {less:.2f}), {threads} thread(s)"
                target = 1.0 if bits == 3 else None
                figures.append(Figure(label, own, four, own / four, target, "tokens/s", COMMAND))
    show(figures, samples)
    print(f"wrote {write_figures('bits', figures)}")


if __name__ == "__main__":
    main()
