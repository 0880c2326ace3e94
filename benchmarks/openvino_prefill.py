"""Prompts against openvino-genai, the fastest of the other engines at them: SmolLM2-135M, Q4_0, interleaved, pinned.

    python benchmarks/openvino_prefill.py [--python PYTHON] [--rounds 5] [--threads 1 2] [--tokens 512]

PYTHON is an interpreter that has openvino-genai (`pip install openvino-genai==2026.4.1` in an environment of its own).
It loads the same Q4_0 file as llama.cpp in benchmarks/speed.py and computes on what it makes of it. Its prompts are
random and new, since it keeps the caches of those it has seen; after one to prepare, the better of two is its sample.
Needs the artifact of `make demo`; writes build/bench/openvino_prefill.json.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from figures import BENCH, Figure, write_figures
from peer_models import write_demo_q4_0
from rounds import pinned, take_rounds
from sides import OurModel
from speed import show

import edgesdk

_PROGRAM = """
import sys
import numpy, openvino, openvino_genai
path, threads, n_tokens = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
pipeline = openvino_genai.LLMPipeline(path, "CPU", INFERENCE_NUM_THREADS=threads)
settings = openvino_genai.GenerationConfig(max_new_tokens=1, ignore_eos=True)
random, rates = numpy.random.default_rng(0), []
for _ in range(3):
    ids = random.integers(100, 40000, (1, n_tokens))
    inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(numpy.ones_like(ids)))
    metrics = pipeline.generate(inputs, settings).perf_metrics
    rates.append(n_tokens / (metrics.get_ttft().mean / 1e3))
print(max(rates[1:]))
"""


def main() -> int:
    """Prints and writes the medians and their ratio for each number of threads."""
    parser = argparse.ArgumentParser(description="prompts against openvino-genai")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--tokens", type=int, default=512)
    options = parser.parse_args()
    probe = subprocess.run([options.python, "-c", "import openvino_genai"], capture_output=True, text=True)
    if probe.returncode:
        print(f"SKIPPED openvino_prefill: {options.python} has no openvino-genai (--python)", file=sys.stderr)
        return 0
    ours = OurModel(Path(edgesdk.__file__).parent / "bin" / "edge-run", BENCH.parent / "demo" / "smollm2.edge")
    theirs = BENCH / "speed" / "smollm2-q4_0.gguf"
    if not theirs.is_file():
        theirs.parent.mkdir(parents=True, exist_ok=True)
        write_demo_q4_0(theirs)

    def our_rate(threads: int) -> float:
        return float(ours.bench(ours.top, threads, options.tokens, 1)["prefill_tokens_per_s"])

    def their_rate(threads: int) -> float:
        command = [*pinned(threads), options.python, "-c", _PROGRAM, str(theirs), str(threads), str(options.tokens)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    measurements: dict[str, Callable[[], float]] = {}
    for threads in options.threads:
        measurements |= {
            f"ours x{threads}": partial(our_rate, threads),
            f"openvino x{threads}": partial(their_rate, threads),
        }
    samples = take_rounds(measurements, options.rounds, print)
    figures = []
    for threads in options.threads:
        a, b = samples[f"ours x{threads}"].median, samples[f"openvino x{threads}"].median
        name = f"prefill of {options.tokens}, SmolLM2-135M, against openvino-genai, {threads} thread(s)"
        figures.append(Figure(name, a, b, a / b, None, "tokens/s", "python benchmarks/openvino_prefill.py"))
    show(figures, samples)
    print(f"wrote {write_figures('openvino_prefill', figures)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
