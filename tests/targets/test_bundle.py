"""What a bundle holds, what its manifest says, and what happens when it cannot be made."""

from __future__ import annotations

import hashlib
import json
import stat
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from edgesdk.errors import ToolchainError, UsageError
from edgesdk.targets import bundle as module
from edgesdk.targets import load_profile
from edgesdk.targets.bundle import BundledArtifact, write_bundles
from edgesdk.targets.deploy import read_bundle
from edgesdk.targets.manifest import MANIFEST_SCHEMA, BundledLevel
from edgesdk.targets.native import NativeBuild
from edgesdk.targets.toolchain import Toolchain

LEVELS = tuple(
    BundledLevel(
        level=n,
        rate=0.5 - n / 4,
        file_bytes=100 + n,
        mapped_bytes=50 + n,
        total_bytes=10**9 * (n + 1),
        token_bytes=10**8 * (n + 1),
    )
    for n in range(3)
)


@pytest.fixture
def artifact(tmp_path):
    path = tmp_path / "out" / "model.edge"
    path.parent.mkdir()
    path.write_bytes(bytes(range(102)))
    return BundledArtifact(path, LEVELS)


@pytest.fixture
def built(tmp_path, monkeypatch):
    """Stands in for the compiler: a finished build with two files."""
    folder = tmp_path / "native"
    (folder / "include").mkdir(parents=True)
    (folder / "edge-run").write_bytes(b"\x7fELF")
    (folder / "edge-run").chmod(0o755)
    (folder / "include" / "edge.h").write_text("/* */")
    toolchain = Toolchain("aarch64-linux-made", (), "made", True, ("Made by a test.",))
    backends = ("cpu", "opencl")
    asked = []

    def build_native(profile, progress=None):
        asked.append(profile.name)
        progress(1, 2)
        return NativeBuild(folder, toolchain, backends)

    monkeypatch.setattr(module, "build_native", build_native)
    return asked


def profile(name="android", **changes):
    return replace(load_profile(name), **changes)


