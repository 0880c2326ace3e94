"""Models for measuring speed, as ours and as the peer's: speed depends on shapes and bit widths, not on values.

    python benchmarks/shapes.py OUT.edge     # Llama-3.2-1B's exact shape with random codes, 1.1 GB, half a minute

Block weights have 4 bits in groups of 32, the embedding 6: the bits per weight of Q4_0 and about those of Q6_K.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from edgesdk.cloud.checkpoint import open_checkpoint
from edgesdk.cloud.families.blocks import Attention, ModelConfig
from edgesdk.cloud.families.llama import llama_config
from edgesdk.cloud.pack import BlockVectors, QuantizedWeight, write_artifact
from edgesdk.cloud.sizes import Allocation, LevelPlan, PackedSizes, full_allocation, kept_shapes, weight_group
from edgesdk.cloud.tokenizer_gguf import read_tokenizer_gguf
from edgesdk.cloud.tokenizer_tables import UNUSED, tables
from edgesdk.formats.axes import frequency_order

__all__ = [
    "LLAMA_1B",
    "QUICK_SHAPE",
    "RATES",
    "SMOLLM2_135M",
    "demo_gguf",
    "shape_config",
    "uniform_ladder",
    "write_shape",
]

RATES = (0.35, 0.25, 0.15, 0.0)
LLAMA_1B: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 8192,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}
"""Llama-3.2-1B's config.json, as far as it describes the shape."""

SMOLLM2_135M: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100000.0,
}
"""SmolLM2-135M's, likewise."""

QUICK_SHAPE: dict[str, Any] = LLAMA_1B | {
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 1024,
    "vocab_size": 49408,
    "max_position_embeddings": 2048,
}
"""A shape for smoke runs."""

_GROUP = 32
_SPREAD = {2: 18.0, 3: 17.0, 4: 16.0, 6: 18.5}  # standard deviation of random codes' values
_CODEBOOKS = {
    2: (-25, -8, 8, 25),
    3: (-29, -18, -10, -3, 3, 10, 18, 29),
    4: (-32, -26, -21, -16, -12, -9, -6, -3, 0, 3, 6, 9, 13, 17, 22, 28),
}


def demo_gguf() -> Path:
    """The GGUF file of the demo model."""
    return open_checkpoint("smollm2").source.path


def shape_config(config: dict[str, Any], name: str) -> ModelConfig:
    """The blocks of a Hugging Face configuration of the llama family."""
    return replace(llama_config(config), name=name)


def uniform_ladder(config: ModelConfig, rates: Sequence[float]) -> list[Allocation]:
    """One allocation per rate, largest first: all axes are cut by about the rate, MLPs until it is reached."""
    sizes = PackedSizes(config, _GROUP)
    whole = sizes.level(full_allocation(config))
    return [_largest(config, sizes, rate, (1 - rate) * whole) if rate else full_allocation(config) for rate in rates]


def _largest(config: ModelConfig, sizes: PackedSizes, rate: float, max_bytes: float) -> Allocation:
    """The largest allocation of at most these bytes whose heads are cut by about `rate`."""

    def allocation(step: int) -> Allocation:
        kept = []
        for block in config.blocks:
            if isinstance(block, Attention):
                kept.append(tuple(round(a.size * (1 - rate) / a.quantum) * a.quantum for a in block.axes))
            else:
                kept.append(tuple(min(a.size, step * a.quantum) for a in block.axes))
        return tuple(kept)

    steps = max(a.size // a.quantum for block in config.blocks for a in block.axes if a.name == "width")
    return max((a for a in map(allocation, range(1, steps + 1)) if sizes.level(a) <= max_bytes), key=sizes.level)


def write_shape(
    path: Path,
    config: ModelConfig,
    rates: Sequence[float] = RATES,
    seed: int = 0,
    bits: int = 4,
    vectors: Callable[[int], BlockVectors] | None = None,
) -> list[dict[str, Any]]:
    """Writes an artifact of this shape with random weights; returns its level records.

    rates: of the levels, largest first, ending with 0; bits: of all block weights; vectors: what a block keeps in
    float, by index (None: what a llama's does, gains of 1). The tokenizer is the demo model's, with unused tokens
    behind.
    """
    ladder = uniform_ladder(config, rates)
    plans = [LevelPlan.of(config, allocation, bits, model_bits=6) for allocation in ladder]
    sizes = [PackedSizes(config, _GROUP).level(allocation, plans[0].bits) for allocation in ladder]

    @lru_cache(maxsize=4)
    def weight(index: int | None, role: str, bits: int) -> QuantizedWeight:
        if index is None:
            return _random_weight(np.random.default_rng(seed), config.vocab_size, config.d_model, bits, _GROUP)
        block = config.blocks[index]
        rows, columns = kept_shapes(block, tuple(a.size for a in block.axes), config.d_model)[role]
        rng = np.random.default_rng([seed, index, *role.encode()])
        return _random_weight(rng, rows, columns, bits, weight_group(block, role, _GROUP))

    def plain_vectors(index: int) -> BlockVectors:
        block = config.blocks[index]
        made = {"norm": np.ones(config.d_model, np.float32)}
        if isinstance(block, Attention):
            order = frequency_order(block.n_kv_heads, block.head_dim, block.axes[0].quantum)
            made["inv_freq"] = np.tile(np.array(block.inv_freq, np.float32), block.n_kv_heads)[order]
        bias = np.full(config.d_model, 0.001, np.float32)
        return BlockVectors(made, (*(bias for _ in ladder[:-1]), None))

    vocabulary, _ = read_tokenizer_gguf(demo_gguf())
    n_more = config.vocab_size - len(vocabulary.tokens)
    vocabulary.tokens.extend(f"<|unused_{i}|>".encode() for i in range(n_more))
    vocabulary.kinds.extend([UNUSED] * n_more)
    tokenizer = vocabulary.fields | {"n_tokens": config.vocab_size, "n_merges": len(vocabulary.merges), "chat": None}
    model_tensors: dict[str, Any] = {
        "norm": np.ones(config.d_model, np.float32),
        **tables(vocabulary),
    }
    levels = [
        {
            "rate": 1 - size / sizes[-1],
            "block_bytes": size,
            "allocation": [list(kept) for kept in allocation],
            "perplexity": None,
            "kl": None,
            "gave_up": {},
        }
        for size, allocation in zip(sizes, ladder, strict=True)
    ]
    metadata = {"tokenizer": tokenizer, "evaluation": None, "provenance": {"source": "random", "seed": seed}}
    return write_artifact(path, config, plans, weight, vectors or plain_vectors, model_tensors, metadata, levels)


def _random_weight(rng: np.random.Generator, rows: int, columns: int, bits: int, group: int) -> QuantizedWeight:
    """Random codes whose values have a standard deviation of about 1 / sqrt(columns)."""
    flat = np.frombuffer(rng.bytes(rows * columns), np.uint8).reshape(rows, columns)
    scales = rng.uniform(0.5, 1.5, (rows, -(-columns // group))) / (_SPREAD[bits] * np.sqrt(columns))
    codebook = _CODEBOOKS.get(bits)
    return QuantizedWeight(flat & (2**bits - 1), scales.astype(np.float16), bits, group, codebook)


def main() -> None:
    """Writes the file that is named."""
    parser = argparse.ArgumentParser(description="write an artifact of Llama-3.2-1B's shape with random weights")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    for level in write_shape(arguments.out, shape_config(LLAMA_1B, "Llama-3.2-1B shape")):
        print(f"rate {level['rate']:.4f}: {level['mapped_bytes'] / 1e6:.1f} MB mapped")


if __name__ == "__main__":
    main()
