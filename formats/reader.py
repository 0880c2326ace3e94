"""Reads `.edge` files with NumPy and checks every rule of SPEC.md; the file is treated as hostile."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesdk.errors import ArtifactError, EngineError, TruncatedError, UsageError
from edgesdk.formats import rules
from edgesdk.formats.tiles import CODEBOOK_BITS, code_values, unpack_panel, unpack_scales

__all__ = ["Artifact", "LevelInfo", "Run", "TensorInfo"]

_MAX_HEADER_BYTES = 64 << 20
_MAJORS = (1, 2)
_MAX_DIMENSIONS = 8
_MAX_DEPTH = 32  # of JSON
_MAX_RUNS = 100_000  # with _MAX_LEVELS: far above any ladder, and they bound the work of checking one
_MAX_LEVELS = 1000
_DTYPES = {"U8": np.uint8, "F16": np.float16, "F32": np.float32, "U32": np.uint32}


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: begin and end count from the first data byte."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Run:
    """A page-aligned range that levels first_level..last_level map together."""

    first_level: int
    last_level: int
    begin: int
    end: int
    sha256: str


@dataclass(frozen=True)
class LevelInfo:
    """One size of the ladder; sizes in bytes, kl in nats per token."""

    index: int
    rate: float
    mapped_bytes: int
    file_bytes: int
    block_bytes: int
    allocation: tuple[tuple[int, ...], ...]
    perplexity: float | None
    kl: float | None
    gave_up: Mapping[str, Any]


@dataclass(frozen=True)
class Artifact:
    """A checked header and lazy access to tensors.

    Example:
        artifact = Artifact.open("model.edge")
        artifact.levels[-1].mapped_bytes
    """

    path: Path
    edge: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    runs: tuple[Run, ...]
    levels: tuple[LevelInfo, ...]
    data_offset: int
    n_file_bytes: int

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Artifact:
        """Reads and checks the header. Raises ArtifactError or TruncatedError (level 0 not in the file)."""
        path = Path(path)
        try:
            with open(path, "rb") as file:
                n_file_bytes = os.fstat(file.fileno()).st_size
                header, data_offset = _read_header(file, n_file_bytes, path)
        except OSError as error:
            raise EngineError(f"cannot read `{path}`: {error.strerror}") from error
        edge = _edge_metadata(header)
        tensors = _tensor_table(header)
        runs = _runs(edge)
        levels = _levels(edge)
        artifact = cls(path, edge, tensors, runs, levels, data_offset, n_file_bytes)
        rules.check(artifact)
        if n_file_bytes < levels[0].file_bytes:
            raise TruncatedError(
                f"`{path}` has {n_file_bytes} bytes, its smallest level needs {levels[0].file_bytes} (rule 6.5)",
                hint="copy the file again",
            )
        return artifact

    @property
    def n_available_levels(self) -> int:
        """Levels that lie completely in this file (fewer than `levels` when it was cut)."""
        return sum(level.file_bytes <= self.n_file_bytes for level in self.levels)

    def level(self, index: int) -> LevelInfo:
        """The level, or an error when the file does not hold it."""
        if not 0 <= index < len(self.levels):
            raise UsageError(f"level {index} does not exist", hint=f"levels are 0..{len(self.levels) - 1}")
        if index >= self.n_available_levels:
            raise TruncatedError(
                f"level {index} needs {self.levels[index].file_bytes} bytes, `{self.path}` has {self.n_file_bytes}",
                hint=f"it holds levels 0..{self.n_available_levels - 1}",
            )
        return self.levels[index]

    def level_at_rate(self, rate: float) -> LevelInfo:
        """The largest level whose rate is at least `rate`."""
        top = self.levels[0].rate
        if not 0 <= rate <= top:
            raise UsageError(f"rate {rate} is out of range", hint=f"this artifact offers 0 to {top:.4f}")
        return self.level(max(level.index for level in self.levels if level.rate >= rate - 1e-12))

    def tensor(self, name: str) -> NDArray[Any]:
        """One tensor, memory-mapped read-only. `name` with its level suffix."""
        info = self.tensors.get(name)
        if info is None:
            raise UsageError(f"no tensor `{name}` in `{self.path}`")
        if self.data_offset + info.end > self.n_file_bytes:
            raise TruncatedError(f"tensor `{name}` lies behind the end of `{self.path}`")
        if info.begin == info.end:
            return np.zeros(info.shape, _DTYPES[info.dtype])
        return np.memmap(self.path, _DTYPES[info.dtype], "r", self.data_offset + info.begin, info.shape)

    @cached_property
    def run_of(self) -> Mapping[str, Run]:
        """The run that holds a tensor, by name, in file order."""
        found, position = {}, 0
        for tensor in self.tensors.values():
            suffix = tensor.name.rpartition("/")[2]
            while position + 1 < len(self.runs) and tensor.begin >= self.runs[position].end:
                if tensor.begin == tensor.end and suffix == str(self.runs[position].first_level):
                    break  # an empty tensor on a border belongs to the run that its name says
                position += 1
            found[tensor.name] = self.runs[position]
        return found

    def used_names(self, level: int) -> list[str]:
        """Names of the tensors that a level uses, in file order."""
        return [
            name
            for name, run in self.run_of.items()
            if run.first_level <= level <= run.last_level and not name.startswith("pad.")
        ]

    def pieces(self, weight: str, level: int) -> list[str]:
        """Names of the tensors `weight/k` that a level uses, by ascending k (embedding and head: in order of rows)."""
        used = set(self.used_names(level))
        stems = rules.row_panels(weight, self.tensors)
        return [name for stem in stems for k in range(level + 1) if (name := f"{stem}/{k}") in used]

    def vector(self, weight: str, level: int) -> NDArray[np.float32]:
        """A float tensor whose pieces are concatenated (inverse frequencies, row biases, norms)."""
        parts = [np.asarray(self.tensor(name), np.float32) for name in self.pieces(weight, level)]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def panel(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        """Values of the codes (rows, columns) as float32 and the scales (rows, n_groups) of one panel."""
        row_begin, row_end, column_begin, column_end, bits, group, codebook = self.edge["panels"][name]
        rows, columns = row_end - row_begin, column_end - column_begin
        codes, scales = unpack_panel(np.asarray(self.tensor(name)), rows, columns, bits, group)
        values = np.asarray(self.edge["codebooks"][codebook], np.float32) if bits in CODEBOOK_BITS else None
        return code_values(codes, bits, values), scales

    def scales(self, name: str) -> NDArray[np.float16]:
        """The scales (rows, n_groups) of one panel."""
        row_begin, row_end, column_begin, column_end, bits, group, _ = self.edge["panels"][name]
        return unpack_scales(np.asarray(self.tensor(name)), row_end - row_begin, column_end - column_begin, bits, group)

    def weight(self, weight: str, level: int) -> NDArray[np.float32]:
        """A weight of a level, dequantized: (rows, columns) float32."""
        boxes = [(name, self.edge["panels"][name]) for name in self.pieces(weight, level)]
        rows = max((box[1] for _, box in boxes), default=0)
        columns = max((box[3] for _, box in boxes), default=0)
        out = np.zeros((rows, columns), np.float32)
        for name, (row_begin, row_end, column_begin, column_end, _, group, _) in boxes:
            values, scales = self.panel(name)
            wide = np.repeat(scales.astype(np.float32), group, axis=1)[:, : values.shape[1]]
            out[row_begin:row_end, column_begin:column_end] = values * wide
        return out


def _read_header(file: Any, n_file_bytes: int, path: Path) -> tuple[Mapping[str, Any], int]:
    start = file.read(8)
    if len(start) < 8:
        raise ArtifactError(f"`{path}` has {len(start)} bytes and is no artifact (rule 1.1)")
    header_bytes = int.from_bytes(start, "little")
    if header_bytes > _MAX_HEADER_BYTES or header_bytes % 4096 != 4088:
        raise ArtifactError(f"header_bytes is {header_bytes}: over 64 MiB, or not whole pages (rule 1.2)")
    if 8 + header_bytes > n_file_bytes:
        raise TruncatedError(f"`{path}` ends inside its header: {n_file_bytes} of {8 + header_bytes} bytes (rule 1.1)")
    try:
        header = _parsed(file.read(header_bytes).decode())
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"the header of `{path}` is not JSON: {error} (rule 1.1)") from error
    if not isinstance(header, dict):
        raise ArtifactError("the header is not a JSON object (rule 1.1)")
    return header, 8 + header_bytes


def _edge_metadata(header: Mapping[str, Any]) -> Mapping[str, Any]:
    outer = header.get("__metadata__")
    text = outer.get("edge") if isinstance(outer, dict) else None
    if not isinstance(text, str):
        raise ArtifactError(
            "__metadata__ has no `edge` text: this is a safetensors file, but no artifact (rule 1.6)",
            hint="make one with `edgesdk build`",
        )
    try:
        edge = _parsed(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"`edge` is not JSON: {error} (rule 1.6)") from error
    version = edge.get("format_version") if isinstance(edge, dict) else None
    major = re.match(r"([0-9]{1,9})\.", version) if isinstance(version, str) else None
    if not isinstance(edge, dict) or major is None:
        raise ArtifactError(f"format_version is {version!r}, expected major.minor (rule 1.7)")
    if int(major[1]) not in _MAJORS:
        raise ArtifactError(
            f"format_version is {version}, this reader knows 1.x and 2.x (rule 1.7)", hint="update edgesdk"
        )
    return edge


def _parsed(text: str) -> Any:
    """JSON as the engine reads it: no NaN or infinity, not too deep, and all text can be written as UTF-8."""
    value = json.loads(text, parse_constant=_no_number)
    if isinstance(value, (dict, list)) and _is_deep(value, _MAX_DEPTH):
        raise ValueError(f"it is nested deeper than {_MAX_DEPTH} levels")
    if "\\ud" in text or "\\uD" in text:
        json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is a ValueError
    return value


def _is_deep(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deep(v, levels - 1) for v in inner if isinstance(v, (dict, list)))


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _tensor_table(header: Mapping[str, Any]) -> dict[str, TensorInfo]:
    infos = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if not isinstance(entry, dict):
            raise ArtifactError(f"tensor `{name}` is not an object (rule 1.3)")
        dtype = entry.get("dtype")
        shape = rules.integers(entry.get("shape"), f"tensors.{name}.shape", "1.3")
        offsets = rules.integers(entry.get("data_offsets"), f"tensors.{name}.data_offsets", "1.3")
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            raise ArtifactError(f"tensor `{name}` has dtype {dtype!r}, expected one of {sorted(_DTYPES)} (rule 1.3)")
        if len(offsets) != 2 or len(shape) > _MAX_DIMENSIONS:
            raise ArtifactError(
                f"tensor `{name}` has {len(shape)} dimensions and {len(offsets)} offsets, "
                f"expected at most {_MAX_DIMENSIONS} and two (rule 1.3)"
            )
        infos.append(TensorInfo(name, dtype, tuple(shape), offsets[0], offsets[1]))
    infos.sort(key=lambda info: (info.begin, info.end))
    offset = 0
    for info in infos:
        size = math.prod(info.shape) * np.dtype(_DTYPES[info.dtype]).itemsize
        if info.end - info.begin != size:
            raise ArtifactError(
                f"tensor `{info.name}` has {info.end - info.begin} bytes, its shape needs {size} (rule 1.3)"
            )
        if info.begin != offset:
            raise ArtifactError(f"tensor `{info.name}` begins at {info.begin}, expected {offset} (rule 1.4)")
        if info.begin % 64 and not info.name.startswith("pad."):
            raise ArtifactError(f"tensor `{info.name}` begins at {info.begin}, no multiple of 64 (rule 1.5)")
        if info.dtype != "U8" and info.name.startswith("pad."):
            raise ArtifactError(f"tensor `{info.name}` is {info.dtype}, padding is U8 (rule 1.4)")
        offset = info.end
    return {info.name: info for info in infos}


def _runs(edge: Mapping[str, Any]) -> tuple[Run, ...]:
    runs = []
    for i, entry in enumerate(rules.objects(edge.get("runs"), "runs", "5", most=_MAX_RUNS)):
        numbers = [
            rules.integer(entry.get(k), f"runs[{i}].{k}", "5") for k in ("first_level", "last_level", "begin", "end")
        ]
        sha256 = entry.get("sha256")
        if not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
            raise ArtifactError(f"runs[{i}].sha256 is {sha256!r} (rule 5.4)")
        runs.append(Run(numbers[0], numbers[1], numbers[2], numbers[3], sha256))
    return tuple(runs)


def _levels(edge: Mapping[str, Any]) -> tuple[LevelInfo, ...]:
    levels = []
    for i, entry in enumerate(rules.objects(edge.get("levels"), "levels", "6", most=_MAX_LEVELS)):
        sizes = [
            rules.integer(entry.get(k), f"levels[{i}].{k}", "6") for k in ("mapped_bytes", "file_bytes", "block_bytes")
        ]
        rate = rules.number(entry.get("rate"), f"levels[{i}].rate", "6.3")
        allocation = entry.get("allocation")
        if not isinstance(allocation, list):
            raise ArtifactError(f"levels[{i}].allocation is no list (rule 6.1)")
        kept = tuple(tuple(rules.integers(kept, f"levels[{i}].allocation", "6.1")) for kept in allocation)
        quality = [_measured(entry.get(k), f"levels[{i}].{k}") for k in ("perplexity", "kl")]
        gave_up = entry.get("gave_up", {})
        levels.append(LevelInfo(i, rate, sizes[0], sizes[1], sizes[2], kept, quality[0], quality[1], gave_up))
    return tuple(levels)


def _measured(value: Any, field: str) -> float | None:
    return None if value is None else rules.number(value, field, "6.4")
