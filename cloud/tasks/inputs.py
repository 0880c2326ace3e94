"""What tasks are given: the checkpoint, which they open by themselves, and results of earlier steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from edgesdk.cloud.checkpoint import DEMO_MODEL, HUB_PREFIX, Checkpoint, open_checkpoint
from edgesdk.cloud.families import load_model
from edgesdk.cloud.families.blocks import Block, ModelConfig
from edgesdk.cloud.reference import BlockWeights, load_block
from edgesdk.cloud.workdir import WorkDirectory, as_tensor
from edgesdk.errors import ModelError

__all__ = ["ModelFiles", "SentFile", "StoredFile"]


@dataclass(frozen=True)
class ModelFiles:
    """A checkpoint by its name, and the sizes of its files: a task must find the same ones."""

    model: str
    sizes: tuple[tuple[str, int], ...] = field(repr=False)

    @classmethod
    def of(cls, model: str) -> ModelFiles:
        """That of a model as `edgesdk build` takes it; paths become absolute."""
        if model != DEMO_MODEL and not model.startswith(HUB_PREFIX):
            model = str(Path(model).expanduser().resolve())
        _opened.cache_clear()
        return cls(model, _sizes(_opened(model)[0]))

    def block(self, index: int) -> tuple[Block, BlockWeights]:
        """A block and its weights, read now. Raises ModelError where the checkpoint is missing or another one."""
        checkpoint, config = _opened(self.model)
        if _sizes(checkpoint) != self.sizes:
            raise ModelError(
                f"`{self.model}` is not the checkpoint that the build began with: its files have other sizes",
                hint="every machine needs the same checkpoint under the same path",
            )
        block = config.blocks[index]
        return block, load_block(checkpoint, block)


@dataclass(frozen=True)
class StoredFile:
    """Tensors of a file in a work directory: those whose names begin with `prefix`."""

    work: WorkDirectory
    name: str
    prefix: str = ""

    def load(self) -> dict[str, Tensor]:
        """The tensors, mapped."""
        return self.work.load(self.name, self.prefix)[0]

    def sent(self) -> SentFile:
        """The same for a machine that does not share this one's files."""
        return SentFile({name: tensor.numpy() for name, tensor in self.load().items()})


@dataclass(frozen=True)
class SentFile:
    """Tensors that travel with a task."""

    arrays: dict[str, NDArray[Any]]

    def load(self) -> dict[str, Tensor]:
        """The tensors; they may lie in memory that is not to be written to."""
        return {name: as_tensor(array) for name, array in self.arrays.items()}


@lru_cache(maxsize=1)
def _opened(model: str) -> tuple[Checkpoint, ModelConfig]:
    """Once in every process."""
    checkpoint = open_checkpoint(model)
    return checkpoint, load_model(checkpoint)


def _sizes(checkpoint: Checkpoint) -> tuple[tuple[str, int], ...]:
    return tuple((path.name, path.stat().st_size) for path in checkpoint.source.weight_files)
