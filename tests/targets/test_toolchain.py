"""Which tools a target needs, and one clear error for each that is missing or fails. Nothing is compiled here."""

from __future__ import annotations

import platform
import shutil
import stat
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from edgesdk.errors import MissingExtraError, ToolchainError, UsageError
from edgesdk.targets import load_profile
from edgesdk.targets import native as native_module
from edgesdk.targets import toolchain as module
from edgesdk.targets.native import build_native, cache_folder
from edgesdk.targets.toolchain import find_program, find_toolchain

CMAKE = """#!{python}
import sys, pathlib
if "-B" in sys.argv:
    device = pathlib.Path(sys.argv[sys.argv.index("-B") + 1]) / "device"
    device.mkdir(parents=True)
    (device / "backends.txt").write_text("cpu opencl\\n")
if "--install" in sys.argv:
    pathlib.Path(sys.argv[sys.argv.index("--prefix") + 1]).mkdir(parents=True)
print("[1/3] Building one")
print("[3/3] Building three")
{rest}
"""


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """Nothing is taken from this machine but PATH, and no nvcc from there."""
    for name in ("ANDROID_NDK_HOME", "CXX", "EDGESDK_CACHE", "EDGE_NVCC"):
        monkeypatch.delenv(name, raising=False)
    which = shutil.which
    monkeypatch.setattr(module.shutil, "which", lambda name: None if name == "nvcc" else which(name))


@pytest.fixture
def zig(tmp_path, monkeypatch):
    return program(tmp_path, monkeypatch, "zig", "#!/bin/sh\necho 0.99.0\n")


def program(folder: Path, monkeypatch, name: str, text: str) -> Path:
    """A program on PATH, and no Python package that would be preferred."""
    (folder / "bin").mkdir(exist_ok=True)
    path = folder / "bin" / name
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    return path


def fake_cmake(folder: Path, monkeypatch, rest: str = "") -> None:
    cmake = program(folder, monkeypatch, "cmake", CMAKE.format(python=sys.executable, rest=rest))
    monkeypatch.setattr(native_module, "find_program", lambda name: str(cmake))
    monkeypatch.setenv("EDGESDK_CACHE", str(folder / "cache"))


def test_android_without_the_ndk_is_a_static_program_and_says_so(zig):
    tools = find_toolchain(load_profile("android"))
    assert tools.abi == "aarch64-linux-musl"
    assert not tools.library
    assert f"-DEDGE_ZIG={zig}" in tools.options
    assert any("zig-aarch64-musl.cmake" in option for option in tools.options)
    notes = " ".join(tools.notes)
    for part in ("adb shell", "libedge.so", "OpenCL", "ANDROID_NDK_HOME"):
        assert part in notes


def test_android_with_the_ndk_has_the_library(tmp_path, monkeypatch):
    file = tmp_path / "build" / "cmake" / "android.toolchain.cmake"
    file.parent.mkdir(parents=True)
    file.write_text("")
    (tmp_path / "source.properties").write_text("Pkg.Revision = 27.2\n")
    monkeypatch.setenv("ANDROID_NDK_HOME", str(tmp_path))
    tools = find_toolchain(load_profile("android"))
    assert (tools.abi, tools.library) == ("aarch64-linux-android28", True)
    assert f"-DCMAKE_TOOLCHAIN_FILE={file}" in tools.options
    assert {"-DANDROID_ABI=arm64-v8a", "-DANDROID_PLATFORM=android-28"} <= set(tools.options)
    assert "27.2" in tools.identity


def test_a_folder_that_is_no_ndk(tmp_path, monkeypatch):
    monkeypatch.setenv("ANDROID_NDK_HOME", str(tmp_path))
    with pytest.raises(ToolchainError, match=r"no build/cmake/android\.toolchain\.cmake") as caught:
        find_toolchain(load_profile("android"))
    assert "unset the variable" in caught.value.hint


