"""What it takes to build the engine for a target: CMake, ninja, a compiler, and where each is found."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from edgesdk.errors import MissingExtraError, ToolchainError, UsageError
from edgesdk.targets.profile import Profile

__all__ = ["Toolchain", "find_program", "find_toolchain", "native_sources"]

NATIVE = Path(__file__).parents[1] / "native"
_SUFFIXES = {".c", ".cl", ".cmake", ".cpp", ".cu", ".h", ".in", ".inc", ".java", ".map", ".txt"}
_EXTRA_HINT = "pip install 'edgesdk[targets]'"
_CUDA_FLOOR = (13, 0)  # the first nvcc that knows all GPUs of device/kernel_fatbin.cmake


@dataclass(frozen=True)
class Toolchain:
    """How the engine is built for a target.

    abi: the triple of what it makes; options: what CMake is called with; identity: the compiler with its version and
    whatever else makes one build differ from another; library: whether libedge is built, and not edge-run alone;
    notes: what a user of the bundle should know.
    """

    abi: str
    options: tuple[str, ...]
    identity: str
    library: bool
    notes: tuple[str, ...]


def native_sources() -> list[Path]:
    """The files that the engine is built from, relative to NATIVE, sorted: the package carries them."""
    found = [NATIVE / "CMakeLists.txt"]
    for folder in ("cmake", "kernels", "device"):
        found += [path for path in (NATIVE / folder).rglob("*") if path.suffix in _SUFFIXES and path.is_file()]
    if not found[0].is_file():
        raise ToolchainError(
            f"the engine's sources are not in `{NATIVE}`", hint="install edgesdk again from a wheel or a checkout"
        )
    return sorted(path.relative_to(NATIVE) for path in found)


def find_program(name: str) -> str:
    """A program of this Python environment, or on PATH. Raises MissingExtraError."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
    if found is None:
        raise MissingExtraError(f"building for targets needs `{name}`, which is not installed", hint=_EXTRA_HINT)
    return found


def find_toolchain(profile: Profile) -> Toolchain:
    """The toolchain of a profile; nothing is built yet. Raises MissingExtraError, ToolchainError and UsageError.

    Android: the NDK where ANDROID_NDK_HOME names one, else the profile's own toolchain. For a target that may have
    CUDA, also an nvcc: the one that EDGE_NVCC names, of the PyPI packages, or on PATH; without it, a note says so.
    """
    tools = _compiler(profile)
    if "cuda" not in profile.backends or tools.abi.endswith("-musl"):
        return tools
    nvcc, version, missing = _find_nvcc()
    if missing:
        return replace(tools, notes=(*tools.notes, missing))
    return replace(tools, options=(*tools.options, f"-DEDGE_NVCC={nvcc}"), identity=f"{tools.identity} nvcc {version}")


def _compiler(profile: Profile) -> Toolchain:
    ndk = os.environ.get("ANDROID_NDK_HOME", "")
    if profile.android_abi and ndk:
        return _ndk_toolchain(profile, Path(ndk))
    if profile.toolchain:
        return _zig_toolchain(profile)
    return _own_toolchain(profile)


def _find_nvcc() -> tuple[str, str, str]:
    """(program, its version, ""), or what to say where there is none that can be used.

    Raises ToolchainError for one that EDGE_NVCC names and that cannot; `none` there asks for bundles without CUDA.
    """
    floor = ".".join(map(str, _CUDA_FLOOR))
    given = os.environ.get("EDGE_NVCC", "")
    if given == "none":
        return "", "", "CUDA is left out, as EDGE_NVCC says."
    hint = f"EDGE_NVCC names nvcc {floor} or later; `pip install 'edgesdk[cuda]'` brings one"
    nvcc = shutil.which(given) if given else _pypi_nvcc() or shutil.which("nvcc")
    if nvcc is None:
        found = f"EDGE_NVCC is `{given}`, which is no program" if given else "no nvcc was found"
    else:
        try:
            told = _output(nvcc, "--version")
        except ToolchainError:
            if given:
                raise
            told = ""
        version = re.search(r"release (\d+)\.(\d+)", told)
        if version and (int(version[1]), int(version[2])) >= _CUDA_FLOOR:
            return str(Path(nvcc).absolute()), version[0], ""
        found = f"`{nvcc}` is {version[0] if version else 'no nvcc'}, {floor} or later is needed"
    if given:
        raise ToolchainError(found, hint=f"{hint}; `EDGE_NVCC=none` leaves CUDA out")
    return "", "", f"CUDA is left out: {found}. {hint}; then bundle again."


def _pypi_nvcc() -> str | None:
    """The nvcc of the package nvidia-cuda-nvcc, with the others of the extra `cuda` in the same folder."""
    spec = find_spec("nvidia")
    for place in (spec.submodule_search_locations if spec is not None else None) or ():
        for program in sorted(Path(place).glob("cu*/bin/nvcc"), reverse=True):
            return str(program)
    return None


