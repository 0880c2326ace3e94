"""Small random Mamba-2 checkpoints, as transformers writes them, with the tokenizer of tiny_llama."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_llama import write_tokenizer
from transformers import Mamba2Config, Mamba2ForCausalLM

__all__ = ["VARIANTS", "randomize", "tiny_mamba", "write_tiny_mamba"]

# Shapes and options that the compiler must carry from end to end.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "one_group": {"n_groups": 1, "state_size": 32},
    "group_per_head": {"n_groups": 8},
    "biases": {"use_bias": True},
    "no_conv_bias": {"use_conv_bias": False, "conv_kernel": 3},
    "limits": {"time_step_limit": (0.3, 1.2)},
}


def tiny_mamba(seed: int = 0, **overrides: Any) -> Mamba2ForCausalLM:
    """A random model of two layers, 8 heads of 16, states of 16 in 2 groups; `overrides` are fields of Mamba2Config."""
    config = {
        "vocab_size": 320,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_heads": 8,
        "head_dim": 16,
        "state_size": 16,
        "n_groups": 2,
        "expand": 2,
        "chunk_size": 16,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
    }
    torch.manual_seed(seed)
    return randomize(Mamba2ForCausalLM(Mamba2Config(**{**config, **overrides})), seed)


def randomize(model: Any, seed: int) -> Any:
    """Random gains, biases and decays: transformers would leave most at 1 and 0, which hides mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith(("norm.weight", "norm_f.weight", "layernorm.weight", ".D")):
                parameter.copy_(1 + 0.3 * noise)
            elif name.endswith("A_log"):
                parameter.copy_(0.7 * noise)
            elif name.endswith("dt_bias"):
                parameter.copy_(noise - 1)
            elif name.endswith("bias"):
                parameter.copy_(0.2 * noise)
            elif name.endswith("conv1d.weight"):
                parameter.copy_(0.5 * noise)
            elif parameter.ndim == 2:
                parameter.copy_(noise / parameter.shape[1] ** 0.5)
    return model.eval()


def write_tiny_mamba(folder: Path, seed: int = 0, **overrides: Any) -> Mamba2ForCausalLM:
    """Writes a checkpoint folder with a tokenizer and returns the model."""
    model = tiny_mamba(seed, **overrides)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return model
