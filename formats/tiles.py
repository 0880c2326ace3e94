"""Packed panels: the normative pack and unpack of SPEC.md section 4, in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ALIGNMENT",
    "CODEBOOK_BITS",
    "PANEL_BITS",
    "TILE_ROWS",
    "UNIT_COLUMNS",
    "code_values",
    "pack_panel",
    "packed_bytes",
    "padded_bytes",
    "unpack_panel",
    "unpack_scales",
]

TILE_ROWS = 16
UNIT_COLUMNS = 8
ALIGNMENT = 64
PANEL_BITS = (2, 3, 4, 6, 8)
"""Bits that a code may have."""
CODEBOOK_BITS = (2, 3, 4)
"""Bits at which codes index a codebook of 2 ** bits values; wider codes are values themselves."""

_PLANES = {2: (2,), 3: (2, 1), 4: (4,), 6: (4, 2)}  # widths, the lowest bits of a code first
_HALF = TILE_ROWS * UNIT_COLUMNS // 2


def packed_bytes(rows: int, columns: int, bits: int, group: int) -> int:
    """Bytes of codes and scales of a panel, before padding to 64."""
    tiles = -(-rows // TILE_ROWS)
    return tiles * (columns * TILE_ROWS * bits // 8 + -(-columns // group) * TILE_ROWS * 2)


def padded_bytes(rows: int, columns: int, bits: int, group: int) -> int:
    """Bytes of a panel's tensor in the file."""
    return -(-packed_bytes(rows, columns, bits, group) // ALIGNMENT) * ALIGNMENT


def code_values(
    codes: NDArray[np.uint8], bits: int, codebook: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """The integers that codes stand for (SPEC.md rule 4.5): (rows, columns) float32.

    codebook: 2 ** bits values at 2, 3 and 4 bits, not used at 6 and 8
    """
    if bits == 8:
        return codes.view(np.int8).astype(np.float32)
    if bits == 6:
        return codes.astype(np.float32) - np.float32(32)
    if codebook is None or codebook.shape != (1 << bits,):
        raise ValueError(f"codes of {bits} bits need a codebook of {1 << bits} values")
    return codebook[codes]


def pack_panel(codes: NDArray[np.uint8], scales: NDArray[np.float16], bits: int, group: int) -> NDArray[np.uint8]:
    """Packs a panel.

    codes: (rows, columns), below 2 ** bits, at 8 bits the bytes of int8 values; scales: (rows, n_groups)
    returns (padded_bytes,)
    """
    rows, columns = codes.shape
    n_groups = -(-columns // group)
    if columns % UNIT_COLUMNS or scales.shape != (rows, n_groups) or bits not in PANEL_BITS:
        raise ValueError(f"panel of codes {codes.shape}, scales {scales.shape}, {bits} bits, group {group}")
    if codes.size and int(codes.max()) >> bits:
        raise ValueError(f"a code of {int(codes.max())} does not fit {bits} bits")
    tiles = -(-rows // TILE_ROWS)
    padded = np.zeros((tiles * TILE_ROWS, columns), np.uint8)
    padded[:rows] = codes
    # (tile, row, unit, half, 4) -> (tile * unit, half, row * 4)
    units = padded.reshape(tiles, TILE_ROWS, columns // UNIT_COLUMNS, 2, 4).transpose(0, 2, 3, 1, 4)
    body = _pack_units(units.reshape(-1, 2, _HALF), bits)
    padded_scales = np.zeros((tiles * TILE_ROWS, n_groups), np.float16)
    padded_scales[:rows] = scales
    tail = padded_scales.reshape(tiles, TILE_ROWS, n_groups).transpose(0, 2, 1)
    out = np.zeros(padded_bytes(rows, columns, bits, group), np.uint8)
    n_code_bytes = body.size
    out[:n_code_bytes] = body.reshape(-1)
    out[n_code_bytes : n_code_bytes + 2 * tail.size] = np.ascontiguousarray(tail).reshape(-1).view(np.uint8)
    return out


def unpack_panel(
    data: NDArray[np.uint8], rows: int, columns: int, bits: int, group: int
) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Inverse of `pack_panel`: codes (rows, columns) and scales (rows, n_groups)."""
    tiles = -(-rows // TILE_ROWS)
    n_code_bytes = tiles * columns * TILE_ROWS * bits // 8
    if data.size != padded_bytes(rows, columns, bits, group):
        raise ValueError(f"panel of {data.size} bytes, expected {padded_bytes(rows, columns, bits, group)}")
    units = _unpack_units(data[:n_code_bytes].reshape(-1, TILE_ROWS * bits), bits)
    units = units.reshape(tiles, columns // UNIT_COLUMNS, 2, TILE_ROWS, 4)
    codes = units.transpose(0, 3, 1, 2, 4).reshape(tiles * TILE_ROWS, columns)[:rows]
    return np.ascontiguousarray(codes), unpack_scales(data, rows, columns, bits, group)


def unpack_scales(data: NDArray[np.uint8], rows: int, columns: int, bits: int, group: int) -> NDArray[np.float16]:
    """The scales (rows, n_groups) of a panel alone."""
    tiles = -(-rows // TILE_ROWS)
    n_groups = -(-columns // group)
    begin = tiles * columns * TILE_ROWS * bits // 8
    tail = data[begin : begin + tiles * n_groups * TILE_ROWS * 2].view(np.float16)
    scales = tail.reshape(tiles, n_groups, TILE_ROWS).transpose(0, 2, 1).reshape(tiles * TILE_ROWS, n_groups)[:rows]
    return np.ascontiguousarray(scales)


def _pack_units(units: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """units: (n, half, position) codes -> (n, 16 * bits) bytes"""
    if bits == 8:
        return units.reshape(-1, 2 * _HALF)
    planes = []
    below = 0
    for width in _PLANES[bits]:
        part = (units >> below & ((1 << width) - 1)).reshape(len(units), 2 * 4 // width, TILE_ROWS * width)
        planes.append(np.bitwise_or.reduce(part << _shifts(width), axis=1))
        below += width
    return np.concatenate(planes, axis=1)


def _unpack_units(data: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Inverse of `_pack_units`."""
    if bits == 8:
        return data.reshape(-1, 2, _HALF)
    units = np.zeros((len(data), 2, _HALF), np.uint8)
    begin = below = 0
    for width in _PLANES[bits]:
        plane = data[:, None, begin : begin + TILE_ROWS * width] >> _shifts(width) & ((1 << width) - 1)
        units |= plane.reshape(-1, 2, _HALF) << below
        begin += TILE_ROWS * width
        below += width
    return units


def _shifts(width: int) -> NDArray[np.uint8]:
    """Where in a byte the parts of a plane stand: those of the first half in the low nibble; (8 / width, 1).

    In the plane of 1 bit position p takes the place of p ^ 32: beside the 2 bits of the same code, not on them.
    """
    shifts = np.arange(0, 8, width, dtype=np.uint8)[:, None]
    return shifts ^ np.uint8(2) if width == 1 else shifts
