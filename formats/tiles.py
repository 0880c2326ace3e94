"""Packed panels: the normative pack and unpack of SPEC.md section 4, in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["ALIGNMENT", "TILE_ROWS", "UNIT_COLUMNS", "pack_panel", "packed_bytes", "padded_bytes", "unpack_panel"]

TILE_ROWS = 16
UNIT_COLUMNS = 8
ALIGNMENT = 64


def packed_bytes(rows: int, columns: int, bits: int, group: int) -> int:
    """Bytes of codes and scales of a panel, before padding to 64."""
    tiles = -(-rows // TILE_ROWS)
    return tiles * (columns * TILE_ROWS * bits // 8 + -(-columns // group) * TILE_ROWS * 2)


def padded_bytes(rows: int, columns: int, bits: int, group: int) -> int:
    """Bytes of a panel's tensor in the file."""
    return -(-packed_bytes(rows, columns, bits, group) // ALIGNMENT) * ALIGNMENT


def pack_panel(codes: NDArray[np.uint8], scales: NDArray[np.float16], bits: int, group: int) -> NDArray[np.uint8]:
    """Packs a panel.

    codes: (rows, columns), 0..15 at 4 bits, the bytes of int8 values at 8 bits; scales: (rows, n_groups)
    returns (padded_bytes,)
    """
    rows, columns = codes.shape
    n_groups = -(-columns // group)
    if columns % UNIT_COLUMNS or scales.shape != (rows, n_groups) or bits not in (4, 8):
        raise ValueError(f"panel of codes {codes.shape}, scales {scales.shape}, {bits} bits, group {group}")
    tiles = -(-rows // TILE_ROWS)
    padded = np.zeros((tiles * TILE_ROWS, columns), np.uint8)
    padded[:rows] = codes
    # (tile, row, unit, half, 4) -> (tile, unit, half, row, 4)
    units = padded.reshape(tiles, TILE_ROWS, columns // UNIT_COLUMNS, 2, 4).transpose(0, 2, 3, 1, 4)
    body = (units[:, :, 0] | (units[:, :, 1] << 4)) if bits == 4 else units
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
    n_groups = -(-columns // group)
    n_code_bytes = tiles * columns * TILE_ROWS * bits // 8
    if data.size != padded_bytes(rows, columns, bits, group):
        raise ValueError(f"panel of {data.size} bytes, expected {padded_bytes(rows, columns, bits, group)}")
    body = data[:n_code_bytes]
    if bits == 4:
        nibbles = body.reshape(tiles, columns // UNIT_COLUMNS, TILE_ROWS, 4)
        units = np.stack([nibbles & 15, nibbles >> 4], axis=2)
    else:
        units = body.reshape(tiles, columns // UNIT_COLUMNS, 2, TILE_ROWS, 4)
    codes = units.transpose(0, 3, 1, 2, 4).reshape(tiles * TILE_ROWS, columns)[:rows]
    tail = data[n_code_bytes : n_code_bytes + tiles * n_groups * TILE_ROWS * 2].view(np.float16)
    scales = tail.reshape(tiles, n_groups, TILE_ROWS).transpose(0, 2, 1).reshape(tiles * TILE_ROWS, n_groups)[:rows]
    return np.ascontiguousarray(codes), np.ascontiguousarray(scales)
