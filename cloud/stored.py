"""The weights as the artifact will hold them, in all the bits that levels use, read from the work directory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from edgesdk.cloud.pack import QuantizedWeight
from edgesdk.cloud.workdir import WorkDirectory, as_tensor

__all__ = ["StoredWeights", "codes_name", "save_codes", "scales_name"]


def codes_name(index: int | None, role: str, bits: int) -> str:
    """Name of a weight's codes in a work directory; index: of its block, None for embedding and head."""
    return f"codes-{'model' if index is None else f'{index:03d}'}-{role}-{bits}.safetensors"


def scales_name(index: int) -> str:
    """Name of a block's tuned or recovered scales, norm and biases in a work directory."""
    return f"scales-{index:03d}.safetensors"


def save_codes(work: WorkDirectory, index: int | None, role: str, weight: QuantizedWeight) -> None:
    """Stores one weight."""
    tensors = {"codes": as_tensor(weight.codes), "scales": as_tensor(weight.scales)}
    fields = {"bits": weight.bits, "group": weight.group, "codebook": weight.codebook, "error": weight.error}
    work.save(codes_name(index, role, weight.bits), tensors, fields)


@dataclass(frozen=True)
class StoredWeights:
    """codes: every weight in the bits that it was quantized to.

    tuned: scales and norms of the full level, once tuned; recovered: scales and biases of the others, once recovered
    """

    codes: WorkDirectory
    tuned: WorkDirectory | None = None
    recovered: WorkDirectory | None = None

    def weight(self, index: int | None, role: str, bits: int) -> QuantizedWeight:
        """One weight in file order."""
        tensors, fields = self.codes.load(codes_name(index, role, bits))
        scales, name = tensors["scales"], f"{role}.{bits}.scales"
        for work in (self.tuned, self.recovered):
            if work is not None and index is not None:
                scales = work.load(scales_name(index), name)[0].get(name, scales)
        codebook = None if fields["codebook"] is None else tuple(fields["codebook"])
        return QuantizedWeight(
            tensors["codes"].numpy(), scales.numpy(), bits, fields["group"], codebook, fields["error"]
        )

    def norm(self, index: int) -> NDArray[np.float32] | None:
        """The tuned norm gain (d_model,) of a block, None where the source's is kept."""
        return None if self.tuned is None else self.tuned.load(scales_name(index), "norm")[0]["norm"].numpy()

    def biases(self, index: int) -> Tensor | None:
        """The recovered biases (n_levels, d_model) of a block, None where there are none."""
        return None if self.recovered is None else self.recovered.load(scales_name(index), "bias")[0]["bias"]
