"""Checkpoints: a Hugging Face directory, a GGUF file, `hf:org/name`, or the name of the demo model."""

from __future__ import annotations

from pathlib import Path

from edgesdk.cloud.checkpoint.checkpoint import Checkpoint, LazyTensor, Source, TokenizerFiles
from edgesdk.cloud.checkpoint.demo import DEMO_MODEL, open_demo
from edgesdk.cloud.checkpoint.gguf import open_gguf
from edgesdk.cloud.checkpoint.hf import open_directory
from edgesdk.cloud.checkpoint.hub import HUB_PREFIX, open_hub
from edgesdk.errors import ModelError

__all__ = ["DEMO_MODEL", "HUB_PREFIX", "Checkpoint", "LazyTensor", "Source", "TokenizerFiles", "open_checkpoint"]


def open_checkpoint(model: str) -> Checkpoint:
    """Open `model` without reading a weight: a directory, a GGUF file, `hf:org/name[@revision]`, or `smollm2`.

    The demo's name wins over a directory of the same name; write `./smollm2` for the directory.
    Raises ModelError for what cannot be found or read, MissingExtraError when `hf:` needs a package.

        open_checkpoint("smollm2").tensor("model.norm.weight")
    """
    if model == DEMO_MODEL:
        return open_demo()
    if model.startswith(HUB_PREFIX):
        return open_hub(model.removeprefix(HUB_PREFIX))
    path = Path(model).expanduser()
    if path.is_dir():
        return open_directory(path)
    if not path.exists():
        raise ModelError(
            f"`{model}` is no file or directory",
            hint=f"give a Hugging Face directory, a .gguf file, `{HUB_PREFIX}org/name`, or `{DEMO_MODEL}`",
        )
    if path.suffix == ".safetensors":
        raise ModelError(
            f"`{model}` holds weights but no configuration",
            hint="give its directory, which must also hold config.json and tokenizer.json",
        )
    return open_gguf(path)
