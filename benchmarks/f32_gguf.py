"""A Hugging Face folder of a small llama as an F32 GGUF that llama.cpp quantizes, tokenizer included.

Sources: the GGUF specification; llama.cpp's converter, which stores rows of query and key heads as (pair, half).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import torch

from edgesdk.cloud.checkpoint import open_checkpoint

__all__ = ["write_f32_gguf"]

_MODEL_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_PRE_TOKENIZER = "gpt-2"  # what a ByteLevel pre-tokenizer does


def write_f32_gguf(folder: Path, out: Path) -> Path:
    """folder: config.json, tokenizer.json (byte-level BPE) and weights, without biases or rotary scaling."""
    checkpoint = open_checkpoint(str(folder))
    config = checkpoint.config
    temporary = out.with_name(out.name + ".partial")
    writer = gguf.GGUFWriter(temporary, "llama")
    _add_config(writer, config)
    _add_tokenizer(writer, json.loads((folder / "tokenizer.json").read_text("utf-8")), config)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for name in checkpoint.names:
        stored = _gguf_name(name)
        if stored == "output.weight" and config["tie_word_embeddings"]:
            continue
        values = checkpoint.tensor(name)
        n_heads = heads.get(stored.split(".")[-2])
        writer.add_tensor(stored, _interleaved(values, n_heads).numpy() if n_heads else values.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(temporary, out)
    return out


def _add_config(writer: Any, config: Mapping[str, Any]) -> None:
    n_heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // n_heads
    writer.add_name("trained")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(n_heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    rope = config.get("rope_parameters") or config
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def _add_tokenizer(writer: Any, tokenizer: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    ids = dict(tokenizer["model"]["vocab"])
    special = {added["id"]: added["content"] for added in tokenizer["added_tokens"] if added["special"]}
    ids |= {content: i for i, content in special.items()}
    tokens = sorted(ids, key=lambda token: ids[token])
    if [ids[token] for token in tokens] != list(range(config["vocab_size"])):
        raise SystemExit(f"error: the tokenizer has {len(tokens)} tokens, the embedding {config['vocab_size']} rows")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_PRE_TOKENIZER)
    writer.add_token_list(tokens)
    kinds = gguf.TokenType
    writer.add_token_types([kinds.CONTROL if i in special else kinds.NORMAL for i in range(len(tokens))])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)


def _gguf_name(name: str) -> str:
    """`model.layers.3.self_attn.q_proj.weight` -> `blk.3.attn_q.weight`."""
    stem, _, kind = name.rpartition(".")
    if match := re.fullmatch(r"model\.layers\.(\d+)\.(.+)", stem):
        return f"blk.{match[1]}.{_LAYER_NAMES[match[2]]}.{kind}"
    return f"{_MODEL_NAMES[stem]}.{kind}"


def _interleaved(values: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of each head from (half, pair) to (pair, half): (heads * head_dim, d_model)."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return halves.transpose(1, 2).reshape(values.shape).contiguous()
