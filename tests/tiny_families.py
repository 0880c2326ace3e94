"""Small random checkpoints of every dense family, as transformers writes them; a tokenizer that is trained here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from tiny_llama import write_tokenizer
from transformers import PreTrainedModel

SHAPE = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": None,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 64}
LOCAL_AND_GLOBAL = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
}
WINDOWS = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
GEMMA = {"head_dim": 32, "query_pre_attn_scalar": 24, "sliding_window": 8}

# name of a variant: the class prefix in transformers, and fields of its configuration
VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "llama": ("Llama", {"head_dim": 16, "attention_bias": True}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mistral-window": ("Mistral", {"sliding_window": 8, "head_dim": 32}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2-untied": ("Qwen2", {"tie_word_embeddings": False, "num_key_value_heads": 1}),
    "qwen2-window": ("Qwen2", WINDOWS),
    "qwen3": ("Qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    "qwen3-bias": ("Qwen3", {"head_dim": 16, "attention_bias": True}),
    "qwen3-yarn-window": ("Qwen3", {"head_dim": 32, "rope_parameters": YARN, **WINDOWS}),
    "gemma2": ("Gemma2", {**GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
    "gemma2-bias": ("Gemma2", {**GEMMA, "attention_bias": True, "attn_logit_softcapping": None}),
    "gemma3": ("Gemma3", {**GEMMA, "num_hidden_layers": 3, "sliding_window_pattern": 3}),
    "gemma3-scaled": (
        "Gemma3",
        {**GEMMA, "rope_parameters": LOCAL_AND_GLOBAL, "layer_types": ["full_attention", "sliding_attention"]},
    ),
    "phi3": ("Phi3", {}),
    "phi3-window": ("Phi3", {"sliding_window": 8, "num_key_value_heads": 4, "tie_word_embeddings": True}),
}


def tiny_family(variant: str, seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """A random model; gains and biases are random too: transformers would leave them at 1 (or 0) and 0."""
    prefix, fields = VARIANTS[variant]
    config_name = "Gemma3TextConfig" if prefix == "Gemma3" else f"{prefix}Config"
    config = getattr(transformers, config_name)(**{**SHAPE, "initializer_range": 0.1, **fields, **overrides})
    config._attn_implementation = "eager"  # the only one that caps scores
    torch.manual_seed(seed)
    model: PreTrainedModel = getattr(transformers, f"{prefix}ForCausalLM")(config).eval()
    offset = 1.0 if prefix.startswith("Gemma") else 0.0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5 - offset, 1.5 - offset)
            elif name.endswith(".bias"):
                parameter.normal_(0, 0.2)
    return model


def write_tiny_family(folder: Path, variant: str, seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """Writes a whole checkpoint directory and returns the model for comparison."""
    model = tiny_family(variant, seed, **overrides)
    model.save_pretrained(folder)
    write_tokenizer(folder, model.config.vocab_size)
    return model
