"""What a GPU should reach on paper, and what this machine's reaches: tokens per second at levels of an artifact.

    python benchmarks/gpu.py [ARTIFACT] [--backend opencl|cuda]   # without --backend on paper only

The default artifact is the demo's. Writes build/bench/gpu.json. The paper's side (docs/gpu.md) takes, for each token,
the longest of three: bytes of weights over the memory's bandwidth, instructions over what the cores issue, reads
of codebooks over what local memory gives; and adds what launching each kernel costs. Bytes and weights are counted in
the artifact, instructions in the inner loop of kernels/gpu/weights.cl; devices are as their makers and reviewers
publish them: none was measured here.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sysconfig
from dataclasses import asdict, dataclass
from pathlib import Path

from figures import BENCH
from rich.console import Console

from edgesdk.formats import Artifact

console = Console(highlight=False)


@dataclass(frozen=True)
class Gpu:
    """A device on paper."""

    name: str
    gb_per_s: float  # of its memory
    issue_per_ns: float  # instructions of all lanes
    reads_per_ns: float  # of 4 bytes from local memory, all lanes
    launch_us: float  # of a kernel that waits in the queue
    has_dot: bool  # multiplies four int8 at once


GPUS = (
    Gpu("Adreno 750", 76.8, 1400, 700, 10.0, False),
    Gpu("Jetson Orin Nano 8 GB", 68.0, 640, 160, 5.0, True),
    Gpu("H100 SXM", 3350.0, 29700, 7400, 2.5, True),
)

# Of eight weights in the loop of edge_matvec, by bits: loads, unpacking and looking up; the products come on top.
UNPACKING = {2: 28, 3: 36, 4: 28, 6: 18, 8: 4}
DOT, NO_DOT = 2, 16
BOOK_BITS = (2, 3, 4)
LAUNCHES = {"attention": 6, "mlp": 4, "ssm": 10}
LAUNCHES_PER_TOKEN = 5  # embedding, last norm, head, choice in two steps


@dataclass(frozen=True)
class Work:
    """What one token takes at a level."""

    n_bytes: int
    weights: dict[int, int]  # by bits
    n_launches: int


def work_of(artifact: Artifact, level: int) -> Work:
    """Counts the panels that a level uses; the embedding counts once, as the head."""
    n_bytes, weights = 0, dict.fromkeys(UNPACKING, 0)
    for name in artifact.used_names(level):
        if name not in artifact.edge["panels"] or (
            name.startswith(("embed/", "embed.")) and not artifact.edge["model"]["tied_head"]
        ):
            continue
        row, row_end, column, column_end, bits, _, _ = artifact.edge["panels"][name]
        info = artifact.tensors[name]
        n_bytes += info.end - info.begin
        weights[bits] += (row_end - row) * (column_end - column)
    kept = zip(artifact.edge["model"]["blocks"], artifact.levels[level].allocation, strict=True)
    launches = [1 if not sizes[0] else LAUNCHES[block["kind"]] for block, sizes in kept]
    return Work(n_bytes, weights, sum(launches) + LAUNCHES_PER_TOKEN)


def tokens_per_s(gpu: Gpu, work: Work) -> float:
    """What the paper says."""
    products = DOT if gpu.has_dot else NO_DOT
    instructions = sum(n * (UNPACKING[bits] + products) / 8 for bits, n in work.weights.items())
    reads = sum(work.weights[bits] for bits in BOOK_BITS)
    stream_us = max(
        work.n_bytes / gpu.gb_per_s / 1e3, instructions / gpu.issue_per_ns / 1e3, reads / gpu.reads_per_ns / 1e3
    )
    return 1e6 / (stream_us + work.n_launches * gpu.launch_us)


def measure(artifact: Path, level: int, backend: str) -> dict[str, object]:
    """One level through edge-run, which says on stderr where the backend is not there (CalledProcessError)."""
    program = Path(sysconfig.get_path("purelib")) / "edgesdk" / "bin" / "edge-run"
    command = [program, "bench", artifact, "--level", str(level), "--backend", backend, "--no-probe", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    row = json.loads(done.stdout)
    kept = ("backend", "device", "decode_tokens_per_s", "prefill_tokens_per_s", "gb_per_s", "logits_hash")
    return {key: row[key] for key in kept}


def main() -> None:
    """Four levels from the smallest to the full one."""
    parser = argparse.ArgumentParser(description="tokens per second on GPUs: on paper, and here")
    parser.add_argument("artifact", type=Path, nargs="?", default=BENCH.parent / "demo" / "smollm2.edge")
    parser.add_argument("--backend", choices=("opencl", "cuda"))
    arguments = parser.parse_args()
    artifact = Artifact.open(arguments.artifact)
    top = len(artifact.levels) - 1
    rows: list[dict[str, object]] = []
    for level in sorted({0, top // 3, 2 * top // 3, top}):
        work = work_of(artifact, level)
        paper = {gpu.name: round(tokens_per_s(gpu, work), 1) for gpu in GPUS}
        found = measure(arguments.artifact, level, arguments.backend) if arguments.backend else None
        rows.append({"level": level, **asdict(work), "paper": paper, "measured": found})
        console.print(
            f"level {level}: {work.n_bytes / 1e6:.1f} MB, {sum(work.weights.values()) / 1e6:.1f} M weights, "
            f"{work.n_launches} launches: "
            + ", ".join(f"{name} {speed:,.0f}" for name, speed in paper.items())
            + " tokens/s on paper"
        )
        if found:
            speed = f"{found['decode_tokens_per_s']:,.1f} tokens/s, {found['gb_per_s']:.1f} GB/s"
            console.print(f"  measured on {found['device']}: {speed}")
    report = {"date": datetime.date.today().isoformat(), "artifact": arguments.artifact.name, "levels": rows}
    BENCH.mkdir(parents=True, exist_ok=True)
    (BENCH / "gpu.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
