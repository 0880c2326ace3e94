"""Bundles that are really built: what they hold, and that 64-bit ARM ones give this machine's text under qemu."""

from __future__ import annotations

import json
import os
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
    assert (manifest["abi"], manifest["backends"], manifest["default_level"]) == ("aarch64-linux-musl", ["cpu"], 2)
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
        command = [qemu, "-cpu", cpu, "-L", SYSROOT, program, *arguments]
        environment = {name: value for name, value in os.environ.items() if name != "EDGE_ISA"}
        result = subprocess.run([str(part) for part in command], capture_output=True, timeout=300, env=environment)
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
