"""One moderate shape per family, as a random checkpoint that transformers writes, and as both sides' 4-bit files.

Shapes are those of published models with fewer layers and the demo model's vocabulary; where a width is no multiple
of 256, which the peer's 6-bit head needs, the next one is taken. Speed depends on shapes and bits, not on values: our
codes are random (shapes.py), theirs are the checkpoint's.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from peer import Peer
from shapes import write_shape
from transformers import AutoConfig, AutoModelForCausalLM

from edgesdk.cloud.checkpoint import open_checkpoint
from edgesdk.cloud.families import load_model
from edgesdk.cloud.pack import BlockVectors
from edgesdk.cloud.quantize.block import block_vectors
from edgesdk.cloud.reference import Decoder
from edgesdk.cloud.tokenizer import import_tokenizer, to_tokenizers

__all__ = ["QUICK", "SHAPES", "ConversionError", "write_checkpoint", "write_ours", "write_theirs"]

_COMMON: dict[str, Any] = {
    "vocab_size": 49152,
    "max_position_embeddings": 4096,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}
_LETTERS = {"M": "linear_attention", "*": "full_attention", "-": "mlp"}
_NEMOTRON = "M-M-M-M*-M-M-M-M-"
_FOREIGN = re.compile(r"layers_block_type|layer_types|n_group|topk_group|.*(expert|moe|mtp).*")


def _dense(
    model_type: str, d_model: int, width: int, layers: int, heads: int, kv: int, size: int, **own: Any
) -> dict[str, Any]:
    return {
        **_COMMON,
        "model_type": model_type,
        "hidden_size": d_model,
        "intermediate_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "head_dim": size,
        "tie_word_embeddings": True,
        **own,
    }


SHAPES: dict[str, dict[str, Any]] = {
    # Llama 3.2 1B, 4 of 16 layers
    "llama": _dense("llama", 2048, 8192, 4, 32, 8, 64),
    # Qwen2.5 1.5B, 6 of 28 layers
    "qwen2": _dense("qwen2", 1536, 8960, 6, 12, 2, 128),
    # Qwen3 0.6B, 14 of 28 layers
    "qwen3": _dense("qwen3", 1024, 3072, 14, 16, 8, 128),
    # Gemma 2 2B, 4 of 26 layers
    "gemma2": _dense("gemma2", 2304, 9216, 4, 8, 4, 256, query_pre_attn_scalar=256, sliding_window=4096),
    # Gemma 3 1B, 12 of 26 layers, 1280 columns for 1152
    "gemma3": _dense("gemma3_text", 1280, 6912, 12, 4, 1, 256, query_pre_attn_scalar=256, sliding_window=512),
    # Phi-3 mini, 3 of 32 layers
    "phi3": _dense("phi3", 3072, 8192, 3, 32, 32, 96, tie_word_embeddings=False, original_max_position_embeddings=4096),
    # Mamba-2 370M, 24 of 48 layers
    "mamba2": {
        **_COMMON,
        "model_type": "mamba2",
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_heads": 32,
        "head_dim": 64,
        "state_size": 128,
        "n_groups": 1,
        "tie_word_embeddings": True,
    },
    # Bamba 9B with a quarter of the columns, 12 of 32 layers
    "bamba": {
        **_COMMON,
        "model_type": "bamba",
        "hidden_size": 1024,
        "intermediate_size": 3584,
        "num_hidden_layers": 12,
        "attn_layer_indices": [4, 9],
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "mamba_n_heads": 32,
        "mamba_d_head": 64,
        "mamba_d_state": 128,
        "mamba_n_groups": 1,
        "tie_word_embeddings": False,
    },
    # Nemotron-H 8B with a quarter of the columns, 17 of 52 layers
    "nemotron_h": {
        **_COMMON,
        "model_type": "nemotron_h",
        "hidden_size": 1024,
        "intermediate_size": 5376,
        "layers_block_type": [_LETTERS[letter] for letter in _NEMOTRON],
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "mamba_num_heads": 32,
        "mamba_head_dim": 64,
        "ssm_state_size": 128,
        "n_groups": 8,
        "tie_word_embeddings": False,
    },
}
"""config.json by family. llama.cpp runs Mistral as a llama."""

QUICK: dict[str, dict[str, Any]] = {
    name: {**shape, "num_hidden_layers": 2} for name, shape in SHAPES.items() if name in ("qwen3", "mamba2")
}
"""Two of them with two layers, for smoke runs."""


class ConversionError(Exception):
    """The peer's converter, or its quantizer, does not take a checkpoint; the message has its last line."""


def write_checkpoint(folder: Path, shape: dict[str, Any], seed: int = 0) -> Path:
    """A random model in bfloat16 with the demo model's tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    fields = {name: value for name, value in shape.items() if name != "model_type"}
    config = AutoConfig.for_model(shape["model_type"], **fields)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    if shape["model_type"] == "nemotron_h":
        _as_published(folder / "config.json")
    library = to_tokenizers(import_tokenizer(open_checkpoint("smollm2").tokenizer_files, chat_template=None))
    library.save(str(folder / "tokenizer.json"))
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": library.id_to_token(0)}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), "utf-8")
    return folder


def _as_published(path: Path) -> None:
    """NVIDIA's files say the kinds of layers in letters and nothing of experts; transformers writes other names."""
    config = json.loads(path.read_text("utf-8"))
    config = {name: value for name, value in config.items() if not _FOREIGN.fullmatch(name)}
    config |= {"hybrid_override_pattern": _NEMOTRON, "num_hidden_layers": len(_NEMOTRON)}
    path.write_text(json.dumps(config, indent=1), "utf-8")


def write_ours(path: Path, folder: Path) -> Path:
    """The checkpoint's shape and vectors with random codes of 4 bits, 6 in the head."""
    checkpoint = open_checkpoint(str(folder))
    config = load_model(checkpoint)
    decoder = Decoder.open(checkpoint, config)

    def vectors(index: int) -> BlockVectors:
        weights = decoder.block_weights(index)
        bias = weights["bias"].numpy() if "bias" in weights else None
        return BlockVectors(block_vectors(config.blocks[index], weights), (bias,))

    write_shape(path, config, rates=(0.0,), vectors=vectors)
    return path


def write_theirs(path: Path, folder: Path, peer: Peer) -> Path:
    """The checkpoint by llama.cpp's converter, then Q4_0 by its quantizer. Raises ConversionError."""
    whole = path.with_name(path.name + ".bf16")
    try:
        _run([sys.executable, Path(__file__).with_name("peer_convert.py"), peer.folder, folder, whole])
        _run([peer.program("llama-quantize"), whole, path, "Q4_0"])
    finally:
        whole.unlink(missing_ok=True)
    return path


def _run(command: list[Any]) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        raise ConversionError((done.stderr or done.stdout).strip().splitlines()[-1])
