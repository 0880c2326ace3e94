"""Memory pressure in a control group: a generation beside a process that eats memory, without the monitor and with it.

    python benchmarks/pressure.py [ARTIFACT]      # default: build/demo/smollm2.edge, which `make demo` leaves

Both live in a control group with a limit (root is needed to make one). The generation has a copy of its weights, which
counts in the group however often the file was read before, and is the one that the system ends first. Writes
build/bench/pressure.json and pressure.png: limit, memory of the group, level and tokens per second over time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from figures import BENCH

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from control_group import control_group

MIB = 1 << 20
EAT_S, HOLD_S, REST_S = 8.0, 6.0, 14.0


def enter(group: Path, oom_score: int) -> None:
    """Moves this process into a group; the higher its score, the earlier the system ends it."""
    (group / "cgroup.procs").write_text(str(os.getpid()))
    Path("/proc/self/oom_score_adj").write_text(str(oom_score))


def generate(path: Path, group: Path, seconds: float, adaptive: bool) -> None:
    """Generates, and prints what it sees five times a second."""
    enter(group, 800)
    import numpy as np

    import edgesdk

    model = edgesdk.load(path, adaptive=adaptive, huge_pages=True, threads=1, context=2048)
    session = model.session()._native
    session.feed(np.arange(100, 200, dtype=np.int32), False, False)
    begin = last = time.monotonic()
    n_tokens = 0
    while (now := time.monotonic()) < begin + seconds:
        if session.position > 2000:
            session.rewind(100)
            session.feed(np.array([7], np.int32), False, False)
        session.next()
        n_tokens += 1
        if now - last >= 0.2:
            print(json.dumps({"level": model.level, "tokens_per_s": n_tokens / (now - last)}), flush=True)
            last, n_tokens = now, 0
    print(json.dumps({"done": True, "reason": model.reason}), flush=True)


def eat(group: Path, n_bytes: int) -> None:
    """Takes memory little by little, holds it, and gives it back."""
    enter(group, 0)
    held, begin = [], time.monotonic()
    while (now := time.monotonic() - begin) < EAT_S:
        while len(held) * MIB < n_bytes * now / EAT_S:
            held.append(bytearray(os.urandom(4096)) * 256)
        time.sleep(0.02)
    time.sleep(HOLD_S)


def usage_bytes(group: Path) -> int:
    """Memory of the group's processes, without the page cache that nobody maps."""
    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    if "total_rss" in stat:
        return int(stat["total_rss"]) + int(stat["total_mapped_file"])
    return int(stat["anon"]) + int(stat["file_mapped"])


def run(path: Path, adaptive: bool, limit_bytes: int, eaten_bytes: int) -> dict[str, Any]:
    """One generation under pressure: its trace, and how it ended."""
    seconds = 4 + EAT_S + HOLD_S + REST_S
    trace: list[dict[str, Any]] = []
    with ExitStack() as stack:
        try:
            group = stack.enter_context(control_group(limit_bytes)).folder
        except OSError as error:
            raise SystemExit(f"SKIPPED: no control group with a memory limit can be made here: {error}") from error
        command = [sys.executable, __file__, str(path), "--group", str(group)]
        worker = subprocess.Popen(
            [*command, "--generate", str(seconds), *(["--adaptive"] if adaptive else [])],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert worker.stdout is not None
        first = worker.stdout.readline()
        begin = time.monotonic()
        os.set_blocking(worker.stdout.fileno(), False)
        eater = None
        state, end = json.loads(first) if first else {}, {}
        while worker.poll() is None:
            now = time.monotonic() - begin
            if eater is None and now > 4:
                eater = subprocess.Popen([*command, "--eat", str(eaten_bytes)])
            for line in worker.stdout:
                one = json.loads(line)
                state, end = (state, one) if one.get("done") else (one, end)
            trace.append({"s": now, "bytes": usage_bytes(group), **state})
            time.sleep(0.1)
        for line in worker.stdout:
            end = json.loads(line) if "done" in line else end
        if eater is not None:
            eater.kill()
            eater.wait()
    return {
        "adaptive": adaptive,
        "limit_bytes": limit_bytes,
        "eaten_bytes": eaten_bytes,
        "finished": bool(end),
        "exit_status": worker.returncode,
        "reason": end.get("reason"),
        "trace": trace,
    }


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """Memory, level and speed over time, a column for each run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, len(runs), figsize=(11, 7), sharex=True, squeeze=False)
    for column, one in enumerate(runs):
        seconds = [point["s"] for point in one["trace"]]
        memory, level, speed = (axes[row][column] for row in range(3))
        memory.plot(seconds, [point["bytes"] / MIB for point in one["trace"]], label="memory in use")
        memory.axhline(one["limit_bytes"] / MIB, color="black", linestyle="--", label="limit")
        memory.set_title(
            ("with the monitor: " if one["adaptive"] else "without: ")
            + ("finished" if one["finished"] else f"killed after {seconds[-1]:.0f} s")
        )
        level.step(seconds, [point.get("level") for point in one["trace"]], where="post", color="tab:green")
        speed.plot(seconds, [point.get("tokens_per_s") for point in one["trace"]], color="tab:orange")
        speed.set_xlabel("seconds")
        for row, name in enumerate(("MiB", "level", "tokens/s")):
            axes[row][column].set_ylabel(name)
            axes[row][column].set_ylim(bottom=0)
        memory.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Runs both, and writes what was seen."""
    parser = argparse.ArgumentParser(description="a generation under memory pressure")
    parser.add_argument("artifact", type=Path, nargs="?", default=BENCH.parent / "demo" / "smollm2.edge")
    parser.add_argument("--limit-mib", type=int, default=250)
    parser.add_argument("--eat-mib", type=int, default=150)
    parser.add_argument("--group", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--generate", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--eat", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--adaptive", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.generate is not None:
        generate(arguments.artifact, arguments.group, arguments.generate, arguments.adaptive)
        return
    if arguments.eat is not None:
        eat(arguments.group, arguments.eat)
        return
    runs = []
    for adaptive in (False, True):
        runs.append(run(arguments.artifact, adaptive, arguments.limit_mib * MIB, arguments.eat_mib * MIB))
        one = runs[-1]
        levels = [point["level"] for point in one["trace"] if "level" in point]
        ended = "finished" if one["finished"] else f"was killed (status {one['exit_status']})"
        print(f"{'with' if adaptive else 'without'} the monitor: {ended}; levels {max(levels)} to {min(levels)}")
        print(f"  at the end: level {levels[-1]}, {one['reason']}")
    BENCH.mkdir(parents=True, exist_ok=True)
    (BENCH / "pressure.json").write_text(json.dumps(runs, indent=1) + "\n", "utf-8")
    draw(runs, BENCH / "pressure.png")
    print(f"wrote {BENCH / 'pressure.json'} and pressure.png")


if __name__ == "__main__":
    main()
