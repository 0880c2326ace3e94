"""Every profile loads, says what its file says, and names things that exist."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgesdk.errors import UsageError
from edgesdk.targets import load_profile, load_profiles, profile_names
from edgesdk.targets import profile as module

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROFILES = sorted((ROOT / "targets" / "profiles").glob("*.toml"))
ISA_NAMES = {"avx2", "avx512vnni", "neon", "dotprod", "i8mm"}
BACKENDS = {"cpu", "opencl", "cuda"}


def test_names_are_the_files():
    assert profile_names() == [path.stem for path in PROFILES]
    wanted = ["android", "jetson-orin-agx", "jetson-orin-nano", "linux-aarch64", "linux-x86_64", "raspberry-pi-5"]
    assert set(wanted) <= set(profile_names())


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_profile_is_sound(path):
    profile = load_profile(path.stem)
    for key, value in tomllib.loads(path.read_text("utf-8")).items():
        assert getattr(profile, key) == (tuple(value) if isinstance(value, list) else value)
    assert set(profile.isa_floor) <= ISA_NAMES
    assert profile.backends
    assert set(profile.backends) <= BACKENDS
    assert 2**30 <= profile.memory_bytes <= 2**38
    assert 1 <= profile.memory_gb_per_s <= 1000
    assert 0.1 <= profile.memory_share <= 0.9
    assert bool(profile.android_abi) == bool(profile.android_api)
    assert profile.abi.split("-")[0] in {"aarch64", "x86_64"}
    assert not profile.toolchain or (ROOT / "cmake" / f"{profile.toolchain}.cmake").is_file()


def test_aliases_are_unique_and_found():
    names = [name for stem in profile_names() for name in (stem, *load_profile(stem).aliases)]
    assert len(names) == len(set(names))
    assert load_profile("jetson").name == "jetson-orin-nano"


def test_unknown_target_lists_the_known_ones():
    with pytest.raises(UsageError, match="toaster") as caught:
        load_profile("toaster")
    assert "raspberry-pi-5" in caught.value.hint


def test_every_mistake_of_a_profile_is_reported_at_once(tmp_path, monkeypatch):
    text = PROFILES[0].read_text("utf-8").replace('title = "', 'titel = "').replace("backends = [", "backends = 3 # [")
    (tmp_path / "broken.toml").write_text(text, "utf-8")
    monkeypatch.setattr(module, "_FOLDER", tmp_path)
    with pytest.raises(UsageError) as caught:
        load_profile("broken")
    for part in ("broken.toml", "`titel` is unknown", "`title` is missing", "`backends` is 3, expected a list"):
        assert part in caught.value.message


def test_a_profile_of_ones_own_by_its_path(tmp_path, monkeypatch):
    text = (ROOT / "targets" / "profiles" / "raspberry-pi-5.toml").read_text("utf-8")
    path = tmp_path / "my-board.toml"
    path.write_text(text.replace("memory_gb_per_s = 17.1", "memory_gb_per_s = 17\nmemory_share = 0.25"), "utf-8")
    profile = load_profile(str(path))
    assert (profile.name, profile.memory_share, profile.memory_gb_per_s) == ("my-board", 0.25, 17)
    monkeypatch.chdir(tmp_path)
    assert load_profile("my-board.toml") == load_profile("./my-board.toml") == profile
    with pytest.raises(UsageError, match="target `my-board` is unknown") as caught:
        load_profile("my-board")
    assert caught.value.hint.endswith("./my-board.toml")
    with pytest.raises(UsageError, match=r"my-other\.toml"):
        load_profile("my-other.toml")
    path.write_text("title = ", "utf-8")
    with pytest.raises(UsageError, match=r"my-board\.toml"):
        load_profile(str(path))


@pytest.mark.parametrize(
    ("found", "given"),
    [
        ("memory_bytes = 8_589_934_592", "memory_bytes = 0"),
        ("memory_gb_per_s = 17.1", "memory_gb_per_s = nan"),
        ('backends = ["cpu", "opencl"]', "backends = []"),
        ('backends = ["cpu", "opencl"]', 'backends = ["opencl"]'),
        ('backends = ["cpu", "opencl"]', 'backends = ["cpu", "vulkan"]'),
        ('toolchain = "zig-aarch64-gnu"', 'toolchain = "zig-aarch64-gnu"\nmemory_share = 1.5'),
        ('toolchain = "zig-aarch64-gnu"', 'toolchain = "zig-aarch64-gnu"\nprefill_backend = "cuda"'),
        ('toolchain = "zig-aarch64-gnu"', 'toolchain = "zig-aarch64-gnu"\ndecode_backend = "gpu"'),
        ('toolchain = "zig-aarch64-gnu"', 'toolchain = "zig-aarch64-gnu"\nname = "other"'),
    ],
)
def test_figures_that_cannot_be(found, given, tmp_path):
    text = (ROOT / "targets" / "profiles" / "raspberry-pi-5.toml").read_text("utf-8")
    assert found in text
    (tmp_path / "x.toml").write_text(text.replace(found, given), "utf-8")
    with pytest.raises(UsageError, match=f"`{given.splitlines()[-1].split()[0]}` is"):
        load_profile(str(tmp_path / "x.toml"))


def test_lists_of_targets():
    assert [profile.name for profile in load_profiles("android, jetson")] == ["android", "jetson-orin-nano"]
    for given, message in [("", "no target"), (" , ", "no target"), ("jetson,jetson-orin-nano", "given twice")]:
        with pytest.raises(UsageError, match=message):
            load_profiles(given)
