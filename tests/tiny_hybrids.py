"""Small random checkpoints of hybrids (Bamba, Nemotron-H), as transformers writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_llama import write_tokenizer
from tiny_mamba import randomize
from transformers import BambaConfig, BambaForCausalLM, NemotronHConfig, NemotronHForCausalLM

__all__ = ["VARIANTS", "write_tiny_hybrid"]

_COMMON = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}
_BAMBA = {
    **_COMMON,
    "num_hidden_layers": 3,
    "attn_layer_indices": [1],
    "mamba_n_heads": 8,
    "mamba_d_state": 16,
    "mamba_n_groups": 2,
    "mamba_chunk_size": 16,
    "max_position_embeddings": 512,
}
# Steps are cut to time_step_limit here, to time_step_min in transformers (families/nemotron_h.py): neither does much.
_NEMOTRON = {
    **_COMMON,
    "layers_block_type": ["linear_attention", "mlp", "full_attention", "linear_attention", "mlp"],
    "head_dim": 16,
    "mamba_num_heads": 8,
    "mamba_head_dim": 16,
    "ssm_state_size": 16,
    "n_groups": 2,
    "chunk_size": 16,
    "time_step_min": 1e-9,
    "max_position_embeddings": 512,
}

# family, and what differs from its plain form
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "bamba": ("bamba", {}),
    "bamba biases": ("bamba", {"attention_bias": True, "mlp_bias": True, "mamba_proj_bias": True}),
    "bamba one group": (
        "bamba",
        {"mamba_n_groups": 1, "mamba_d_head": "auto", "mamba_conv_bias": False},
    ),
    "nemotron": ("nemotron_h", {}),
    "nemotron biases": ("nemotron_h", {"mlp_bias": True, "use_bias": True}),
    "nemotron never tied": ("nemotron_h", {"tie_word_embeddings": True, "n_groups": 1}),
}


def write_tiny_hybrid(folder: Path, family: str, seed: int = 0, **overrides: Any) -> Any:
    """Writes a checkpoint folder with a tokenizer and returns the model."""
    torch.manual_seed(seed)
    model: Any
    if family == "bamba":
        model = BambaForCausalLM(BambaConfig(**{**_BAMBA, "mamba_d_head": 16, **overrides}))
    else:
        model = NemotronHForCausalLM(NemotronHConfig(**{**_NEMOTRON, **overrides}))
    model = randomize(model, seed)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return model
