"""What an allocation method is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from edgesdk.cloud.config import AllocateConfig
from edgesdk.cloud.reference import Decoder
from edgesdk.cloud.sizes import PackedSizes

__all__ = ["AllocateInputs"]


@dataclass(frozen=True)
class AllocateInputs:
    """decoder: the sorted float model. moments: of a sorted block, by index. windows: (n, tokens) calibration text.

    layer_similarity: mean cosine between each layer's input and output. sizes: what each cut saves.
    """

    sizes: PackedSizes
    settings: AllocateConfig
    decoder: Decoder
    moments: Callable[[int], dict[str, Tensor]]
    layer_similarity: tuple[float, ...]
    windows: Tensor
    progress: Callable[[int, int], None] | None = None