def _ndk_toolchain(profile: Profile, ndk: Path) -> Toolchain:
    file = ndk / "build" / "cmake" / "android.toolchain.cmake"
    if not file.is_file():
        raise ToolchainError(
            f"ANDROID_NDK_HOME is `{ndk}`, where there is no build/cmake/android.toolchain.cmake",
            hint="name the folder of one NDK (such as ~/Android/Sdk/ndk/27.2.12479018), or unset the variable for a "
            "bundle with `edge-run` alone",
        )
    properties = ndk / "source.properties"
    revision = properties.read_text("utf-8").strip() if properties.is_file() else ""
    options = (
        f"-DCMAKE_TOOLCHAIN_FILE={file}",
        f"-DANDROID_ABI={profile.android_abi}",
        f"-DANDROID_PLATFORM=android-{profile.android_api}",
        "-DANDROID_STL=c++_static",
        "-DCMAKE_SHARED_LINKER_FLAGS=-s -Wl,-z,max-page-size=16384",
        "-DCMAKE_EXE_LINKER_FLAGS=-s",
    )
    note = f"Built with the Android NDK for {profile.android_abi} from API level {profile.android_api} on."
    abi = f"{profile.abi.split('-')[0]}-linux-android{profile.android_api}"
    return Toolchain(abi, options, f"ndk {revision} {options[1:]}", True, (note,))


def _zig_toolchain(profile: Profile) -> Toolchain:
    file = NATIVE / "cmake" / f"{profile.toolchain}.cmake"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in file.parent.glob("zig-*.cmake")))
        raise UsageError(
            f"target `{profile.name}` names the toolchain `{profile.toolchain}`, which does not exist",
            hint=f"`toolchain` is one of {known}, or empty for this machine's own compiler",
        )
    zig = _zig()
    options = (f"-DCMAKE_TOOLCHAIN_FILE={file}", f"-DEDGE_ZIG={zig}")
    library = not profile.abi.endswith("-musl")
    identity = f"zig {_version(zig, 'version')} {profile.toolchain}"
    return Toolchain(profile.abi, options, identity, library, _zig_notes(profile))


def _zig_notes(profile: Profile) -> tuple[str, ...]:
    if profile.android_abi:
        return (
            "Without the Android NDK this bundle is a static `edge-run` for `adb shell`, on the CPU alone.",
            "`libedge.so` for apps, and a GPU through OpenCL (a vendor library of Android's own libc), need the NDK: "
            "set ANDROID_NDK_HOME and bundle again; `libedge.so` is then built. OpenCL has not run on a phone yet.",
        )
    if profile.abi.endswith("-musl"):
        return (
            "A static `edge-run`, on the CPU alone: it cannot load a GPU's driver. Take a target with glibc for that, "
            "and for programs that link the engine.",
        )
    _, _, glibc = profile.abi.partition("-gnu.")
    return (f"For glibc {glibc} and later; libc++ is inside `libedge.so`.",) if glibc else ()


def _own_toolchain(profile: Profile) -> Toolchain:
    machine, wanted = platform.machine(), profile.abi.split("-")[0]
    if machine != wanted:
        raise ToolchainError(
            f"target `{profile.name}` is built with the machine's own compiler for {wanted}, this machine is {machine}",
            hint=f"bundle it on a machine with {wanted}, or name a `toolchain` in the profile",
        )
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        raise ToolchainError(
            f"no C++ compiler: there is no `{compiler}`", hint="install g++ 12 or later, or name a compiler with CXX"
        )
    # libedge.so shares the unwinder with its user's program: else what a callback throws could not be caught in it.
    options = (
        f"-DCMAKE_CXX_COMPILER={compiler}",
        "-DCMAKE_SHARED_LINKER_FLAGS=-s -static-libstdc++",
        "-DCMAKE_EXE_LINKER_FLAGS=-s -static-libstdc++ -static-libgcc",
    )
    name, libc = platform.libc_ver()
    note = f"Built with this machine's compiler: it needs {name} {libc} or later." if libc else "Built on this machine."
    return Toolchain(profile.abi, options, f"{_version(compiler, '--version')} {options}", True, (note,))


def _zig() -> str:
    spec = find_spec("ziglang")
    if spec is not None and spec.origin is not None:
        return str(Path(spec.origin).parent / "zig")
    found = shutil.which("zig")
    if found is None:
        raise MissingExtraError(
            "cross-building needs zig (the package `ziglang`), which is not installed", hint=_EXTRA_HINT
        )
    return found


def _version(program: str, argument: str) -> str:
    return next(iter(_output(program, argument).splitlines()), "")


def _output(program: str, argument: str) -> str:
    try:
        result = subprocess.run([program, argument], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise ToolchainError(
            f"`{program} {argument}` failed: {error}", hint="install it again, or name another compiler"
        ) from error
    return result.stdout
