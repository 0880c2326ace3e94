"""What an allocation method is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from edgesdk.cloud.config import AllocateConfig
from edgesdk.cloud.reference import Decoder
from edgesdk.cloud.sizes import Allocation, LevelPlan, PackedSizes
from edgesdk.cloud.workdir import WorkDirectory

__all__ = ["AllocateInputs", "BitLosses"]

BitLosses = Mapping[tuple[int | None, str], Mapping[int, float]]
"""KL (nats per token) that lower bits cost: by block index (None: embedding and head), role or panel, and bits."""


@dataclass(frozen=True)
class AllocateInputs:
    """decoder: the sorted float model. moments: of a sorted block, by index. windows: (n, tokens) calibration text.

    layer_similarity: mean cosine between each layer's input and output. sizes: what each cut saves.
    full: the full level; bit_losses: of bits below those of the full level, empty where bits are no axis
    work: where losses that were measured are kept: other settings of the ladder can use them
    """

    sizes: PackedSizes
    settings: AllocateConfig
    decoder: Decoder
    moments: Callable[[int], Mapping[str, Tensor]]
    layer_similarity: tuple[float, ...]
    windows: Tensor
    full: LevelPlan
    bit_losses: BitLosses
    work: WorkDirectory
    progress: Callable[[int, int], None] | None = None

    def level_bytes(self, allocation: Allocation) -> int:
        """Bytes of all blocks at the full level's bits."""
        return self.sizes.level(allocation, self.full.bits)

    def block_bytes(self, index: int, kept: tuple[int, ...]) -> int:
        """Bytes of one block at the full level's bits."""
        return self.sizes.block(index, kept, self.full.bits[index])
