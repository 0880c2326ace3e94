"""Small random checkpoints of hybrids (Bamba), as transformers writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_llama import write_tokenizer
from tiny_mamba import randomize
from transformers import BambaConfig, BambaForCausalLM

__all__ = ["VARIANTS", "write_tiny_hybrid"]

_COMMON: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}
_BAMBA: dict[str, Any] = {
    **_COMMON,
    "num_hidden_layers": 3,
    "attn_layer_indices": [1],
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_d_state": 16,
    "mamba_n_groups": 2,
    "mamba_chunk_size": 16,
    "max_position_embeddings": 512,
}
_FAMILIES: dict[str, tuple[Any, dict[str, Any]]] = {"bamba": ((BambaConfig, BambaForCausalLM), _BAMBA)}

# family, and what differs from its plain form
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "bamba": ("bamba", {}),
    "bamba biases": ("bamba", {"attention_bias": True, "mlp_bias": True, "mamba_proj_bias": True}),
    "bamba one group, head size auto": (
        "bamba",
        {"mamba_n_groups": 1, "mamba_d_head": "auto", "mamba_conv_bias": False},
    ),
    "bamba tied": ("bamba", {"tie_word_embeddings": True}),
}


def write_tiny_hybrid(folder: Path, family: str, seed: int = 0, **overrides: Any) -> Any:
    """Writes a checkpoint folder with a tokenizer and returns the model."""
    torch.manual_seed(seed)
    classes, plain = _FAMILIES[family]
    model = randomize(classes[1](classes[0](**{**plain, **overrides})), seed)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return model
