"""Writes `.edge` files (SPEC.md): orders pieces by level, lays out runs and padding, hashes, renames into place."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesdk.errors import EdgeError
from edgesdk.formats.optional_fields import needs_format_2
from edgesdk.formats.rules import TABLES

__all__ = ["FORMAT_VERSION", "PAGE_BYTES", "ArtifactWriter", "Piece"]

FORMAT_VERSION = "1.4"
PAGE_BYTES = 4096
_HUGE_PAGE_BYTES = 2 << 20
_ALIGNMENT = 64
_DTYPES = {"uint8": "U8", "float16": "F16", "float32": "F32", "uint32": "U32"}


@dataclass(frozen=True)
class Piece:
    """One tensor of the file. `name` has no level suffix; levels first_level..last_level use it.

    data: the array, or a function that makes it when it is written (so that one piece is in memory at a time).
    panel: [row_begin, row_end, column_begin, column_end, bits, group, codebook] for packed weights.
    """

    name: str
    first_level: int
    last_level: int
    dtype: str
    shape: tuple[int, ...]
    data: NDArray[Any] | Callable[[], NDArray[Any]]
    panel: tuple[int, ...] | None = None

    @property
    def n_bytes(self) -> int:
        """Size in the file."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    @property
    def full_name(self) -> str:
        """The tensor's name, with its level suffix."""
        return f"{self.name}/{self.first_level}"

    def array(self) -> NDArray[Any]:
        """The data, made now if it is made by a function."""
        made = self.data() if callable(self.data) else self.data
        made = np.ascontiguousarray(made)
        if made.dtype != np.dtype(self.dtype) or made.shape != self.shape:
            raise ValueError(f"{self.full_name}: made {made.dtype} {made.shape}, declared {self.dtype} {self.shape}")
        return made


@dataclass(frozen=True)
class _Placed:
    name: str
    begin: int
    end: int
    piece: Piece | None  # None: padding


