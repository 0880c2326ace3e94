"""Checks every hash of an artifact, run by run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgesdk.errors import ArtifactError, HashError
from edgesdk.formats.reader import Artifact
from edgesdk.formats.tiles import TILE_ROWS, packed_bytes

__all__ = ["VerifyReport", "verify_artifact"]

_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class VerifyReport:
    """What was checked: levels in the file, runs and bytes whose SHA-256 agreed."""

    path: Path
    n_levels: int
    n_available_levels: int
    n_runs: int
    n_bytes: int


def verify_artifact(path: Path | str, *, min_level: int = 0) -> VerifyReport:
    """Checks all rules of SPEC.md and the SHA-256 of every run that the file holds.

    min_level: the file must hold this level.
    Raises ArtifactError for a broken rule, HashError for bytes that differ, TruncatedError for a file cut below
    min_level.
    """
    artifact = Artifact.open(path)
    artifact.level(min_level)
    available = artifact.n_available_levels
    n_bytes = n_runs = 0
    with open(artifact.path, "rb") as file:
        for index, run in enumerate(artifact.runs):
            if run.first_level >= available:
                continue
            file.seek(artifact.data_offset + run.begin)
            digest = hashlib.sha256()
            for start in range(run.begin, run.end, _CHUNK_BYTES):
                digest.update(file.read(min(_CHUNK_BYTES, run.end - start)))
            if digest.hexdigest() != run.sha256:
                raise HashError(
                    f"run {index} (level {run.first_level}, bytes {run.begin}..{run.end}) does not match its SHA-256",
                    hint="the file was changed or damaged; copy or build it again",
                )
            n_runs += 1
            n_bytes += run.end - run.begin
    _check_panels(artifact)
    _check_padding(artifact)
    return VerifyReport(artifact.path, len(artifact.levels), available, n_runs, n_bytes)


def _check_panels(artifact: Artifact) -> None:
    """Every scale is finite, zeros pad each panel (rule 4.3), and no code of 8 bits is -128 (rule 4.5)."""
    for name in _present(artifact):
        box = artifact.edge["panels"].get(name)
        if box is None:
            continue
        rows, columns, bits = box[1] - box[0], box[3] - box[2], box[4]
        if not np.isfinite(artifact.scales(name)).all():
            raise ArtifactError(f"panel {name} has a scale that is not finite (rule 4.3)")
        data = artifact.tensor(name)
        if data[packed_bytes(rows, columns, bits, box[5]) :].any():
            raise ArtifactError(f"panel {name} is padded with something else than zeros (rule 4.3)")
        if bits == 8 and (data[: -(-rows // TILE_ROWS) * TILE_ROWS * columns] == 0x80).any():
            raise ArtifactError(f"panel {name} has the code -128, expected -127 to 127 (rule 4.5)")


def _check_padding(artifact: Artifact) -> None:
    """Nothing hides between tensors (rule 1.4)."""
    for name in _present(artifact):
        if name.startswith("pad.") and artifact.tensor(name).any():
            raise ArtifactError(f"tensor `{name}` is padding, and not all zeros (rule 1.4)")


def _present(artifact: Artifact) -> list[str]:
    """Names of all tensors of the levels in this file, padding included."""
    return [name for name, run in artifact.run_of.items() if run.first_level < artifact.n_available_levels]
