"""Whether `edgesdk profile` and `make bench` say the same of this machine: both measure in turn, ratios are shown.

    python benchmarks/agreement.py [--rounds 5] [--threads 1 2] [--artifact FILE]   # or: make bench-agreement

Compares decoding, prompts and memory bandwidth of the full level of the demo model (which `make demo` leaves). Nothing
else may run meanwhile. Writes build/bench/agreement.json; a ratio is the smaller side over the larger one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from figures import BENCH, Figure, write_figures
from rich.console import Console
from rounds import Samples, take_rounds
from sides import Machine, OurModel

import edgesdk
from edgesdk.targets.connections import LocalConnection
from edgesdk.targets.measure import Plan, here, measure_device

COMMAND = "python benchmarks/agreement.py"
PARTS = {"decode": (1, 128), "prefill": (512, 1)}  # tokens of the prompt, tokens that are decoded, as in speed.py
LEAST = 0.95
console = Console(highlight=False, width=120)


def by_bench(model: OurModel, part: str, n_threads: int) -> float:
    """Tokens per second as benchmarks/speed.py has them."""
    return float(model.bench(model.top, n_threads, *PARTS[part])[f"{part}_tokens_per_s"])


class ByProfile:
    """What `edgesdk profile --device local` reports of one setting; bandwidth comes with decoding."""

    def __init__(self, model: OurModel) -> None:
        self._model = model
        self._last: dict[int, float] = {}

    def speed(self, part: str, n_threads: int) -> float:
        """Tokens per second, and the reading speed kept for `bandwidth`."""
        n_prompt, n_decode = PARTS[part]
        plan = Plan((self._model.top,), (n_threads,), prompt_tokens=(n_prompt,), decode_tokens=n_decode, n_runs=1)
        deployment = here(self._model.path.resolve(), self._model.edge_run)
        row: dict[str, Any] = measure_device(LocalConnection(), deployment, plan)["results"][0]
        self._last[n_threads] = float(row["read_gb_per_s"])
        return float(row[f"{part}_tokens_per_s"]["p50"])

    def bandwidth(self, n_threads: int) -> float:
        """GB/s that the last measurement with so many threads found."""
        return self._last[n_threads]


def measurements(model: OurModel, machine: Machine, threads: list[int]) -> dict[str, Callable[[], float]]:
    """Both sides of each figure, beside each other."""
    profile = ByProfile(model)
    taken: dict[str, Callable[[], float]] = {}
    for t in threads:
        for part in PARTS:
            taken[f"{part} x{t}, bench"] = partial(by_bench, model, part, t)
            taken[f"{part} x{t}, profile"] = partial(profile.speed, part, t)
        taken[f"read x{t}, bench"] = partial(machine.read_gb_per_s, model.bytes_per_token(), t)
        taken[f"read x{t}, profile"] = partial(profile.bandwidth, t)
    return taken


def figures(samples: dict[str, Samples]) -> list[Figure]:
    """The smaller median over the larger one."""
    found = []
    for key in (key.removesuffix(", bench") for key in samples if key.endswith(", bench")):
        ours, peer = samples[f"{key}, profile"].median, samples[f"{key}, bench"].median
        unit = "GB/s" if key.startswith("read") else "tokens/s"
        ratio = min(ours, peer) / max(ours, peer)
        found.append(Figure(f"{key}: profile against bench", ours, peer, ratio, LEAST, unit, COMMAND))
    return found


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description="edgesdk profile against make bench")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--artifact", type=Path, default=BENCH.parent / "demo" / "smollm2.edge")
    arguments = parser.parse_args()
    if not arguments.artifact.is_file():
        raise SystemExit(f"error: no {arguments.artifact}\nhint: make demo")
    BENCH.mkdir(parents=True, exist_ok=True)
    model = OurModel(Path(edgesdk.__file__).parent / "bin" / "edge-run", arguments.artifact)
    samples = take_rounds(
        measurements(model, Machine(model.edge_run), arguments.threads), arguments.rounds, console.print
    )
    found = figures(samples)
    for figure in found:
        key = figure.figure.partition(":")[0]
        noise = max(samples[f"{key}, {side}"].spread for side in ("bench", "profile"))
        agrees = figure.ratio >= min(LEAST, 1 / (1 + noise))
        console.print(
            f"{key}: profile {figure.ours:.1f}, bench {figure.peer:.1f} {figure.unit}; ratio "
            f"{figure.ours / figure.peer:.3f}, samples spread by {noise:.0%}: {'agrees' if agrees else 'DIFFERS'}"
        )
    console.print(f"wrote {write_figures('agreement', found)}")


if __name__ == "__main__":
    main()
