"""The kernels of GPUs as a text: what compilers make of it, and what an interpreter that watches every access finds."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from device_artifacts import edge_run
from tiny_model import nested_ladder, tiny_ssm_config, write_random_artifact


@pytest.mark.skipif(shutil.which("clang") is None, reason="SKIPPED clang is not installed (apt-get install clang)")
@pytest.mark.parametrize("language", ["CL2.0", "CL3.0"])
def test_the_kernels_compile_with_extensions(language: str, tmp_path: Path) -> None:
    """By a compiler that declares them; no device here has one. The code behind them is in the result."""
    names = ("dialect_opencl", "arithmetic", "weights", "rows", "attention", "mixer")
    kernels = Path(__file__).parents[2] / "kernels" / "gpu"
    source = tmp_path / "kernels.cl"
    source.write_text("".join((kernels / f"{name}.cl").read_text("utf-8") for name in names), "utf-8")
    command = ["clang", "-x", "cl", f"-cl-std={language}", "-target", "spir64", "-Xclang", "-finclude-default-header"]
    command += ["-Wall", "-Werror", "-Wno-unused-function", "-O1", "-S", "-emit-llvm", "-o", "-", str(source)]
    for options, built_in in (
        ([], []),
        (["-DEDGE_DOT_PRODUCTS"], ["dot_4x8packed_ss_int", "dot_4x8packed_us_int"]),
        (["-DEDGE_SUBGROUPS"], ["sub_group_reduce_max"]),
    ):
        run = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120)
        assert run.returncode == 0, run.stderr
        assert set(re.findall(r"dot_4x8packed_\w\w_int|sub_group_reduce_max", run.stdout)) == set(built_in)


OCLGRIND = Path("/usr/lib/oclgrind/liboclgrind-rt-icd.so")


@pytest.mark.slow
@pytest.mark.skipif(not OCLGRIND.is_file(), reason="SKIPPED oclgrind is not installed (apt-get install oclgrind)")
def test_oclgrind_finds_no_race_and_nothing_out_of_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that watches every access: the self-test, which launches all kernels, and a few tokens."""
    monkeypatch.delenv("EDGE_OPENCL_DEVICE", raising=False)
    config = tiny_ssm_config(n_layers=1, attention=True)
    path = tmp_path / "hybrid.edge"
    write_random_artifact(path, config, nested_ladder(config))
    log = tmp_path / "oclgrind.log"
    watched = {"OCLGRIND_DATA_RACES": "1", "OCLGRIND_CHECK_API": "1", "OCLGRIND_LOG": str(log)}
    arguments = ["generate", path, "--prompt", "abcd", "--max-tokens", 2, "--backend", "opencl", "--context", 64]
    environment = {"OCL_ICD_VENDORS": str(OCLGRIND), "EDGE_CACHE_DIR": str(tmp_path / "cache")}
    run = edge_run(*arguments, **watched, **environment)
    assert run.returncode == 0, run.stderr
    assert log.read_text("utf-8") == ""
