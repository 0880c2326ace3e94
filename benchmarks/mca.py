"""Inner loops on 64-bit ARM by llvm-mca: bytes of weights and products per cycle, ours and a plain kernel's.

    python benchmarks/mca.py [--mca llvm-mca-19] [--compiler aarch64-linux-gnu-g++]

llvm-mca schedules the compiler's instructions on a model of the core with all loads in the first-level cache. LLVM
has a model of neoverse-n1, whose core is that of cortex-a76; for cortex-a76 and cortex-x1 themselves it uses the older
and narrower cortex-a57 (before LLVM 17 for neoverse-n1, too), so their figures are lower bounds.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
CORES = ("cortex-a76", "cortex-x1", "neoverse-n1")
SETS = {"dotprod": "armv8.2-a+dotprod", "i8mm": "armv8.2-a+dotprod+i8mm"}
# Per iteration: bytes of packed weights read (0 where they were unpacked before) and multiply-accumulates.
LOOPS = {
    "matvec": (16 * 18, 16 * 32),
    "plain matvec": (18, 32),
    "matmul": (0, 16 * 32 * 4),
    "plain matmul": (18, 32 * 4),
}


def assembly(compiler: str, isa: str, folder: Path) -> Path:
    """benchmarks/mca.cpp compiled for one instruction set as the kernels are."""
    out = folder / f"{isa}.s"
    define = ["-DEDGE_MCA_I8MM"] if isa == "i8mm" else []
    flags = [
        "-std=c++20",
        "-O3",
        "-ffp-contract=off",
        "-fno-schedule-insns",
        f"-march={SETS[isa]}",
        f"-I{ROOT}",
        *define,
    ]
    subprocess.run([compiler, *flags, "-S", str(ROOT / "benchmarks/mca.cpp"), "-o", str(out)], check=True)
    return out


def cycles(mca: str, source: Path, core: str, iterations: int = 200) -> Iterator[tuple[str, float]]:
    """(loop, cycles per iteration) of every marked loop."""
    options = ["-mtriple=aarch64", f"-mcpu={core}", "-mattr=+dotprod,+i8mm", f"-iterations={iterations}"]
    run = subprocess.run([mca, *options, str(source)], check=True, capture_output=True, text=True)
    for name, total in re.findall(r"Code Region - ([a-z ]+)\n.*?Total Cycles:\s+(\d+)", run.stdout, re.S):
        yield name, int(total) / iterations


def main(arguments: Sequence[str]) -> int:
    """Prints the table; leaves with 0 where a tool is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mca", default=next(filter(shutil.which, ("llvm-mca-19", "llvm-mca")), "llvm-mca"))
    parser.add_argument("--compiler", default="aarch64-linux-gnu-g++")
    options = parser.parse_args(arguments)
    missing = [tool for tool in (options.mca, options.compiler) if shutil.which(tool) is None]
    if missing:
        print(f"SKIPPED mca: no {', no '.join(missing)} (apt-get install llvm g++-aarch64-linux-gnu)", file=sys.stderr)
        return 0
    table = Table("core", "set", "loop", "cycles", "bytes / cycle", "MAC / cycle")
    with tempfile.TemporaryDirectory() as folder:
        for isa in SETS:
            source = assembly(options.compiler, isa, Path(folder))
            for core in CORES:
                for loop, n_cycles in cycles(options.mca, source, core):
                    n_bytes, macs = LOOPS[loop]
                    rate = f"{n_bytes / n_cycles:.1f}" if n_bytes else ""
                    table.add_row(core, isa, loop, f"{n_cycles:.1f}", rate, f"{macs / n_cycles:.1f}")
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
