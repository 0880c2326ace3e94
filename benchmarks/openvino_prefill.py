"""Prompts against openvino-genai, the fastest of the other engines at them: SmolLM2-135M, Q4_0, interleaved, pinned.

    python benchmarks/openvino_prefill.py [--python PYTHON] [--rounds 5] [--threads 1 2] [--tokens 512]

PYTHON is an interpreter that has openvino-genai (`pip install openvino-genai==2026.4.1` in an environment of its own).
It loads the same Q4_0 file as llama.cpp in benchmarks/speed.py and computes on what it makes of it. Every prompt is new
and random, since it keeps the caches of those it has seen; its first one, which prepares, is not counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from figures import BENCH
from peer_models import write_demo_q4_0
from sides import OurModel, pinned

import edgesdk

_PROGRAM = """
import json, sys
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
print(json.dumps({"version": openvino_genai.__version__, "rate": max(rates[1:])}))
"""


def main() -> int:
    """Prints medians and their ratio for each number of threads."""
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
    edge_run = Path(edgesdk.__file__).parent / "bin" / "edge-run"
    ours = OurModel(edge_run, BENCH.parent / "demo" / "smollm2.edge")
    theirs = BENCH / "speed" / "smollm2-q4_0.gguf"
    if not theirs.is_file():
        theirs.parent.mkdir(parents=True, exist_ok=True)
        write_demo_q4_0(theirs)
    for threads in options.threads:
        rates: dict[str, list[float]] = {"ours": [], "openvino": []}
        for _ in range(options.rounds):
            rates["ours"].append(ours.bench(ours.top, threads, options.tokens, 1)["prefill_tokens_per_s"])
            command = [*pinned(threads), options.python, "-c", _PROGRAM, theirs, str(threads), str(options.tokens)]
            report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            rates["openvino"].append(report["rate"])
        a, b = (statistics.median(rates[side]) for side in ("ours", "openvino"))
        spread = {side: f"{min(v):.0f}-{max(v):.0f}" for side, v in rates.items()}
        print(
            f"prefill of {options.tokens}, {threads} thread(s): {a:.0f} tokens/s ({spread['ours']}), "
            f"openvino-genai {report['version']} {b:.0f} ({spread['openvino']}): {a / b:.2f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
