"""Bundles that are really built: what they hold, and that they give this machine's text, 64-bit ARM ones under qemu."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
from arm_device import SYSROOT, find_qemu
from bundles import CACHE, make_bundle, read_manifest
from device_artifacts import write_tiny

import edgesdk
from edgesdk.cli import main
from edgesdk.targets import load_profile
from edgesdk.targets.manifest import MANIFEST_SCHEMA

pytestmark = pytest.mark.slow
PROMPT = "Hello"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("bundle") / "tiny.edge")


@pytest.fixture(scope="module")
def android(artifact):
    return make_bundle(artifact, "android", artifact.parent)


@pytest.fixture(scope="module")
def jetson(artifact):
    return make_bundle(artifact, "jetson", artifact.parent)


@pytest.fixture(scope="module")
def own(artifact):
    return make_bundle(artifact, f"linux-{platform.machine()}", artifact.parent)


def run(*command: object, **environment: object) -> subprocess.CompletedProcess[bytes]:
    given = {name: value for name, value in os.environ.items() if name not in {"EDGE_ISA", "EDGE_OPENCL_DEVICE"}}
    given |= {name: str(value) for name, value in environment.items()}
    return subprocess.run([str(part) for part in command], capture_output=True, timeout=300, env=given)


def listing(bundle: Path) -> set[str]:
    return {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}


def elf_machine(path: Path) -> int:
    """e_machine: 183 is AArch64."""
    content = path.read_bytes()
    assert content[:4] == b"\x7fELF"
    return int.from_bytes(content[18:20], "little")


def test_the_android_bundle_without_the_ndk(android, artifact):
    manifest = read_manifest(android)
    jsonschema.validate(manifest, MANIFEST_SCHEMA)
    assert listing(android) == {"edge-run", "include/edge.h", "manifest.json"}
    assert elf_machine(android / "edge-run") == 183
    assert os.access(android / "edge-run", os.X_OK)
    assert (manifest["abi"], manifest["default_level"]) == ("aarch64-linux-musl", 2)
    assert manifest["artifact"]["path"] == "../tiny.edge"
    assert "ANDROID_NDK_HOME" in " ".join(manifest["notes"])
    model = edgesdk.load(artifact, level=0, threads=1)
    assert [level["total_bytes"] for level in manifest["artifact"]["levels"]] == [
        model.estimate(level).total_bytes for level in range(3)
    ]


def test_the_jetson_bundle_has_the_library(jetson):
    found = listing(jetson)
    wanted = {
        "edge-run",
        "include/edge.h",
        "java/edge_jni.c",
        "java/src/edgesdk/Model.java",
        "lib/libedge.a",
        "lib/libedge.so",
        "lib/cmake/edge/edge-config.cmake",
        "lib/pkgconfig/edge.pc",
        "manifest.json",
    }
    assert wanted <= found
    assert elf_machine(jetson / "lib" / "libedge.so") == 183
    assert "glibc 2.28" in " ".join(read_manifest(jetson)["notes"])
    text = (jetson / "lib" / "libedge.so").read_bytes()
    newer = {version for version in (b"GLIBC_2.%d\0" % n for n in range(29, 50)) if version in text}
    assert newer == set()


@pytest.mark.parametrize("target", ["android", "jetson", "own"])
def test_the_manifest_names_the_backends_that_the_program_has(target, request):
    """Those that the target may have besides: a Jetson has no OpenCL. CUDA needs an nvcc, or a note says so."""
    bundle = request.getfixturevalue(target)
    emulated = [] if target == "own" else [find_qemu(), "-L", SYSROOT]
    if target == "jetson" and not (SYSROOT / "lib" / "ld-linux-aarch64.so.1").exists():
        pytest.skip(f"no glibc for 64-bit ARM in {SYSROOT} (apt-get install libc6-arm64-cross)")
    result = run(*emulated, bundle / "edge-run", "selftest", "--json")
    assert result.returncode == 0, result.stderr.decode()
    built, manifest = json.loads(result.stdout)["backends"], read_manifest(bundle)
    assert manifest["backends"] == [one for one in load_profile(manifest["target"]).backends if one in built]
    left_out = [note for note in manifest["notes"] if "CUDA is left out" in note]
    if target == "android":
        assert built == ["cpu"]
    else:
        assert built == ["cpu", "opencl"] + ["cuda"] * (not left_out)
        assert all("pip install 'edgesdk[cuda]'" in note for note in left_out)


@pytest.mark.parametrize("backend", ["opencl", "cuda"])
def test_a_static_program_says_why_it_has_no_gpu(backend, android, artifact):
    arguments = ["generate", artifact, "--prompt", PROMPT, "--max-tokens", 4, "--json", "--backend"]
    result = run(find_qemu(), android / "edge-run", *arguments, backend)
    assert result.returncode == 1
    error, hint = result.stderr.decode().splitlines()
    assert error == f"error: this program is static: it cannot load the driver that backend `{backend}` needs"
    assert hint.startswith("hint: use backend `cpu`, or a program with a loader") and "NDK" in hint
    texts = [json.loads(run(find_qemu(), android / "edge-run", *arguments, given).stdout) for given in ("auto", "cpu")]
    assert texts[0]["text"] == texts[1]["text"] != ""


def test_this_machines_bundle_gives_the_same_text_through_opencl(own, artifact, tmp_path):
    for level in range(3):
        expected = edgesdk.load(artifact, level=level).generate(PROMPT, max_tokens=24)
        arguments = ["generate", artifact, "--level", level, "--prompt", PROMPT, "--max-tokens", 24, "--json"]
        result = run(own / "edge-run", *arguments, "--backend", "opencl", EDGE_CACHE_DIR=tmp_path)
        said = result.stderr.decode()
        if re.search("error: (no OpenCL|OpenCL has no)", said) and not os.environ.get("EDGE_REQUIRE_OPENCL"):
            pytest.skip(f"SKIPPED no OpenCL device (apt-get install pocl-opencl-icd): {said}")
        assert result.returncode == 0, said
        assert json.loads(result.stdout)["text"] == expected
    assert list((tmp_path / "gpu").glob("*.program"))


@pytest.mark.parametrize("cpu", ["cortex-a53", "cortex-a76", "max"])
@pytest.mark.parametrize("target", ["android", "jetson"])
def test_edge_run_gives_this_machines_text(target, cpu, artifact, request):
    qemu = find_qemu()
    if target == "jetson" and not (SYSROOT / "lib" / "ld-linux-aarch64.so.1").exists():
        pytest.skip(f"no glibc for 64-bit ARM in {SYSROOT} (apt-get install libc6-arm64-cross)")
    program = request.getfixturevalue(target) / "edge-run"
    for level in range(3):
        expected = edgesdk.load(artifact, level=level).generate(PROMPT, max_tokens=24)
        arguments = ["generate", artifact, "--level", level, "--prompt", PROMPT, "--max-tokens", 24, "--json"]
        result = run(qemu, "-cpu", cpu, "-L", SYSROOT, program, *arguments)
        assert result.returncode == 0, result.stderr.decode()
        report = json.loads(result.stdout)
        assert (report["level"], report["text"]) == (level, expected)


def test_the_command_writes_bundles_beside_the_artifact(artifact, android, tmp_path, monkeypatch, capsys):
    """After `android` was built once, this takes what is kept."""
    monkeypatch.setenv("EDGESDK_CACHE", str(CACHE))
    monkeypatch.delenv("ANDROID_NDK_HOME", raising=False)
    copy = shutil.copy(artifact, tmp_path / "model.edge")
    assert main(["bundle", str(copy), "--targets", "android", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written == [{"target": "android", "manifest": str(tmp_path / "android" / "manifest.json")}]
    assert main(["bundle", str(copy), "--targets", "android", "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out' / 'android'}\n"
    assert read_manifest(tmp_path / "out" / "android")["artifact"]["path"] == "../../model.edge"