def test_the_manifest_says_what_is_there(artifact, built):
    out = artifact.path.parent
    steps = []
    profiles = [profile(memory_bytes=4 * 10**9, memory_share=0.5, memory_gb_per_s=24.0), profile("jetson-orin-agx")]
    manifests = write_bundles(artifact, profiles, out, lambda *step: steps.append(step))
    assert manifests == [out / "android" / "manifest.json", out / "jetson-orin-agx" / "manifest.json"]
    assert built == ["android", "jetson-orin-agx"]
    assert steps[:2] == [("bundle android", 1, 2), ("bundle android", 1, 1)]
    manifest = json.loads(manifests[0].read_text("utf-8"))
    jsonschema.validate(manifest, MANIFEST_SCHEMA)
    assert (manifest["target"], manifest["abi"]) == ("android", "aarch64-linux-made")
    assert (manifest["default_budget_bytes"], manifest["default_level"]) == (2 * 10**9, 1)
    assert manifest["limits"] == {"memory_gb_per_s": 24.0, "tokens_per_s": [240.0, 120.0, 80.0]}
    assert manifest["artifact"]["path"] == "../model.edge"
    assert manifest["artifact"]["sha256"] == hashlib.sha256(artifact.path.read_bytes()).hexdigest()
    assert manifest["artifact"]["file_bytes"] == 102
    assert [level["level"] for level in manifest["artifact"]["levels"]] == [0, 1, 2]
    assert manifest["notes"] == [profiles[0].notes, "Made by a test."]
    assert [file["path"] for file in manifest["files"]] == ["edge-run", "include/edge.h"]
    for file in manifest["files"]:
        content = (out / "android" / file["path"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file["bytes"], file["sha256"])
    assert stat.S_IMODE((out / "android" / "edge-run").stat().st_mode) == 0o755
    second = json.loads(manifests[1].read_text("utf-8"))
    assert second["default_level"] == 2
    # what the build has and the target may have: this build has no CUDA, a Jetson no OpenCL
    assert (manifest["backends"], second["backends"]) == (["cpu", "opencl"], ["cpu"])


def test_what_a_profile_knows_of_speeds_is_said_of_the_backends_that_are_there(artifact, built):
    known = profile("raspberry-pi-5", prefill_backend="opencl", decode_backend="cpu")
    half = profile("jetson", prefill_backend="cpu", decode_backend="cuda")  # this build has no CUDA
    found = []
    for one in (known, half, profile("jetson-orin-agx")):
        (path,) = write_bundles(artifact, [one], artifact.path.parent)
        manifest = json.loads(path.read_text("utf-8"))
        jsonschema.validate(manifest, MANIFEST_SCHEMA)
        found.append((manifest.get("prefill_backend"), manifest.get("decode_backend")))
        bundle = read_bundle(path.parent)
        assert (bundle.prefill_backend or None, bundle.decode_backend or None) == found[-1]
    assert found == [("opencl", "cpu"), ("cpu", None), (None, None)]


def test_the_artifact_is_named_by_its_way_from_the_bundle(artifact, built, tmp_path):
    (path,) = write_bundles(artifact, [profile()], tmp_path / "elsewhere" / "deep")
    named = json.loads(path.read_text("utf-8"))["artifact"]["path"]
    assert named == "../../../out/model.edge"
    assert (path.parent / named).resolve() == artifact.path.resolve()


def test_an_older_bundle_is_replaced_and_nothing_else_is(artifact, built):
    out = artifact.path.parent
    write_bundles(artifact, [profile()], out)
    (out / "android" / "left.over").write_text("")
    write_bundles(artifact, [profile()], out)
    assert sorted(path.name for path in (out / "android").iterdir()) == ["edge-run", "include", "manifest.json"]
    assert sorted(path.name for path in out.iterdir()) == ["android", "model.edge"]
    (out / "raspberry-pi-5").mkdir()
    (out / "raspberry-pi-5" / "precious").write_text("")
    with pytest.raises(UsageError, match="is no bundle"):
        write_bundles(artifact, [profile("raspberry-pi-5")], out)
    assert (out / "raspberry-pi-5" / "precious").exists()


def test_a_failed_build_leaves_the_older_bundle(artifact, built, monkeypatch):
    (path,) = write_bundles(artifact, [profile()], artifact.path.parent)
    before = path.read_bytes()

    def fail(*_):
        raise ToolchainError("no compiler", hint="buy one")

    monkeypatch.setattr(module, "build_native", fail)
    with pytest.raises(ToolchainError):
        write_bundles(artifact, [profile()], artifact.path.parent)
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in artifact.path.parent.iterdir()) == ["android", "model.edge"]


def test_a_target_without_memory_for_any_level(artifact, built):
    with pytest.raises(UsageError, match="grants 500000000 bytes") as caught:
        write_bundles(artifact, [profile(), profile("jetson", memory_bytes=10**9)], artifact.path.parent)
    assert "1000000000" in caught.value.message
    assert "--max-rate" in caught.value.hint
    assert built == []
    assert list(artifact.path.parent.iterdir()) == [artifact.path]


def test_the_package_carries_what_the_engine_is_built_from():
    from edgesdk.targets.toolchain import NATIVE, native_sources

    sources = {path.as_posix() for path in native_sources()}
    root = Path(__file__).parents[2]
    wanted = {
        path.relative_to(root).as_posix()
        for folder in ("cmake", "kernels", "device")
        for path in (root / folder).rglob("*")
        if path.suffix in {".c", ".cl", ".cmake", ".cpp", ".cu", ".h", ".in", ".inc", ".java", ".map", ".txt"}
    } | {"CMakeLists.txt"}
    assert sources == wanted
    assert all((NATIVE / path).read_bytes() == (root / path).read_bytes() for path in sources)
