"""The artifact's bytes: writing, reading and verifying `.edge` files with NumPy alone."""

from __future__ import annotations

from edgesdk.formats.reader import Artifact, LevelInfo, Run
from edgesdk.formats.signing import check_signature, sign_artifact
from edgesdk.formats.verify import verify_artifact
from edgesdk.formats.writer import ArtifactWriter, Piece

__all__ = [
    "Artifact",
    "ArtifactWriter",
    "LevelInfo",
    "Piece",
    "Run",
    "check_signature",
    "sign_artifact",
    "verify_artifact",
]
