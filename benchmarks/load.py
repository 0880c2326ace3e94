"""Loading: what a level touches, what a process peaks at, and how long the first logits take.

    python benchmarks/load.py [ARTIFACT]      # default: build/demo/smollm2.edge, which `make demo` leaves

Writes build/bench/load.json. The limits are those of the project: resident bytes of the mapping within 5 % of
mapped_bytes, peak of edge-run at most 10 % over what the level announces, first logits of a warm file within 100 ms.
Also what checking hashes costs: first logits with verify lazy, eager and off, in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from figures import BENCH, Figure, write_figures
from rich.console import Console

import edgesdk
from edgesdk.device.model import Verify
from edgesdk.formats import Artifact

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from resident import resident_bytes

COMMAND = "python benchmarks/load.py"
CONTEXT = 512
MODES: tuple[Verify, ...] = ("lazy", "eager", "off")
RUNS = 7
console = Console(highlight=False)


def resident_after_a_pass(path: Path, level: int) -> int:
    """Bytes of the artifact's mappings that are resident after one forward pass."""
    model = edgesdk.load(path, level=level, context=CONTEXT)
    model.logits(list(range(100, 132)))
    total = resident_bytes(path)
    model.close()
    return total


def first_logits_ms(path: Path, level: int, verify: Verify) -> float:
    """Milliseconds from `load` to the logits of one token."""
    start = time.perf_counter()
    model = edgesdk.load(path, level=level, context=CONTEXT, verify=verify)
    model.logits([100])
    elapsed = (time.perf_counter() - start) * 1e3
    model.close()
    return elapsed


def peak_rss_bytes(path: Path, level: int) -> int:
    """Peak resident bytes of the native program generating 32 tokens."""
    program = Path(sysconfig.get_path("purelib")) / "edgesdk" / "bin" / "edge-run"
    command = [program, "generate", path, "--prompt", "The steam engine", "--max-tokens", "32"]
    command += ["--level", str(level), "--context", str(CONTEXT), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout)["peak_rss_bytes"])


def main() -> None:
    """Measures the smallest, a middle and the full level."""
    parser = argparse.ArgumentParser(description="memory and time of loading a level")
    parser.add_argument("artifact", type=Path, nargs="?", default=BENCH.parent / "demo" / "smollm2.edge")
    parser.add_argument("--resident", type=int, help=argparse.SUPPRESS)  # one level, in a process of its own
    arguments = parser.parse_args()
    if arguments.resident is not None:
        sys.stdout.write(str(resident_after_a_pass(arguments.artifact, arguments.resident)))
        return
    top = len(Artifact.open(arguments.artifact).levels) - 1
    figures = []
    for level in (0, top // 2, top):
        with edgesdk.load(arguments.artifact, level=level, context=CONTEXT) as model:
            needs = model.estimate(level, CONTEXT)
        own = [sys.executable, __file__, str(arguments.artifact), "--resident", str(level)]
        resident = int(subprocess.run(own, capture_output=True, text=True, check=True).stdout)
        peak = peak_rss_bytes(arguments.artifact, level)
        name = f"level {level}"
        closeness = min(resident, needs.mapped_bytes) / max(resident, needs.mapped_bytes)
        figures += [
            Figure(f"{name}: resident / mapped bytes", resident, needs.mapped_bytes, closeness, 0.95, "bytes", COMMAND),
            Figure(f"{name}: peak RSS", peak, needs.total_bytes, needs.total_bytes / peak, 1 / 1.1, "bytes", COMMAND),
        ]
    rounds = [[first_logits_ms(arguments.artifact, top, verify) for verify in MODES] for _ in range(RUNS + 1)][1:]
    for verify, times in zip(MODES, zip(*rounds, strict=True), strict=True):
        median, name = statistics.median(times), f"full level: load to first logits, warm, verify={verify}"
        figures.append(Figure(name, median, 100.0, 100.0 / median, 1.0 if verify == "lazy" else None, "ms", COMMAND))
    for figure in figures:
        verdict = "ok" if figure.ratio >= (figure.target or 0) else "MISSED"
        console.print(f"{figure.figure}: {figure.ours:,.0f} of {figure.peer:,.0f} {figure.unit}, {verdict}")
    console.print(f"wrote {write_figures('load', figures)}")


if __name__ == "__main__":
    main()
