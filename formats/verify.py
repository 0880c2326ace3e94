"""Checks every hash of an artifact, run by run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgesdk.errors import HashError
from edgesdk.formats.reader import Artifact

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
    _check_scales(artifact)
    return VerifyReport(artifact.path, len(artifact.levels), available, n_runs, n_bytes)


def _check_scales(artifact: Artifact) -> None:
    """Every scale is finite (rule 4.3)."""
    for name in artifact.used_names(artifact.n_available_levels - 1):
        if name in artifact.edge["panels"] and not np.isfinite(artifact.scales(name)).all():
            raise HashError(f"panel {name} has a scale that is not finite (rule 4.3)")
