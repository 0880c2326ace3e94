"""llama.cpp as the runtime of a check: a small program of ours, compiled against a tree of it that was built before."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgesdk.errors import EdgeError
from edgesdk.formats.exports.natural import Floats

__all__ = ["VARIABLE", "find_llama_cpp", "open_llama_cpp", "require_llama_cpp"]

VARIABLE = "LLAMA_CPP"
_SOURCE = Path(__file__).with_name("llama_logits.cpp")
_HINT = f"set {VARIABLE} to a tree of llama.cpp that was built: cmake -B build && cmake --build build"


def find_llama_cpp() -> Path | None:
    """The tree that LLAMA_CPP names, when there is one with include/llama.h and libraries in build/."""
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    tree = Path(named)
    return tree if (tree / "include" / "llama.h").is_file() and _libraries(tree) else None


def require_llama_cpp() -> Path:
    """The tree; raises EdgeError where there is none."""
    tree = find_llama_cpp()
    if tree is None:
        found = os.environ.get(VARIABLE)
        what = f"`{found}` has none" if found else f"{VARIABLE} is not set"
        raise EdgeError(f"checking a GGUF file needs a built llama.cpp: {what}", hint=_HINT)
    return tree


def open_llama_cpp(path: Path, vocab_size: int, context: int) -> LlamaCpp:
    """Loads a GGUF file, on one thread. Raises EdgeError where there is no llama.cpp, or it does not compile."""
    return LlamaCpp(_program(require_llama_cpp()), path, vocab_size, context)


class LlamaCpp:
    """A running program that answers tokens with logits."""

    name = "llama.cpp"

    def __init__(self, program: Path, path: Path, vocab_size: int, context: int) -> None:
        self._vocab_size = vocab_size
        command = [str(program), str(path), str(context)]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the program)
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors)

    def step(self, tokens: Sequence[int], position: int) -> Floats:
        """See formats.exports.check.Runtime."""
        wanted, answer = 4 * self._vocab_size, b""
        try:
            if self._process.stdin is not None and self._process.stdout is not None:
                self._process.stdin.write(np.array([position, len(tokens), *tokens], np.int32).tobytes())
                self._process.stdin.flush()
                answer = self._process.stdout.read(wanted)
        except OSError:
            answer = b""
        if len(answer) != wanted:
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip().splitlines()
            raise EdgeError(f"llama.cpp did not run the file: {said[0] if said else 'it ended'}")
        return np.frombuffer(answer, np.float32)

    def close(self) -> None:
        """Ends the program."""
        self._process.communicate()
        self._errors.close()

    def __del__(self) -> None:
        if self._process.poll() is None:
            self.close()


def _libraries(tree: Path) -> list[Path]:
    """Static or shared, in the order in which a linker needs them."""
    names = ("llama", "ggml", "ggml-cpu", "ggml-base")
    found = []
    for name in names:
        files = [path for end in ("a", "so") for path in sorted((tree / "build").rglob(f"lib{name}.{end}"))]
        if not files:
            return []
        found.append(files[0])
    return found


def _program(tree: Path) -> Path:
    """Compiles the program, once for each tree and version of its source."""
    libraries = _libraries(tree)
    program = tree / "build" / "edgesdk_llama_logits"
    newest = max(path.stat().st_mtime for path in (_SOURCE, *libraries))
    if program.is_file() and program.stat().st_mtime > newest:
        return program
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise EdgeError("checking a GGUF file needs a C++ compiler", hint="install g++, or set CXX")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / program.name
        headers = [f"-I{tree / part}" for part in ("include", "ggml/include")]
        paths = sorted({f"-Wl,-rpath,{library.parent}" for library in libraries if library.suffix == ".so"})
        command = [compiler, "-O1", "-std=c++17", *headers, str(_SOURCE), "-o", str(made), *map(str, libraries)]
        command += [*paths, "-fopenmp", "-ldl", "-lpthread", "-lm"]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            lines = result.stderr.strip().splitlines()
            raise EdgeError(
                f"{_SOURCE.name} does not compile against `{tree}`: {lines[-1] if lines else ''}", hint=_HINT
            )
        try:
            shutil.copy(made, program)
        except OSError as error:
            raise EdgeError(f"could not write `{program}`: {error.strerror}") from error
    return program
