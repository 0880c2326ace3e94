"""64-bit ARM machines without one: shells of this machine whose programs, and whose answers, are those of ARM."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SYSROOT = Path("/usr/aarch64-linux-gnu")
"""Where Debian's libc6-arm64-cross has the glibc of 64-bit ARM."""

_PROCESSOR = """processor\t: {n}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""
_GETPROP = """#!/bin/sh
case $1 in
  ro.build.version.release) echo 14 ;;
  ro.build.version.sdk) echo 34 ;;
  ro.product.brand) echo Stand ;;
  ro.product.model) echo Stand-in phone ;;
  ro.soc.model) echo qemu ;;
  *) echo ;;
esac
"""


def find_qemu() -> str:
    """The program that runs 64-bit ARM ones; skips the test where there is none."""
    qemu = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if qemu is None:
        pytest.skip("no qemu-aarch64-static (apt-get install qemu-user-static)")
    return qemu


class ArmMachine:
    """Two Cortex-A76. environment: what turns a shell of this machine into one of it; android: it is a phone."""

    def __init__(self, folder: Path, *, android: bool) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler for the stand-in's shell (apt-get install gcc)")
        qemu = find_qemu()
        programs = folder / "bin"
        programs.mkdir(parents=True)
        if android:
            (programs / "getprop").write_text(_GETPROP)
            (programs / "getprop").chmod(0o755)
        cpuinfo = folder / "cpuinfo"
        cpuinfo.write_text("".join(_PROCESSOR.format(n=n) for n in range(2)))
        library = folder / "arm_shell.so"
        source = Path(__file__).parent / "arm_shell.c"
        options = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
        subprocess.run([compiler, *options, "-o", str(library), str(source), "-ldl"], check=True, timeout=60)
        self.environment = {
            "LD_PRELOAD": str(library),
            "ARM_CPUINFO": str(cpuinfo),
            "ARM_QEMU": qemu,
            "QEMU_CPU": "cortex-a76",
            "QEMU_LD_PREFIX": str(SYSROOT),
            "PATH": f"{programs}:{os.environ['PATH']}",
        }
