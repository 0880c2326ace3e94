"""Models on the Hugging Face hub, through its own client: online it downloads, offline it reads the local cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgesdk.cloud.checkpoint.checkpoint import Checkpoint
from edgesdk.cloud.checkpoint.hf import open_directory
from edgesdk.errors import MissingExtraError, ModelError

__all__ = ["HUB_PREFIX", "open_hub"]

HUB_PREFIX = "hf:"
_WANTED = ["*.safetensors", "*.json", "*.jinja", "README.md"]
_UNWANTED = ["*/*", "consolidated*"]  # other formats of the same weights


def open_hub(repository: str) -> Checkpoint:
    """`org/name` or `org/name@revision`. Only configuration, tokenizer and safetensors are downloaded.

    Raises ModelError when it is neither reachable nor cached, MissingExtraError without huggingface_hub.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingExtraError(
            f"`{HUB_PREFIX}{repository}` needs the package huggingface_hub", hint="pip install 'edgesdk[cloud]'"
        ) from error
    name, _, revision = repository.partition("@")
    try:
        folder = snapshot_download(name, revision=revision or None, allow_patterns=_WANTED, ignore_patterns=_UNWANTED)
    except (OSError, ValueError) as error:  # the client's own errors all derive from these two
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(
            f"`{HUB_PREFIX}{repository}` could not be fetched, and is not in the local cache: {reason}",
            hint=f"check the name and the network, or run `hf download {name}` where there is one and copy the cache "
            "(HF_HOME); a gated model needs `hf auth login`; a directory that holds the model can be given directly",
        ) from error
    path = Path(folder)
    checkpoint = open_directory(path)
    source = replace(checkpoint.source, kind="hub", name=name, origin=f"{HUB_PREFIX}{name}@{path.name}")
    return replace(checkpoint, source=source)
