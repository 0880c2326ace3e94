"""The work directory of a build: each step's results under the hash of its inputs, so that a broken build resumes."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["WorkDirectory", "as_tensor", "fingerprint", "write_json"]


def fingerprint(*inputs: Any) -> str:
    """Twelve hex digits that change when any input (dataclass, string, number, list) does."""
    plain = [asdict(i) if is_dataclass(i) and not isinstance(i, type) else i for i in inputs]
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:12]


def write_json(path: Path, value: Any) -> None:
    """Stores a JSON value beside its place, then renames it."""
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", "utf-8")
    os.replace(temporary, path)


def as_tensor(array: NDArray[Any]) -> Tensor:
    """A tensor over an array that may be read-only; it is not to be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


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
        temporary = self.path(name + ".partial")
        whole = {key: tensor.detach().contiguous() for key, tensor in tensors.items()}
        save_file(whole, temporary, {"fields": json.dumps(fields or {})})
        os.replace(temporary, self.path(name))

    def mapped(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """A tensor that lies in a file: made once, then mapped, so that it takes no memory of its own."""
        if not self.has(name):
            self.save(name, {"tensor": make()})
        return self.load(name)[0]["tensor"]

    def zeros(self, shape: Sequence[int]) -> Tensor:
        """Float32 zeros to be written to: in a file without a name, so that the system can move them out of memory."""
        with tempfile.NamedTemporaryFile(dir=self.folder) as file:
            return torch.from_file(file.name, shared=True, size=math.prod(shape)).reshape(tuple(shape))

    def load(self, name: str, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors (those whose names begin with `prefix`) and fields of a finished result."""
        with safe_open(self.path(name), "pt") as file:
            names = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118
            return {key: file.get_tensor(key) for key in names}, json.loads(file.metadata()["fields"])
