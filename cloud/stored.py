"""The block weights as the artifact will hold them, read from the work directory step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from edgesdk.cloud.pack import QuantizedWeight
from edgesdk.cloud.workdir import WorkDirectory

__all__ = ["StoredWeights", "codes_name", "save_codes", "scales_name"]


def codes_name(index: int) -> str:
    """Name of a block's codes in a work directory."""
    return f"codes-{index:03d}.safetensors"


def scales_name(index: int) -> str:
    """Name of a block's tuned scales and norm in a work directory."""
    return f"scales-{index:03d}.safetensors"


def save_codes(work: WorkDirectory, index: int, weights: Mapping[str, QuantizedWeight]) -> None:
    """Stores weights of one block, by role."""
    tensors = {f"{role}.codes": torch.from_numpy(w.codes) for role, w in weights.items()}
    tensors |= {f"{role}.scales": torch.from_numpy(w.scales) for role, w in weights.items()}
    fields = {role: {"bits": w.bits, "group": w.group, "codebook": w.codebook} for role, w in weights.items()}
    work.save(codes_name(index), tensors, fields)


@dataclass(frozen=True)
class StoredWeights:
    """codes: all weights at 4 bits; wide: those that are held at more bits; tuned: scales and norms, once tuned."""

    codes: WorkDirectory
    wide: WorkDirectory | None = None
    bits: Mapping[tuple[int, str], int] = field(default_factory=dict)
    tuned: WorkDirectory | None = None

    def weight(self, index: int, role: str) -> QuantizedWeight:
        """One weight of a block in file order."""
        folder = self.wide if self.wide is not None and (index, role) in self.bits else self.codes
        tensors, fields = folder.load(codes_name(index), f"{role}.")
        scales = tensors[f"{role}.scales"]
        if self.tuned is not None:
            scales = self.tuned.load(scales_name(index), f"{role}.")[0][f"{role}.scales"]
        codebook = fields[role]["codebook"]
        return QuantizedWeight(
            tensors[f"{role}.codes"].numpy(),
            scales.numpy(),
            fields[role]["bits"],
            fields[role]["group"],
            None if codebook is None else tuple(codebook),
        )

    def norm(self, index: int) -> NDArray[np.float32] | None:
        """The tuned norm gain (d_model,) of a block, None where the source's is kept."""
        return None if self.tuned is None else self.tuned.load(scales_name(index), "norm")[0]["norm"].numpy()