def test_targets_with_glibc_name_their_floor(zig):
    tools = find_toolchain(load_profile("jetson"))
    assert (tools.abi, tools.library) == ("aarch64-linux-gnu.2.28", True)
    assert "glibc 2.28" in tools.notes[0]
    assert "0.99.0" in tools.identity


def test_without_zig_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="ziglang") as caught:
        find_toolchain(load_profile("raspberry-pi-5"))
    assert caught.value.hint == "pip install 'edgesdk[targets]'"


def test_a_zig_that_does_not_run(tmp_path, monkeypatch):
    program(tmp_path, monkeypatch, "zig", "#!/bin/sh\nexit 3\n")
    with pytest.raises(ToolchainError, match="zig version` failed"):
        find_toolchain(load_profile("jetson"))


def test_a_toolchain_that_does_not_exist(zig):
    with pytest.raises(UsageError, match="zig-sparc") as caught:
        find_toolchain(replace(load_profile("jetson"), toolchain="zig-sparc"))
    assert "zig-aarch64-gnu, zig-aarch64-musl" in caught.value.hint


def test_the_own_compiler_builds_for_its_own_machine_only(tmp_path, monkeypatch):
    host = replace(load_profile("linux-x86_64"), abi=f"{platform.machine()}-linux-gnu")
    program(tmp_path, monkeypatch, "my-c++", "#!/bin/sh\necho my compiler 1\n")
    monkeypatch.setenv("CXX", "my-c++")
    tools = find_toolchain(host)
    assert tools.library
    assert "my compiler 1" in tools.identity
    with pytest.raises(ToolchainError, match="compiler for sparc"):
        find_toolchain(replace(host, abi="sparc-linux-gnu"))
    monkeypatch.setenv("CXX", "no-such-c++")
    with pytest.raises(ToolchainError, match="no-such-c"):
        find_toolchain(host)


NVCC = "#!/bin/sh\necho 'Cuda compilation tools, release {}, V{}.48'\n"


def test_a_target_with_cuda_is_built_with_nvcc(tmp_path, monkeypatch, zig):
    nvcc = program(tmp_path, monkeypatch, "my-nvcc", NVCC.format("13.1", "13.1"))
    monkeypatch.setenv("EDGE_NVCC", str(nvcc))
    for target in ("jetson", "jetson-orin-agx"):
        tools = find_toolchain(load_profile(target))
        assert f"-DEDGE_NVCC={nvcc}" in tools.options
        assert "release 13.1" in tools.identity
        assert not any("CUDA" in note for note in tools.notes)
    static = replace(load_profile("jetson"), abi="aarch64-linux-musl", toolchain="zig-aarch64-musl")
    for profile in (load_profile("android"), load_profile("raspberry-pi-5"), static):
        assert not any("NVCC" in option for option in find_toolchain(profile).options)
    monkeypatch.setenv("EDGE_NVCC", "my-nvcc")
    assert f"-DEDGE_NVCC={nvcc}" in find_toolchain(load_profile("jetson")).options


def test_nvcc_of_the_python_packages(tmp_path, monkeypatch, zig):
    nvcc = tmp_path / "nvidia" / "cu13" / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(NVCC.format("13.0", "13.0"))
    nvcc.chmod(0o755)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(module, "find_spec", lambda name: find_spec(name) if name == "nvidia" else None)
    assert f"-DEDGE_NVCC={nvcc}" in find_toolchain(load_profile("jetson")).options


