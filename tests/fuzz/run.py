"""Runs the fuzzers and prints, for each, what it did: python tests/fuzz/run.py --build DIR --seconds N.

The time is shared by the five targets of the engine (libFuzzer) and the two of the Python half (hypothesis). The corpus
begins with seeds that are made here, and grows in DIR/corpus from run to run. Exit status 1: something broke; its input
lies in DIR/crashes, and belongs in tests/fuzz/regressions once it is mended.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
REPOSITORY = TESTS.parent
# Share of the time of each target. The loader's inputs are the largest, and it is where most of the checks are.
TARGETS = {"loader": 8, "tokenizer": 4, "sampler": 1, "chat": 1, "text": 1}
PYTHON_TESTS = {"importers": "cloud/test_importers_fuzz.py", "reader": "formats/test_reader_fuzz.py"}
PYTHON_SHARE = 2.5
LEAST_PYTHON_SECONDS = 240  # a round of those takes twenty seconds; `make test` runs one too
COVERED = {  # what the table of lines lists, by target: files of device/engine
    "loader": "artifact.cpp artifact_coverage.cpp artifact_fields.cpp artifact_model.cpp artifact_tensors.cpp"
    " json_document.cpp json_fields.cpp",
    "tokenizer": "tokenizer.cpp tokenizer_description.cpp tokenizer_encode.cpp tokenizer_split.cpp tokenizer_stream.cpp"
    " tokenizer_unicode.cpp",
    "sampler": "sampler.cpp",
    "chat": "run/chat_format.cpp",
    "text": "text_filter.cpp text_stream.h",
}


@dataclass(frozen=True)
class Outcome:
    """What one target did; `reached`: edges of how many, or what the Python half says."""

    name: str
    n_runs: int
    seconds: float
    reached: str
    crashes: tuple[str, ...]


def main() -> int:
    """The whole run; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, required=True, help="a build with -DEDGE_FUZZ=ON")
    parser.add_argument("--seconds", type=float, default=600)
    arguments = parser.parse_args()
    build = arguments.build.resolve()
    programs, corpus = build / "tests" / "fuzz", build / "corpus"
    os.environ["LLVM_PROFILE_FILE"] = str(build / "other.profraw")  # of programs whose lines nobody counts
    write_seeds(programs, corpus)
    python_tests = PYTHON_TESTS if arguments.seconds >= LEAST_PYTHON_SECONDS else {}
    part = arguments.seconds / (sum(TARGETS.values()) + PYTHON_SHARE * len(python_tests))
    outcomes = [fuzz(programs, build, name, part * share) for name, share in TARGETS.items()]
    outcomes += [fuzz_python(name, path, part * PYTHON_SHARE) for name, path in python_tests.items()]
    print_lines(programs, build)
    print(f"\n{'target':10} {'runs':>9} {'per second':>10} {'crashes':>8}  edges reached")
    for o in outcomes:
        print(f"{o.name:10} {o.n_runs:9} {o.n_runs / max(o.seconds, 1e-3):10.0f} {len(o.crashes):8}  {o.reached}")
    crashes = [crash for o in outcomes for crash in o.crashes]
    for crash in crashes:
        print(f"crash: {crash}")
    return 1 if crashes else 0


def write_seeds(programs: Path, corpus: Path) -> None:
    """The programs' own seeds, the hostile files of tests/hostile.py for the loader, and the regressions."""
    subprocess.run([programs / "write_seeds", corpus], check=True)
    subprocess.run([sys.executable, TESTS / "fuzz" / "hostile_seeds.py", corpus / "loader"], check=True)
    for path in (TESTS / "fuzz" / "regressions").glob("*/*"):
        (corpus / path.parent.name / f"regression-{path.name}").write_bytes(path.read_bytes())


def fuzz(programs: Path, build: Path, name: str, seconds: float) -> Outcome:
    """libFuzzer for so long. It ends at its first crash."""
    crashes = build / "crashes" / name
    crashes.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [
        *(programs / f"fuzz_{name}", f"-max_total_time={max(1, round(seconds))}", "-print_final_stats=1"),
        *("-timeout=20", "-rss_limit_mb=2048", f"-artifact_prefix={crashes}/", build / "corpus" / name),
    ]
    if name == "loader":
        command.insert(1, "-max_len=262144")
    start = time.monotonic()
    text = output(command, build, f"{name}-run")
    edges, total = re.findall(r"cov: (\d+)", text), re.search(r"\((\d+) inline 8-bit counters\)", text)
    runs = re.search(r"number_of_executed_units: *(\d+)", text) or re.search(r"#(\d+)\s[^#]*\Z", text)
    found = re.findall(r"Test unit written to (\S+)", text)
    print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    if "stat::" not in text or found:
        print(text[-4000:])
        found = found or [f"{name} ended without its statistics"]
    reached = f"{edges[-1]} of {total[1]}" if edges and total else "unknown"
    return Outcome(name, int(runs[1]) if runs else 0, time.monotonic() - start, reached, tuple(found))


def fuzz_python(name: str, test: str, seconds: float) -> Outcome:
    """Rounds of a hypothesis test, each with other examples, until the time is over."""
    start, n_runs, crashes = time.monotonic(), 0, []
    for seed in range(1 << 30):
        command = [*(sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider"), TESTS / test]
        environment = {"EDGE_FUZZ_SEED": str(seed + int(time.time()))}
        result = subprocess.run(
            command, capture_output=True, text=True, cwd=REPOSITORY, env={**os.environ, **environment}, check=False
        )
        n_runs += sum(map(int, re.findall(r"fuzzed (\d+)", result.stdout)))
        if result.returncode != 0:
            print(result.stdout[-8000:])
            ended = f"exit status {result.returncode}"  # -9: perhaps it took too much memory
            crashes.append(f"{test} with EDGE_FUZZ_SEED={environment['EDGE_FUZZ_SEED']}: {ended}")
        if crashes or time.monotonic() - start > seconds:
            break
    print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    return Outcome(name, n_runs, time.monotonic() - start, "-", tuple(crashes))


def print_lines(programs: Path, build: Path) -> None:
    """Lines that the corpus reaches, of the sources that each target is for, by llvm-cov."""
    print(f"\n{'source':38} {'lines':>6} {'reached':>8}")
    for name, files in COVERED.items():
        program, profile = programs / f"fuzz_{name}", build / f"{name}.profdata"
        output([program, "-runs=0", build / "corpus" / name], build, f"{name}-lines")
        tool = ["llvm-profdata", "merge", "-sparse", build / f"{name}-lines.profraw", "-o", profile]
        subprocess.run(tool, check=True)
        sources = [REPOSITORY / "device" / "engine" / file for file in files.split()]
        report = subprocess.run(
            ["llvm-cov", "report", program, f"-instr-profile={profile}", *sources],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        n_lines = n_missed = 0
        for line in report.splitlines():
            words = line.split()
            if len(words) < 10 or not words[0].endswith((".cpp", ".h")):
                continue
            lines, missed = int(words[7]), int(words[8])
            n_lines, n_missed = n_lines + lines, n_missed + missed
            print(f"{Path(words[0]).name:38} {lines:6} {1 - missed / lines:8.1%}")
        print(f"{'all of ' + name:38} {n_lines:6} {1 - n_missed / max(n_lines, 1):8.1%}")


def output(command: Sequence[str | Path], build: Path, profile: str) -> str:
    """What a program says, whatever its status; its profile goes to a file of that name."""
    environment = {**os.environ, "LLVM_PROFILE_FILE": str(build / f"{profile}.profraw")}
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, check=False)
    return result.stdout.decode(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
