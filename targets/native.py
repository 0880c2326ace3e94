"""Builds the engine for a target with CMake, once per source state: the result is kept in a cache folder."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from edgesdk.errors import ToolchainError
from edgesdk.targets import toolchain
from edgesdk.targets.profile import Profile
from edgesdk.targets.toolchain import Toolchain, find_program, find_toolchain, native_sources

__all__ = ["NativeBuild", "build_native", "cache_folder"]

Progress = Callable[[int, int], None]  # (done, total) steps of a build

# edge-run lies at the top of the folder. Other compilers than those of the tests may have other warnings.
_LAYOUT = ("-DCMAKE_INSTALL_BINDIR=.", "-DCMAKE_INSTALL_LIBDIR=lib", "-DEDGE_WERROR=OFF")


@dataclass(frozen=True)
class NativeBuild:
    """`folder` holds edge-run, include/edge.h and, where the library can be made, lib/ and java/; do not change it.

    backends: what can compute in this build, as its configuration found
    """

    folder: Path
    toolchain: Toolchain
    backends: tuple[str, ...]


def cache_folder() -> Path:
    """Where builds are kept: EDGESDK_CACHE, else `edgesdk` in XDG_CACHE_HOME or ~/.cache. It may be deleted."""
    given = os.environ.get("EDGESDK_CACHE", "")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME", "") or Path.home() / ".cache") / "edgesdk"


def build_native(profile: Profile, progress: Progress | None = None) -> NativeBuild:
    """The engine for a target, from the cache or built now: one to three minutes on two cores.

    Raises MissingExtraError for a missing tool, UsageError for a profile that cannot be built, and ToolchainError with
    the compiler's first error when the build fails.
    """
    tools = find_toolchain(profile)
    options = [*tools.options, *_LAYOUT, f"-DEDGE_LIBRARY={'ON' if tools.library else 'OFF'}", *_json_option()]
    sources = native_sources()
    key = _key(sources, tools.identity)
    cache = cache_folder() / "native"
    kept = cache / f"{tools.abi}-{key}"
    if not kept.is_dir():
        cmake, ninja = find_program("cmake"), find_program("ninja")
        _make_folder(cache)
        with tempfile.TemporaryDirectory(prefix="build-", dir=cache) as name:
            work, log = Path(name), cache / f"{kept.name}.log"
            build = _Build(profile.name, log, work, progress)
            folders = ("-S", str(toolchain.NATIVE), "-B", str(work / "build"))
            build.run([cmake, *folders, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}", *options])
            build.run([cmake, "--build", str(work / "build")])
            build.run([cmake, "--install", str(work / "build"), "--prefix", str(work / "kept" / "tree")])
            shutil.copy(work / "build" / "device" / "backends.txt", work / "kept")
            _keep(work / "kept", kept)
    return NativeBuild(kept / "tree", tools, tuple((kept / "backends.txt").read_text("utf-8").split()))


class _Build:
    """Runs the commands of one build; all their output goes to the log."""

    def __init__(self, target: str, log: Path, work: Path, progress: Progress | None) -> None:
        self._target = target
        self._log = log
        self._work = work
        self._progress = progress
        log.unlink(missing_ok=True)

    def run(self, command: Sequence[str]) -> None:
        zig_cache = {"ZIG_GLOBAL_CACHE_DIR": str(cache_folder() / "zig")}  # its C++ library takes minutes
        environment = {**zig_cache, **os.environ, "NINJA_STATUS": "[%f/%t] "}
        lines = []
        with (
            open(self._log, "a", encoding="utf-8") as log,
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=environment,
                cwd=self._work,
            ) as process,
        ):
            for line in process.stdout or ():
                log.write(line)
                lines.append(line.strip())
                step = re.match(r"\[(\d+)/(\d+)\]", line)
                if step and self._progress is not None:
                    self._progress(int(step[1]), int(step[2]))
        if process.returncode != 0:
            raise ToolchainError(
                f"building the engine for `{self._target}` failed: {_first_error(lines)}",
                hint=f"the whole output is in {self._log}",
            )


def _first_error(lines: Sequence[str]) -> str:
    for n, line in enumerate(lines):
        if line.startswith("CMake Error"):
            return next((following for following in lines[n + 1 :] if following), line)
        if re.search(r"\berror:", line):
            return line
    return next((line for line in reversed(lines) if line), "it printed nothing")


def _key(sources: Sequence[Path], identity: str) -> str:
    digest = hashlib.sha256(identity.encode())
    for path in sources:
        content = (toolchain.NATIVE / path).read_bytes()
        digest.update(f"{path.as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def _json_option() -> list[str]:
    """The headers of nlohmann-json, where its package is installed; else CMake looks for them."""
    spec = find_spec("nlohmann_json")
    if spec is None or spec.origin is None:
        return []
    return [f"-DNLOHMANN_JSON_INCLUDE={Path(spec.origin).parent / 'include'}"]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ToolchainError(
            f"the cache folder `{folder}` cannot be made: {error.strerror}", hint="name another one with EDGESDK_CACHE"
        ) from error


def _keep(finished: Path, kept: Path) -> None:
    """Moves a finished build to its place at once; another process may have been faster."""
    try:
        finished.rename(kept)
    except OSError:
        if not kept.is_dir():
            raise
        shutil.rmtree(finished)
