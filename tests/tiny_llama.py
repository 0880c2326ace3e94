"""Small random Llama checkpoints, as transformers writes them, with a tokenizer that is trained here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEXT = """The ladder holds every size of the model, and a prefix of the file is a smaller one.
A device that grants little memory maps the first runs; one that grants more maps the rest as well.
Numbers such as 3, 14 and 159 occur, so do "quotes", (brackets), naïve words and a few emoji: 🙂🚀.
def forward(tokens): return [step(token) for token in tokens]  # and some code
"""
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}

# Shapes and options that the compiler must carry from end to end.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "untied": {"tie_word_embeddings": False},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "llama3": {"rope_parameters": LLAMA3},
    "yarn": {"rope_parameters": YARN},
    "wide_heads": {"head_dim": 48},
    "multi_head": {"num_key_value_heads": 4},
    "multi_query": {"num_key_value_heads": 1},
}


def tiny_model(seed: int = 0, **overrides: Any) -> LlamaForCausalLM:
    """A random model of two layers, 4 query and 2 key/value heads of 16; `overrides` are fields of LlamaConfig.

    Gains and biases are random too: transformers would leave them at 1 and 0, which hides mistakes.
    """
    config = {
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "initializer_range": 0.15,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**{**config, **overrides})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5)
            elif name.endswith(".bias"):
                parameter.normal_(0, 0.2)
    return model


def write_tokenizer(folder: Path, vocab_size: int = 320) -> None:
    """Trains a byte-level BPE on TEXT and writes it as transformers does: tokenizer.json and tokenizer_config.json."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|im_end|>",
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def write_tiny_llama(
    folder: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32, max_shard_size: str = "1GB", **overrides: Any
) -> LlamaForCausalLM:
    """Writes a whole checkpoint directory and returns the model, in float32, for comparison."""
    model = tiny_model(seed, **overrides).to(dtype)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    write_tokenizer(folder, model.config.vocab_size)
    return model.to(torch.float32)