def test_without_nvcc_the_bundle_says_what_is_missing(tmp_path, monkeypatch, zig):
    without = find_toolchain(load_profile("jetson"))
    assert not any("NVCC" in option for option in without.options)
    (note,) = (note for note in without.notes if "CUDA" in note)
    for part in ("no nvcc was found", "EDGE_NVCC", "pip install 'edgesdk[cuda]'", "bundle again"):
        assert part in note
    assert not any("CUDA" in note for note in find_toolchain(load_profile("raspberry-pi-5")).notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (NVCC.format("12.9", "12.9"), "is release 12.9, 13.0 or later is needed"),
        ("#!/bin/sh\necho hello\n", "is no nvcc"),
        ("#!/bin/sh\nexit 3\n", "--version` failed"),
        (None, "which is no program"),
    ],
)
def test_an_nvcc_that_cannot_be_used(text, message, tmp_path, monkeypatch, zig):
    """One that was asked for is an error, one that happens to be there is a note."""
    nvcc = program(tmp_path, monkeypatch, "my-nvcc", text or "")
    monkeypatch.setenv("EDGE_NVCC", str(nvcc) if text else "no-such-nvcc")
    with pytest.raises(ToolchainError, match=message) as caught:
        find_toolchain(load_profile("jetson"))
    assert "EDGE_NVCC=none" in caught.value.hint or "install it again" in caught.value.hint
    monkeypatch.delenv("EDGE_NVCC")
    monkeypatch.setattr(module, "_pypi_nvcc", lambda: str(nvcc) if text else None)
    tools = find_toolchain(load_profile("jetson"))
    assert any("CUDA is left out" in note for note in tools.notes)
    assert not any("NVCC" in option for option in tools.options)


def test_cuda_can_be_left_out(tmp_path, monkeypatch, zig):
    monkeypatch.setattr(
        module, "_pypi_nvcc", lambda: str(program(tmp_path, monkeypatch, "nvcc", NVCC.format("13.0", "13.0")))
    )
    monkeypatch.setenv("EDGE_NVCC", "none")
    tools = find_toolchain(load_profile("jetson"))
    assert "CUDA is left out, as EDGE_NVCC says." in tools.notes
    assert not any("NVCC" in option for option in tools.options)


def test_a_missing_program_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(MissingExtraError, match="`ninja`"):
        find_program("ninja")


def test_a_build_is_kept_until_the_sources_or_the_compiler_change(tmp_path, monkeypatch, zig):
    fake_cmake(tmp_path, monkeypatch)
    steps = []
    first = build_native(load_profile("jetson"), lambda done, total: steps.append((done, total)))
    assert first.folder.is_dir()
    assert first.folder.parents[1] == tmp_path / "cache" / "native"
    assert first.backends == ("cpu", "opencl")
    assert steps[:2] == [(1, 3), (3, 3)]
    n_steps = len(steps)
    again = build_native(load_profile("raspberry-pi-5"))
    assert (again.folder, again.backends) == (first.folder, first.backends)  # the same toolchain
    assert len(steps) == n_steps
    assert build_native(load_profile("android")).folder != first.folder
    zig.write_text("#!/bin/sh\necho 1.0.0\n")
    assert build_native(load_profile("jetson")).folder != first.folder
    assert not list((tmp_path / "cache" / "native").glob("build-*"))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("x.cpp:3:1: error: no such thing", r"x\.cpp:3:1: error: no such thing"),
        ("CMake Error at a.cmake:1 (message):\\n\\n  json.hpp was not found\\n", r"failed: json\.hpp was not found"),
        ("Killed", "failed: Killed"),
    ],
    ids=["compiler", "cmake", "other"],
)
def test_a_failed_build_is_one_error_with_the_whole_log(output, message, tmp_path, monkeypatch, zig):
    fake_cmake(tmp_path, monkeypatch, f'print("{output}"); sys.exit(1)')
    with pytest.raises(ToolchainError, match=message) as caught:
        build_native(load_profile("jetson"))
    log = Path(caught.value.hint.removeprefix("the whole output is in "))
    assert "[3/3] Building three" in log.read_text("utf-8")
    assert [path.suffix for path in (tmp_path / "cache" / "native").iterdir()] == [".log"]


def test_a_cache_that_cannot_be_made(tmp_path, monkeypatch, zig):
    fake_cmake(tmp_path, monkeypatch)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGESDK_CACHE", str(tmp_path / "file"))
    with pytest.raises(ToolchainError, match="cannot be made") as caught:
        build_native(load_profile("jetson"))
    assert "EDGESDK_CACHE" in caught.value.hint


def test_where_builds_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "edgesdk"
    monkeypatch.setenv("EDGESDK_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
