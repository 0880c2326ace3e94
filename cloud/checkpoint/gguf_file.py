"""The structure of a GGUF file: metadata, and where its tensors are (source: the GGUF specification of ggml).

Files come from the internet, so every length is compared with what is left of the file before anything is made of it;
the reader of the `gguf` package trusts them, and counts to 2^64 where a file asks for it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType
from gguf.constants import GGML_QUANT_SIZES
from numpy.typing import NDArray

from edgesdk.cloud.untrusted import MAX_TOKENS, malformed
from edgesdk.errors import ModelError

__all__ = ["GgufFile", "GgufTensor", "read_gguf"]

_VERSIONS = (2, 3)
_ALIGNMENT = 32  # where `general.alignment` does not say
_MAX_ITEMS = MAX_TOKENS  # of an array, and keys and tensors of a file: far above any
_MAX_DEPTH = 4  # of arrays in arrays
_MAX_DIMENSIONS = 8
_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {  # value type -> NumPy type
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    _BOOL: "u1",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_FLOATS = {
    GGMLQuantizationType.F16: np.float16,
    GGMLQuantizationType.F32: np.float32,
    GGMLQuantizationType.F64: np.float64,
}


@dataclass(frozen=True)
class GgufTensor:
    """One tensor. shape: rows first, as NumPy has it; data: floats of that shape, or rows of packed bytes."""

    name: str
    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    data: NDArray[Any] = field(repr=False)


@dataclass(frozen=True)
class GgufFile:
    """What a GGUF file holds."""

    metadata: Mapping[str, Any]
    tensors: tuple[GgufTensor, ...]


def read_gguf(path: Path) -> GgufFile:
    """Reads the header; tensors are views of the mapped file. Raises ModelError for a file that is not a whole GGUF."""
    try:
        with malformed("its header"):
            return _read(path)
    except (ModelError, OSError) as error:
        size = path.stat().st_size if path.is_file() else 0
        raise ModelError(
            f"{path} ({size} bytes) is not a whole GGUF file: {getattr(error, 'message', error)}",
            hint="download it again; older GGML files and pickled weights (.bin, .pt) are not read",
        ) from error


def _read(path: Path) -> GgufFile:
    cursor = _Cursor(np.memmap(path, np.uint8, "r"))
    if cursor.take(4) != b"GGUF":
        raise ModelError("it does not begin with GGUF")
    version = cursor.number("<I")
    if version & 0xFFFF == 0:
        raise ModelError("it is of the other byte order (convert it with gguf-convert-endian)")
    if version not in _VERSIONS:
        raise ModelError(f"it is of version {version}, known are {_VERSIONS}")
    n_tensors, n_keys = cursor.count(), cursor.count()
    metadata: dict[str, Any] = {}
    for _ in range(n_keys):
        key = cursor.string()
        if key in metadata:
            raise ModelError(f"it has the key `{key[:80]}` twice")
        metadata[key] = cursor.value(cursor.number("<I"))
    entries = [_entry(cursor) for _ in range(n_tensors)]
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise ModelError(f"general.alignment is {alignment!r}, expected a power of two")
    begin = -(-cursor.position // alignment) * alignment
    tensors = tuple(_tensor(cursor.data, begin, *entry) for entry in entries)
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise ModelError("it has two tensors of one name")
    return GgufFile(metadata, tensors)


class _Cursor:
    """Reads a file from its front, never behind its end."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self.data = data
        self.position = 0

    def take(self, n_bytes: int) -> bytes:
        if n_bytes > len(self.data) - self.position:
            raise ModelError(f"it ends inside of its header, at byte {self.position}")
        self.position += n_bytes
        return self.data[self.position - n_bytes : self.position].tobytes()

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def count(self) -> int:
        """How many entries follow; each has a byte at least."""
        n = self.number("<Q")
        if n > min(len(self.data) - self.position, _MAX_ITEMS):
            raise ModelError(f"it says that {n} entries follow, and has {len(self.data) - self.position} bytes left")
        return n

    def string(self) -> str:
        return self.take(self.number("<Q")).decode()

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.scalars(kind, 1)[0]
        item, n = self.number("<I"), self.count()
        if item in _SCALARS:
            return self.scalars(item, n)
        if depth == _MAX_DEPTH:
            raise ModelError("it has arrays in arrays in arrays")
        return [self.value(item, depth + 1) for _ in range(n)]

    def scalars(self, kind: int, n: int) -> list[Any]:
        if kind not in _SCALARS:
            raise ModelError(f"it has a value of the unknown type {kind}")
        form = np.dtype(_SCALARS[kind])
        values = np.frombuffer(self.take(n * form.itemsize), form)
        return (values != 0).tolist() if kind == _BOOL else values.tolist()


def _entry(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape with the rows first, type and offset of one tensor."""
    name, n_dimensions = cursor.string(), cursor.number("<I")
    if n_dimensions > _MAX_DIMENSIONS:
        raise ModelError(f"`{name[:80]}` has {n_dimensions} dimensions")
    shape = tuple(cursor.number("<Q") for _ in range(n_dimensions))[::-1]
    return name, shape, cursor.number("<I"), cursor.number("<Q")


def _tensor(
    data: NDArray[np.uint8], begin: int, name: str, shape: tuple[int, ...], raw_kind: int, offset: int
) -> GgufTensor:
    kind = GGMLQuantizationType(raw_kind)
    block, block_bytes = GGML_QUANT_SIZES[kind]
    columns = shape[-1] if shape else 1
    n_bytes = math.prod(shape) // block * block_bytes
    if columns % block or not n_bytes or n_bytes > len(data) - begin - offset:
        raise ModelError(
            f"`{name[:80]}`, {kind.name} of {' x '.join(map(str, shape))}, does not lie whole at {offset} of the data"
        )
    found = data[begin + offset : begin + offset + n_bytes]
    if kind in _FLOATS:
        return GgufTensor(name, kind, shape, found.view(_FLOATS[kind]).reshape(shape))
    return GgufTensor(name, kind, shape, found.reshape(*shape[:-1], columns // block * block_bytes))
