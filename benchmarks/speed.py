"""Speed against llama.cpp, and against what the machine can do: the table of docs/SPEED.md's goals, in one run.

    python benchmarks/speed.py [--only decode prefill rates long cold memory] [--rounds 5] [--threads 1 2]

Both sides are pinned to as many processors as they have threads and run in turn (rounds.py); figures are ratios of
medians. Models: the demo model (build/demo/smollm2.edge, which `make demo` leaves, against Q4_0 of the same source)
and Llama-3.2-1B's shape with random codes (shapes.py). Writes build/bench/speed.json, and all samples beside the
models, in build/bench/speed; with --only the figures go there, too. The peer is built when it is missing (peer.py);
with --no-peer its figures are left out. --quick is a smoke run on a small shape.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from figures import BENCH, Figure, write_figures
from peer import Peer, build_peer, find_peer
from peer_models import write_demo_q4_0, write_shape_gguf
from rich.console import Console
from rich.table import Table
from rounds import Samples, take_rounds
from shapes import LLAMA_1B, QUICK_SHAPE, shape_config, write_shape
from sides import Machine, OurModel, PeerModel
from speed_plan import CASES, DEMO, QUICK, SHAPE, Model, Plan, Settings, make_plan

import edgesdk

console = Console(highlight=False, width=150)


def measure(plan: Plan) -> tuple[list[Figure], dict[str, Samples]]:
    """Runs the plan."""
    samples = take_rounds(plan.measurements, plan.settings.rounds, console.print, plan.settings.tries)
    samples |= take_rounds(plan.once, 1, console.print, tries=1)
    return [figure for make in plan.makers for figure in make(samples)], samples


def show(figures: list[Figure], samples: dict[str, Samples]) -> None:
    """The table, and a warning when the machine was not ours."""
    table = Table("figure", "ours", "peer or limit", "unit", "ratio", "target", "", box=None)
    for f in figures:
        verdict = "" if f.target is None else ("ok" if f.ratio >= f.target else "MISSED")
        target = "" if f.target is None else f"{f.target:.2f}"
        table.add_row(f.figure, f"{f.ours:,.1f}", f"{f.peer:,.1f}", f.unit, f"{f.ratio:.3f}", target, verdict)
    console.print(table)
    disturbed = sum(s.disturbed for s in samples.values())
    widest = max(samples, key=lambda key: samples[key].spread)
    console.print(f"widest spread of samples: {samples[widest].spread:.0%} ({widest})")
    if disturbed:
        total = sum(len(s.values) for s in samples.values())
        console.print(f"WARNING: other processes were busy during {disturbed} of {total} samples")


def find_models(edge_run: Path, peer: Peer | None, out: Path, *, quick: bool) -> list[Model]:
    """The models, demo first; what is missing is written into `out`. quick: a small shape alone."""
    name, config = ("small shape", QUICK_SHAPE) if quick else (SHAPE, LLAMA_1B)
    stem = "small" if quick else "llama-1b"

    def kept(file: str, write: Callable[[Path], Any]) -> Path:
        path = out / file
        sources = [Path(__file__).with_name(source) for source in ("shapes.py", "peer_models.py")]
        if not path.is_file() or path.stat().st_mtime < max(source.stat().st_mtime for source in sources):
            console.print(f"writing {path}")
            write(path)
        return path

    def theirs(file: str, write: Callable[[Path], Any]) -> PeerModel | None:
        return PeerModel(peer, kept(file, write)) if peer else None

    shape = Model(
        name,
        OurModel(edge_run, kept(f"{stem}.edge", lambda path: write_shape(path, shape_config(config, name)))),
        theirs(f"{stem}-q4_0.gguf", lambda path: write_shape_gguf(path, config)),
    )
    if quick:
        return [shape]
    artifact = BENCH.parent / "demo" / "smollm2.edge"
    if not artifact.is_file():
        raise SystemExit(f"error: no {artifact}\nhint: make demo")
    return [Model(DEMO, OurModel(edge_run, artifact), theirs("smollm2-q4_0.gguf", write_demo_q4_0)), shape]


def find_or_build_peer(arguments: argparse.Namespace) -> Peer | None:
    """The peer; None, with a line that says so, where it is not wanted or (in a quick run) not there."""
    peer = None if arguments.no_peer else find_peer()
    if peer is None and not (arguments.no_peer or arguments.quick):
        console.print("building the peer, which takes about ten minutes")
        peer = build_peer()
    if peer is None:
        console.print("SKIPPED: figures against llama.cpp (python benchmarks/peer.py builds it)")
    return peer


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description="speed against llama.cpp and against the machine")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=Settings.rounds)
    parser.add_argument("--threads", type=int, nargs="+", default=list(Settings.threads))
    parser.add_argument(
        "--tries", type=int, default=Settings.tries, help="samples taken while other processes are busy"
    )
    parser.add_argument("--edge-run", type=Path, default=Path(edgesdk.__file__).parent / "bin" / "edge-run")
    parser.add_argument("--out", type=Path, help="folder of the models and samples (default: build/bench/speed)")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a smoke run on a small shape; its figures mean nothing")
    arguments = parser.parse_args()
    out = arguments.out or BENCH / "speed"
    out.mkdir(parents=True, exist_ok=True)
    settings = QUICK if arguments.quick else Settings(arguments.rounds, arguments.tries, tuple(arguments.threads))
    peer = find_or_build_peer(arguments)
    models = find_models(arguments.edge_run, peer, out, quick=arguments.quick)
    figures, samples = measure(make_plan(arguments.only, models, settings, Machine(arguments.edge_run)))
    show(figures, samples)
    kept = {key: asdict(s) for key, s in samples.items()}
    (out / "samples.json").write_text(json.dumps(kept, indent=1, allow_nan=False) + "\n", "utf-8")
    whole = set(arguments.only) == set(CASES) and settings.threads == Settings.threads
    console.print(f"wrote {write_figures('speed' if whole else str(out / 'part'), figures)}")


if __name__ == "__main__":
    main()