class ArtifactWriter:
    """Collects pieces and level records, then writes the file in one pass.

    Example:
        writer = ArtifactWriter(n_levels=1)
        writer.add(Piece("norm", 0, 0, "float32", (8,), np.ones(8, np.float32)))
        writer.write(path, metadata, levels)
    """

    def __init__(self, n_levels: int) -> None:
        self.n_levels = n_levels
        self._pieces: list[Piece] = []

    def add(self, piece: Piece) -> None:
        """Adds one tensor; the order of adding is kept inside a run."""
        if not 0 <= piece.first_level <= piece.last_level < self.n_levels:
            raise ValueError(f"{piece.name}: levels {piece.first_level}..{piece.last_level} of {self.n_levels}")
        self._pieces.append(piece)

    def write(
        self, path: Path, metadata: Mapping[str, Any], levels: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """Writes the artifact to `path` atomically (temporary file, fsync, rename) and returns the level records.

        metadata: the `edge` fields of SPEC.md without `format_version`, `panels`, `runs` and `levels`.
        levels: smallest first; `mapped_bytes` and `file_bytes` are filled in here.
        """
        placed, runs = self._layout()
        temporary = path.with_name(path.name + ".partial")
        try:
            with open(temporary, "w+b") as file:
                header_bytes = self._reserve_header(placed, runs, metadata, levels)
                file.truncate(header_bytes)
                file.seek(header_bytes)
                self._write_data(file, placed, runs)
                filled = self._fill_levels(levels, runs, header_bytes)
                header = self._header(placed, runs, metadata, filled, header_bytes)
                file.seek(0)
                file.write(header)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise EdgeError(
                f"could not write `{path}`: {error.strerror}", hint="free some space or choose another folder with -o"
            ) from error
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return filled

    def _layout(self) -> tuple[list[_Placed], list[dict[str, Any]]]:
        """Places the pieces: runs by (first_level, shared before replaced), pages between runs, 64 bytes inside."""
        keys = sorted({(p.first_level, -p.last_level) for p in self._pieces})
        placed: list[_Placed] = []
        runs: list[dict[str, Any]] = []
        offset = 0
        n_pads = 0

        def pad_to(multiple: int) -> None:
            nonlocal offset, n_pads
            end = -(-offset // multiple) * multiple
            if end > offset:
                placed.append(_Placed(f"pad.{n_pads}", offset, end, None))
                n_pads += 1
                offset = end

        for first, negative_last in keys:
            begin = offset
            for piece in self._pieces:
                if (piece.first_level, piece.last_level) == (first, -negative_last):
                    pad_to(_ALIGNMENT)
                    placed.append(_Placed(piece.full_name, offset, offset + piece.n_bytes, piece))
                    offset += piece.n_bytes
            pad_to(PAGE_BYTES)
            runs.append(
                {"first_level": first, "last_level": -negative_last, "begin": begin, "end": offset, "sha256": "0" * 64}
            )
        return placed, runs

    def _write_data(self, file: Any, placed: Sequence[_Placed], runs: list[dict[str, Any]]) -> None:
        run_index = 0
        digest = hashlib.sha256()
        out = _HugePageFile(file)
        for item in placed:
            data = item.piece.array().reshape(-1).view(np.uint8).data if item.piece else bytes(item.end - item.begin)
            out.write(data)
            digest.update(data)
            if item.end == runs[run_index]["end"]:
                runs[run_index]["sha256"] = digest.hexdigest()
                digest = hashlib.sha256()
                run_index += 1
        out.flush()

    def _fill_levels(
        self, levels: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]], header_bytes: int
    ) -> list[dict[str, Any]]:
        filled = []
        for k, level in enumerate(levels):
            mapped = sum(r["end"] - r["begin"] for r in runs if r["first_level"] <= k <= r["last_level"])
            last = max(r["end"] for r in runs if r["first_level"] <= k)
            filled.append({**level, "mapped_bytes": mapped, "file_bytes": header_bytes + last})
        return filled

    def _reserve_header(
        self,
        placed: Sequence[_Placed],
        runs: Sequence[Mapping[str, Any]],
        metadata: Mapping[str, Any],
        levels: Sequence[Mapping[str, Any]],
    ) -> int:
        """Bytes to set aside: the header with the longest figures it can get, in whole pages."""
        longest = [{**level, "mapped_bytes": 10**15, "file_bytes": 10**15} for level in levels]
        return -(-len(self._header(placed, runs, metadata, longest, 0)) // PAGE_BYTES) * PAGE_BYTES

    def _header(
        self,
        placed: Sequence[_Placed],
        runs: Sequence[Mapping[str, Any]],
        metadata: Mapping[str, Any],
        levels: Sequence[Mapping[str, Any]],
        header_bytes: int,
    ) -> bytes:
        panels = {p.full_name: list(p.panel) for p in self._pieces if p.panel is not None}
        edge = {
            "format_version": _format_version(metadata.get("model", {}), panels),
            **metadata,
            "panels": panels,
            "runs": list(runs),
            "levels": list(levels),
        }
        header: dict[str, Any] = {
            "__metadata__": {"edge": json.dumps(edge, separators=(",", ":"), allow_nan=False), "format": "edge"}
        }
        for item in placed:
            dtype, shape = ("U8", [item.end - item.begin])
            if item.piece is not None:
                dtype, shape = _DTYPES[item.piece.dtype], list(item.piece.shape)
            header[item.name] = {"dtype": dtype, "shape": shape, "data_offsets": [item.begin, item.end]}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=True).encode()
        body = max(header_bytes - 8, len(text))
        return body.to_bytes(8, "little") + text + b" " * (body - len(text))


def _format_version(model: Mapping[str, Any], panels: Mapping[str, Any]) -> str:
    """The lowest version that describes the file."""
    is_plain = not any(_is_of_minor_5(name, box) for name, box in panels.items())
    if needs_format_2(model):
        return "2.0" if is_plain else "2.1"
    return FORMAT_VERSION if is_plain else "1.5"


def _is_of_minor_5(name: str, panel: Sequence[int]) -> bool:
    stem = name.rpartition("/")[0]
    return stem.partition(".")[0] in TABLES and (stem not in TABLES or panel[4] == 3)


class _HugePageFile:
    """Writes whole huge pages of the file at once, so that the page cache can hold them as such.

    Linux then maps a file that was just written without a small page per 4096 bytes (docs/decisions/0006).
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._waiting = bytearray()
        self._room = _HUGE_PAGE_BYTES - file.tell() % _HUGE_PAGE_BYTES

    def write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while len(self._waiting) + len(view) >= self._room:
            taken = self._room - len(self._waiting)
            self._waiting += view[:taken]
            view = view[taken:]
            self._file.write(self._waiting)
            self._waiting.clear()
            self._room = _HUGE_PAGE_BYTES
        self._waiting += view

    def flush(self) -> None:
        self._file.write(self._waiting)
        self._waiting.clear()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
