"""The work directory of a build: each step's results under the hash of its inputs, so that a broken build resumes."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from edgesdk.errors import EdgeError

__all__ = ["WorkDirectory", "as_tensor", "fingerprint", "write_json"]

_HINT = "free some space and run the same build again: what is finished is kept"


def fingerprint(*inputs: Any) -> str:
    """Twelve hex digits that change when any input (dataclass, string, number, list) does."""
    plain = [asdict(i) if is_dataclass(i) and not isinstance(i, type) else i for i in inputs]
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:12]


def write_json(path: Path, value: Any) -> None:
    """Stores a JSON value as a whole or not at all. Raises EdgeError."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    with _placed(path) as temporary:
        temporary.write_text(text, "utf-8")


def as_tensor(array: NDArray[Any]) -> Tensor:
    """A tensor over an array that may be read-only; it is not to be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


@contextmanager
def _placed(path: Path) -> Iterator[Path]:
    """A path beside the given one to write to; what lies there in the end is renamed."""
    temporary = path.with_name(path.name + ".partial")
    try:
        yield temporary
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise EdgeError(f"could not write `{path}`: {error}", hint=_HINT) from error
    finally:
        temporary.unlink(missing_ok=True)


class WorkDirectory:
    """Files are written beside their place and renamed, so that a file that exists is whole."""

    def __init__(self, root: Path, step: str, key: str) -> None:
        self.folder = root / f"{step}-{key}"
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """Where a result lies, whether it exists or not."""
        return self.folder / name

    def has(self, name: str) -> bool:
        """True when the result was finished by an earlier run."""
        return self.path(name).exists()

    def remember(self, name: str, make: Callable[[], Any]) -> Any:
        """The JSON value of that name; it is made and stored when no earlier run did."""
        if not self.has(name):
            write_json(self.path(name), make())
        return json.loads(self.path(name).read_text("utf-8"))

    def save(self, name: str, tensors: Mapping[str, Tensor], fields: Mapping[str, Any] | None = None) -> None:
        """Stores tensors and JSON fields as one safetensors file."""
        whole = {key: tensor.detach().contiguous() for key, tensor in tensors.items()}
        with _placed(self.path(name)) as temporary:
            save_file(whole, temporary, {"fields": json.dumps(fields or {})})

    def mapped(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """A tensor that lies in a file: made once, then mapped, so that it takes no memory of its own."""
        if not self.has(name):
            self.save(name, {"tensor": make()})
        return self.load(name)[0]["tensor"]

    def zeros(self, shape: Sequence[int]) -> Tensor:
        """Float32 zeros to be written to: in a file without a name, so that the system can move them out of memory.

        Their room on the disk is taken now: later, a disk that is full would end the process.
        """
        n_elements = math.prod(shape)
        try:
            with tempfile.NamedTemporaryFile(dir=self.folder) as file:
                os.posix_fallocate(file.fileno(), 0, max(1, 4 * n_elements))
                return torch.from_file(file.name, shared=True, size=n_elements).reshape(tuple(shape))
        except OSError as error:
            raise EdgeError(f"no room for {4 * n_elements} bytes in `{self.folder}`: {error}", hint=_HINT) from error

    def load(self, name: str, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors (those whose names begin with `prefix`) and fields of a finished result."""
        with safe_open(self.path(name), "pt") as file:
            names = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118
            return {key: file.get_tensor(key) for key in names}, json.loads(file.metadata()["fields"])
