"""Artifacts with random weights for tests and speed benchmarks: real layout, no compiler and no torch.

python tests/tiny_model.py OUT.edge [--seed N]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesdk.cloud.families.blocks import Attention, Mlp, ModelConfig, Ssm
from edgesdk.cloud.pack import BlockVectors, QuantizedWeight, write_artifact
from edgesdk.cloud.sizes import Allocation, LevelPlan, PackedSizes, kept_shapes, model_panels, weight_group
from edgesdk.formats import Artifact, ArtifactWriter, Piece
from edgesdk.formats.axes import frequency_order
from edgesdk.formats.rules import TABLES
from edgesdk.formats.tiles import CODEBOOK_BITS, pack_panel, packed_bytes

CODEBOOKS = {
    2: (-25, -8, 8, 25),
    3: (-32, -20, -11, -4, 4, 11, 20, 31),
    4: (-32, -26, -21, -16, -12, -9, -6, -3, 0, 3, 6, 9, 13, 17, 22, 28),
}
_SPREAD = {2: 18.5, 3: 19.5, 4: 16.0, 6: 18.5, 8: 73.0}  # standard deviation of random codes' values


def tiny_config(
    *,
    n_layers: int = 2,
    d_model: int = 64,
    n_heads: int = 6,
    n_kv_heads: int = 2,
    head_dim: int = 32,
    width: int = 160,
    vocab_size: int = 300,
    max_context: int = 512,
    tied_head: bool = True,
    biases: bool = False,
    norms: tuple[str, ...] = (),
    windows: tuple[int | None, ...] = (None,),
    softcap: float | None = None,
    logit_softcap: float | None = None,
    activation: str = "silu",
) -> ModelConfig:
    """A llama-shaped model whose axes have several steps; 300 tokens = 256 bytes, specials and merges.

    norms: `post_norm` and `qk_norm` in addition to the usual ones; windows: of the layers, in turn
    """
    sources = {f"{role}_bias": "" for role in ("q", "k")} if biases else {}
    post_norm = {"post_norm": ""} if "post_norm" in norms else {}
    sources |= post_norm | ({"q_norm": "", "k_norm": ""} if "qk_norm" in norms else {})
    inv_freq = tuple(float(10000.0 ** (-2 * i / head_dim)) for i in range(head_dim // 2))
    blocks: list[Attention | Mlp] = []
    for layer in range(n_layers):
        scale = head_dim**-0.5
        attention = Attention(f"blk.{layer}.attn", n_heads, n_kv_heads, head_dim, scale, inv_freq, 1.0, sources)
        blocks.append(replace(attention, window=windows[layer % len(windows)], softcap=softcap))
        mlp_biases = {"gate_bias": "", "up_bias": ""} if biases else {}
        blocks.append(Mlp(f"blk.{layer}.mlp", width, activation, mlp_biases | post_norm))
    return ModelConfig(
        "llama", "tiny", d_model, vocab_size, max_context, 1e-5, 1.0, tied_head, tuple(blocks), {}, logit_softcap
    )


def tiny_ssm_config(
    *,
    n_layers: int = 2,
    d_model: int = 64,
    n_heads: int = 4,
    n_groups: int = 2,
    head_dim: int = 32,
    state_size: int = 32,
    conv_kernel: int = 4,
    norm_groups: int = 2,
    step_limits: tuple[float, float] = (0.0, float("inf")),
    vocab_size: int = 300,
    biases: bool = False,
    attention: bool = False,
) -> ModelConfig:
    """A Mamba-2 model whose axes have several steps; `attention`: with an attention and an MLP behind the mixers."""
    sources = {"in_bias": ""} if biases else {}
    shape = (n_heads, n_groups, head_dim, state_size, conv_kernel, norm_groups, step_limits)
    blocks: list[Attention | Mlp | Ssm] = [Ssm(f"blk.{i}.ssm", *shape, sources) for i in range(n_layers)]
    if attention:
        blocks += tiny_config(n_layers=1, d_model=d_model).blocks
        blocks[-2:] = [replace(block, name=f"blk.{n_layers}.{block.kind}") for block in blocks[-2:]]
    return ModelConfig("mamba2", "tiny", d_model, vocab_size, 512, 1e-5, 1.0, True, tuple(blocks), {})


def nested_ladder(
    config: ModelConfig, keeps: Sequence[float] = (0.5, 0.75, 1.0), drop_first: bool = True
) -> list[Allocation]:
    """Allocations that keep about these shares; `drop_first` leaves the last block out of the smallest level."""
    ladder = []
    for n, keep in enumerate(keeps):
        kept = []
        for b, block in enumerate(config.blocks):
            dropped = drop_first and n == 0 and b == len(config.blocks) - 1
            sizes = []
            for axis in block.axes:
                steps = max(1, round(axis.size * keep / axis.quantum))
                sizes.append(0 if dropped else min(axis.size, steps * axis.quantum))
            kept.append(tuple(sizes))
        ladder.append(tuple(kept))
    ladder[-1] = tuple(tuple(axis.size for axis in block.axes) for block in config.blocks)
    return ladder


def random_weight(
    rng: np.random.Generator, rows: int, columns: int, bits: int, group: int, gain: float = 1.0
) -> QuantizedWeight:
    """Random codes whose dequantized values have a standard deviation of about gain / sqrt(columns)."""
    n_groups = -(-columns // group)
    scales = (rng.uniform(0.5, 1.5, (rows, n_groups)) * gain / _SPREAD[bits] / np.sqrt(columns)).astype(np.float16)
    if bits != 8:
        codes = rng.integers(0, 1 << bits, (rows, columns)).astype(np.uint8)
        return QuantizedWeight(codes, scales, bits, group, CODEBOOKS.get(bits))
    codes = rng.integers(-127, 128, (rows, columns)).astype(np.int8).view(np.uint8)
    return QuantizedWeight(codes, scales, 8, group, None)


def byte_tokenizer(vocab_size: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """A byte-level tokenizer without merges: ids 0..255 are bytes, 256 <bos>, 257 <eos>, the rest unused."""
    texts = [bytes([i]) for i in range(256)] + [b"<bos>", b"<eos>"]
    texts += [f"<unused{i}>".encode() for i in range(vocab_size - len(texts))]
    kinds = np.array([0] * 256 + [1, 1] + [4] * (vocab_size - 258), np.uint8)
    order = sorted(range(vocab_size), key=lambda i: texts[i])
    header = {
        "model": "byte_bpe",
        "n_tokens": vocab_size,
        "n_merges": 0,
        "pre_tokenizer": ["gpt2"],
        "byte_fallback": False,
        "add_bos": False,
        "bos_id": 256,
        "eos_ids": [257],
        "unk_id": None,
        "chat": None,
    }
    tables = {
        "tokenizer.bytes": np.frombuffer(b"".join(texts), np.uint8),
        "tokenizer.offsets": np.cumsum([0] + [len(t) for t in texts]).astype(np.uint32),
        "tokenizer.kinds": kinds,
        "tokenizer.sorted": np.array(order, np.uint32),
        "tokenizer.merges": np.zeros((0, 4), np.uint32),
    }
    return header, tables


def table_bits(config: ModelConfig) -> list[tuple[int, ...]]:
    """`model_bits` of three levels at which rows of embedding and head lose their bits in turn."""
    n = len(model_panels(config))
    return [tuple(bits[i % len(bits)] for i in range(n)) for bits in ((4, 6, 3, 4), (4, 8, 6, 3, 6), (6, 8))]


def write_random_artifact(
    path: Path,
    config: ModelConfig,
    ladder: Sequence[Allocation],
    seed: int = 0,
    bits: Mapping[str, int] | None = None,
    model_bits: Sequence[int | tuple[int, ...]] | None = None,
    tokenizer: tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]] | None = None,
    full_bias: bool = False,
) -> list[dict[str, Any]]:
    """Writes an artifact of this shape with random weights and level biases; returns its level records.

    bits: of block weights by role, 4 where a role is not named; model_bits: of embedding and head at each level (8),
        or of each of their panels
    tokenizer: header and tables, `byte_tokenizer` by default; full_bias: the full level has biases too
    """
    top = len(ladder) - 1
    bits = bits or {}

    @lru_cache(maxsize=8)
    def weight(index: int | None, role: str, n_bits: int) -> QuantizedWeight:
        rng = np.random.default_rng([seed, 10**6 if index is None else index, *role.encode()])
        if index is None:
            gain = np.sqrt(config.d_model) if role == "embed" else 1.0
            return random_weight(rng, config.vocab_size, config.d_model, n_bits, 32, gain=gain)
        block = config.blocks[index]
        full = tuple(axis.size for axis in block.axes)
        rows, columns = kept_shapes(block, full, config.d_model)[role]
        return random_weight(rng, rows, columns, n_bits, weight_group(block, role, 32))

    def block_vectors(index: int) -> BlockVectors:
        block = config.blocks[index]
        rng = np.random.default_rng([seed, index])
        vectors: dict[str, NDArray[Any]] = {"norm": rng.uniform(0.5, 1.5, config.d_model).astype(np.float32)}
        if block.post_norm:
            vectors["post_norm"] = rng.uniform(0.5, 1.5, config.d_model).astype(np.float32)
        if isinstance(block, Attention) and block.qk_norm:
            vectors |= {f"{r}_norm": rng.uniform(0.5, 1.5, block.head_dim).astype(np.float32) for r in "qk"}
        if isinstance(block, Attention):
            order = frequency_order(block.n_kv_heads, block.head_dim, block.axes[0].quantum)
            vectors["inv_freq"] = np.tile(np.array(block.inv_freq, np.float32), block.n_kv_heads)[order]
            for role, heads in (("q", block.n_heads), ("k", block.n_kv_heads)):
                if f"{role}_bias" in block.sources:
                    vectors[f"{role}_bias"] = rng.normal(0, 0.1, heads * block.head_dim).astype(np.float32)
        elif isinstance(block, Ssm):
            vectors |= _ssm_vectors(block, config.d_model, rng)
        elif "gate_bias" in block.sources:
            for role in ("gate", "up"):
                vectors[f"{role}_bias"] = rng.normal(0, 0.1, block.width).astype(np.float32)
        bias = tuple(
            None if level == top and not full_bias else rng.normal(0, 0.02, config.d_model).astype(np.float32)
            for level in range(top + 1)
        )
        return BlockVectors(vectors, bias)

    rng = np.random.default_rng([seed, 10**6])
    header, tables = byte_tokenizer(config.vocab_size) if tokenizer is None else tokenizer
    model_tensors: dict[str, Any] = {
        "norm": rng.uniform(0.5, 1.5, config.d_model).astype(np.float32),
        **tables,
    }
    by_block = tuple(tuple(bits.get(w.role, 4) for w in block.weights) for block in config.blocks)
    n_panels = len(model_panels(config))
    plans = [
        LevelPlan(tuple(map(tuple, allocation)), by_block, own if isinstance(own, tuple) else (own,) * n_panels)
        for allocation, own in zip(ladder, model_bits or [8] * len(ladder), strict=True)
    ]
    sizes = [PackedSizes(config).level(allocation, by_block) for allocation in ladder]
    levels = [
        {
            "rate": 1 - size / sizes[-1],
            "block_bytes": size,
            "allocation": allocation,
            "perplexity": None,
            "kl": None,
            "gave_up": {},
        }
        for size, allocation in zip(sizes, ladder, strict=True)
    ]
    metadata = {"tokenizer": header, "evaluation": None, "provenance": {"source": "random", "seed": seed}}
    return write_artifact(path, config, plans, weight, block_vectors, model_tensors, metadata, levels)


def _ssm_vectors(block: Ssm, d_model: int, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    heads, inner, state = block.n_heads, block.n_heads * block.head_dim, block.n_groups * block.state_size
    vectors = {
        "dt": rng.normal(0, d_model**-0.5, heads * d_model).astype(np.float16),
        "dt_bias": rng.uniform(-4, 1, heads),
        "a": -np.exp(rng.uniform(-1, 2, heads)),
        "d": rng.normal(0, 1, heads),
        "gain": rng.uniform(0.5, 1.5, inner),
    }
    for role, rows in (("x", inner), ("b", state), ("c", state)):
        vectors[f"{role}_conv"] = rng.normal(0, 0.5, (rows, block.conv_kernel + 1))
    if "in_bias" in block.sources:
        for role, rows in (("z", inner), ("x", inner), ("b", state), ("c", state)):
            vectors[f"{role}_bias"] = rng.normal(0, 0.1, rows)
    return {name: v if v.dtype == np.float16 else v.astype(np.float32) for name, v in vectors.items()}


def mix_bits(source: Path, target: Path, bits_of: Callable[[str], int], seed: int = 0) -> None:
    """Copies an artifact, with new random codes in its weights; `bits_of` gives a panel's bits by its name.

    Embedding and head get at least 3 bits, as rule 3 of SPEC.md has it.
    """
    artifact = Artifact.open(source)
    panels: dict[str, tuple[int, ...]] = {name: tuple(box) for name, box in artifact.edge["panels"].items()}
    writer = ArtifactWriter(len(artifact.levels))
    rng = np.random.default_rng(seed)
    for name, info in artifact.tensors.items():
        if name.startswith("pad."):
            continue
        stem, _, first = name.rpartition("/")
        last = next(run.last_level for run in artifact.runs if run.begin <= info.begin < run.end)
        data = np.asarray(artifact.tensor(name))
        if name in panels:
            row, row_end, column, column_end, _, group, _ = panels[name]
            bits = max(bits_of(name), 3) if stem.partition(".")[0] in TABLES else bits_of(name)
            weight = random_weight(rng, row_end - row, column_end - column, bits, group)
            data = pack_panel(weight.codes, weight.scales, bits, group)
            index = CODEBOOK_BITS.index(bits) if bits in CODEBOOK_BITS else -1
            panels[name] = (row, row_end, column, column_end, bits, group, index)
        writer.add(Piece(stem, int(first), last, str(data.dtype), data.shape, data, panels.get(name)))
    levels: list[dict[str, Any]] = []
    for level in artifact.levels:
        boxes = [
            panels[name] for name in artifact.used_names(level.index) if name in panels and name.startswith("blk.")
        ]
        size = sum(packed_bytes(b[1] - b[0], b[3] - b[2], b[4], b[5]) for b in boxes)
        levels.append({"block_bytes": size, "allocation": level.allocation, "perplexity": None, "kl": None})
    for record in levels:
        record["rate"] = 1 - record["block_bytes"] / levels[-1]["block_bytes"]
    kept = ("model", "tokenizer", "evaluation", "provenance")
    metadata = {key: artifact.edge[key] for key in kept} | {"codebooks": [CODEBOOKS[bits] for bits in CODEBOOK_BITS]}
    writer.write(target, metadata, levels)


def main() -> None:
    parser = argparse.ArgumentParser(description="write a small random artifact")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    config = tiny_config()
    write_random_artifact(arguments.out, config, nested_ladder(config), arguments.seed)


if __name__ == "__main__":
    main()
