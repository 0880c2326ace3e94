"""The peer: llama.cpp's programs, found where they were built before or built from the sdist of llama-cpp-python.

    python benchmarks/peer.py        # builds it where it is missing (about ten minutes of two cores), prints its folder

The folder is $EDGESDK_PEER, or ~/.cache/edgesdk/llama.cpp-0.3.36: outside of the repository, so `make clean` keeps it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["VERSION", "Peer", "build_peer", "find_peer"]

VERSION = "0.3.36"  # of llama-cpp-python, whose sdist vendors the whole tree
_PROGRAMS = ("llama-bench", "llama-completion", "llama-cli", "llama-quantize", "llama-imatrix")
_OPTIONS = ("CURL=OFF", "OPENSSL=OFF", "BUILD_TESTS=OFF", "BUILD_EXAMPLES=OFF", "BUILD_UI=OFF")


@dataclass(frozen=True)
class Peer:
    """A tree of llama.cpp with its programs built."""

    folder: Path

    def program(self, name: str) -> Path:
        """Path of one of the programs above."""
        return self.folder / "build" / "bin" / name


def peer_folder() -> Path:
    """Where the peer is, or would be built."""
    default = Path.home() / ".cache" / "edgesdk" / f"llama.cpp-{VERSION}"
    return Path(os.environ.get("EDGESDK_PEER", default))


def find_peer() -> Peer | None:
    """The peer, or None where one of its programs is missing."""
    peer = Peer(peer_folder())
    return peer if all(os.access(peer.program(name), os.X_OK) for name in _PROGRAMS) else None


def build_peer() -> Peer:
    """Downloads and builds what is missing, for this machine and with the peer's own defaults otherwise."""
    folder = peer_folder()
    if not (folder / "CMakeLists.txt").is_file():
        _download(folder)
    configure = ["cmake", "-G", "Ninja", "-S", folder, "-B", folder / "build", "-DCMAKE_BUILD_TYPE=Release"]
    configure += ["-DGGML_NATIVE=ON", "-DBUILD_SHARED_LIBS=OFF", *(f"-DLLAMA_{option}" for option in _OPTIONS)]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(configure, check=True, env=environment, stdout=sys.stderr)
    ninja = ["nice", "-n", "10", "ninja", "-C", folder / "build", "-j", str(os.cpu_count() or 1), *_PROGRAMS]
    subprocess.run(ninja, check=True, env=environment, stdout=sys.stderr)
    return Peer(folder)


def _download(folder: Path) -> None:
    """Puts the vendored tree of the sdist into `folder`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        # Without isolation: pip asks the sdist for its metadata, and the build tools are here already.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        command += ["--no-build-isolation", "--dest", temporary, f"llama-cpp-python=={VERSION}"]
        subprocess.run(command, check=True, stdout=sys.stderr)
        (archive,) = Path(temporary).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            top = tar.getnames()[0].split("/")[0]
            members = [m for m in tar.getmembers() if m.name.startswith(f"{top}/vendor/llama.cpp/")]
            tar.extractall(temporary, members, filter="data")
        shutil.move(Path(temporary) / top / "vendor" / "llama.cpp", folder)


def main() -> None:
    """Finds or builds the peer."""
    print((find_peer() or build_peer()).folder)


if __name__ == "__main__":
    main()
