"""Model families: one file each maps a Hugging Face configuration to blocks. FAMILIES is the list of them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgesdk.cloud.families.bamba import bamba_config
from edgesdk.cloud.families.blocks import ModelConfig, expected_tensors
from edgesdk.cloud.families.gemma2 import gemma2_config
from edgesdk.cloud.families.gemma3 import gemma3_config
from edgesdk.cloud.families.llama import llama_config
from edgesdk.cloud.families.mamba2 import mamba2_config
from edgesdk.cloud.families.mistral import mistral_config
from edgesdk.cloud.families.nemotron_h import nemotron_h_config
from edgesdk.cloud.families.phi3 import phi3_config
from edgesdk.cloud.families.qwen2 import qwen2_config
from edgesdk.cloud.families.qwen3 import qwen3_config
from edgesdk.cloud.untrusted import malformed
from edgesdk.errors import ModelError

if TYPE_CHECKING:  # declarations need no torch
    from edgesdk.cloud.checkpoint import Checkpoint

__all__ = ["FAMILIES", "Family", "find_family", "load_model", "unused_tensors"]


@dataclass(frozen=True)
class Family:
    """A model architecture. To add one: a file with its `config` function, and a line in FAMILIES.

    model_types: values of `model_type` in config.json     config: from that configuration to blocks
    tensors: name and shape of each tensor that the blocks are made from
    """

    name: str
    model_types: tuple[str, ...]
    config: Callable[[Mapping[str, Any]], ModelConfig]
    tensors: Callable[[ModelConfig], dict[str, tuple[int, ...]]] = expected_tensors


FAMILIES = (
    Family("llama", ("llama",), llama_config),
    Family("mistral", ("mistral",), mistral_config),
    Family("qwen2", ("qwen2",), qwen2_config),
    Family("qwen3", ("qwen3",), qwen3_config),
    Family("gemma2", ("gemma2",), gemma2_config),
    Family("gemma3", ("gemma3_text",), gemma3_config),
    Family("phi3", ("phi3",), phi3_config),
    Family("mamba2", ("mamba2",), mamba2_config),
    Family("bamba", ("bamba",), bamba_config),
    Family("nemotron_h", ("nemotron_h",), nemotron_h_config),
)

_RECOMPUTED = re.compile(r".*\.rotary_emb\.(inv_freq|cos_cached|sin_cached)")  # buffers that older checkpoints saved


def find_family(config: Mapping[str, Any]) -> Family:
    """The family of a Hugging Face configuration, by its `model_type`. Raises ModelError when none knows it."""
    model_type = config.get("model_type")
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    known = ", ".join(sorted(known for family in FAMILIES for known in family.model_types))
    raise ModelError(
        f"no family compiles models of model_type {model_type!r}, known are: {known}",
        hint="a family is one file in cloud/families; docs/guides/add-a-family.md shows how to add one",
    )


def load_model(checkpoint: Checkpoint) -> ModelConfig:
    """The blocks of a checkpoint; every tensor they need is there, readable and of the right shape.

    Raises one ModelError that lists all missing, unreadable and mis-shaped tensors (and those that nothing uses:
    a missing tensor is often there under another name).
    """
    family = find_family(checkpoint.config)
    with malformed(f"the configuration in {checkpoint.source.path}"):  # families expect the types of transformers
        config = replace(family.config(checkpoint.config), name=checkpoint.source.name)
        expected = family.tensors(config)
    present = [name for name in expected if name in checkpoint.tensors]
    shapes = {name: checkpoint.shape(name) for name in present}
    problems = _listed("missing", (name for name in expected if name not in checkpoint.tensors))
    problems += [
        f"wrong shape: {name} is {_shape(shapes[name])}, expected {_shape(expected[name])}"
        for name in present
        if shapes[name] != expected[name]
    ]
    problems += [f"not readable: {name} {refusal}" for name in present if (refusal := checkpoint.tensors[name].refusal)]
    if problems:
        lines = "\n".join(f"  {line}" for line in problems + _listed("not used", unused_tensors(checkpoint, config)))
        raise ModelError(
            f"the tensors in {checkpoint.source.path} do not fit its configuration (family {family.name}):\n{lines}",
            hint="a head or bias too much or too little usually means that tie_word_embeddings or attention_bias in "
            "config.json does not describe these weights",
        )
    return config


def unused_tensors(checkpoint: Checkpoint, config: ModelConfig) -> tuple[str, ...]:
    """Names in the checkpoint that no block reads, worth a warning: the model may have parts that its family lacks."""
    expected = find_family(checkpoint.config).tensors(config)
    return tuple(name for name in checkpoint.names if name not in expected and not _RECOMPUTED.fullmatch(name))


def _listed(problem: str, names: Iterable[str]) -> list[str]:
    """One line per name; names that differ only in their layer share a line, which says the layers."""
    layers: dict[str, list[str]] = defaultdict(list)
    for name in names:
        match = re.search(r"(?<=\.)\d+(?=\.)", name)
        pattern = name if match is None else f"{name[: match.start()]}N{name[match.end() :]}"
        layers[pattern] += [] if match is None else [match.group()]
    return [f"{problem}: {name}" + (f" for N = {', '.join(n)}" if n else "") for name, n in layers.items()]


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a scalar"
