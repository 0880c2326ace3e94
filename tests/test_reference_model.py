"""The oracle itself: its arithmetic against exact rationals, its model against transformers."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from reference_model import ReferenceModel, cosine_sine, edge_exp, fma, lane_dot
from tiny_model import nested_ladder, tiny_config, write_random_artifact
from transformers import LlamaConfig, LlamaForCausalLM

from edgesdk.cloud.families.blocks import Attention, ModelConfig

TOKENS = np.random.default_rng(7).integers(0, 300, 24)


def correctly_rounded(exact: Fraction) -> np.float32:
    """The float32 nearest to a rational, ties to even."""
    guess = np.float32(float(exact))
    around = [np.nextafter(guess, np.float32(-np.inf)), guess, np.nextafter(guess, np.float32(np.inf))]
    return min(around, key=lambda x: (abs(Fraction(float(x)) - exact), int(x.view(np.int32)) & 1))


def test_fma_rounds_once() -> None:
    """Random values, and products next to a tie: float64 alone would round those twice and fail."""
    rng = np.random.default_rng(0)
    a, b, c = (rng.normal(size=2000).astype(np.float32) for _ in range(3))
    a[:500] = 1 + rng.integers(0, 1 << 12, 500) * np.float32(2.0**-12)
    b[:500] = 1 + rng.integers(0, 1 << 12, 500) * np.float32(2.0**-12)
    c[:500] = np.float32(2.0**-60) * rng.choice([-1, 1], 500)
    ours = fma(a, b, c)
    for x, y, z, result in zip(a, b, c, ours, strict=True):
        assert result == correctly_rounded(Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)))
    twice = (a.astype(np.float64) * b + c).astype(np.float32)
    assert (twice != ours).any()  # the cases do tell the difference


def test_exponential_within_two_units() -> None:
    x = np.linspace(-87.2, 88.3, 200_001).astype(np.float32)
    exact = np.exp(x.astype(np.float64))
    assert (np.abs(edge_exp(x) - exact) <= 2 * np.spacing(exact.astype(np.float32))).all()
    assert edge_exp(np.array([-1e30, -87.4, 0], np.float32)).tolist() == [0, 0, 1]


def test_cosine_and_sine_within_one_unit() -> None:
    angle = np.concatenate([np.linspace(-7, 7, 10_001), np.random.default_rng(0).uniform(0, 1e6, 10_000)])
    cosine, sine = cosine_sine(angle)
    np.testing.assert_allclose(cosine, np.cos(angle), rtol=0, atol=2.0**-24)
    np.testing.assert_allclose(sine, np.sin(angle), rtol=0, atol=2.0**-24)


@pytest.mark.parametrize("n", [8, 16, 40, 576])
def test_lane_dot_is_a_dot_product(n: int) -> None:
    a, b = np.random.default_rng(n).normal(size=(2, 5, n)).astype(np.float32)
    exact = np.einsum("rc,rc->r", a.astype(np.float64), b)
    bound = np.einsum("rc,rc->r", np.abs(a), np.abs(b)) * (n / 16 + 5) * 2.0**-24
    assert (np.abs(lane_dot(a, b) - exact) <= bound).all()


def natural_order(heads: int, size: int, quantum: int, paired: bool) -> list[int]:
    """Position on the axis of each (head, element), by the formulas of SPEC.md section 3."""
    positions = []
    for h in range(heads):
        for e in range(size):
            r, p = e, e % (size // 2)
            if paired:  # element e of a head is a first or second half of pair p
                r = (p // (quantum // 2)) * quantum + p % (quantum // 2) + (quantum // 2 if e >= size // 2 else 0)
            positions.append((r // quantum) * heads * quantum + h * quantum + r % quantum)
    return positions


def as_transformers(path: Path, config: ModelConfig) -> LlamaForCausalLM:
    """A Llama of transformers whose weights are the dequantized ones of the artifact's top level."""
    reference = ReferenceModel(path, 2)
    blocks = config.blocks
    attention = blocks[0]
    assert isinstance(attention, Attention)
    heads, kv_heads, size = attention.n_heads, attention.n_kv_heads, attention.head_dim
    quantum = attention.axes[0].quantum
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.d_model,
            intermediate_size=blocks[1].axes[0].size,
            num_hidden_layers=len(blocks) // 2,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=size,
            rms_norm_eps=config.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            tie_word_embeddings=config.tied_head,
            attention_bias=True,
            mlp_bias=True,
        )
    ).double()
    orders = {
        "q": natural_order(heads, size, quantum, True),
        "k": natural_order(kv_heads, size, quantum, True),
        "v": natural_order(kv_heads, size, quantum, False),
    }
    state = {
        "model.embed_tokens.weight": reference.artifact.weight("embed", 2),
        "lm_head.weight": reference.artifact.weight("embed" if config.tied_head else "head", 2),
        "model.norm.weight": reference.artifact.vector("norm", 2),
    }
    for i in range(len(blocks) // 2):
        layer = f"model.layers.{i}"
        for role, order in orders.items():
            state[f"{layer}.self_attn.{role}_proj.weight"] = reference.artifact.weight(f"blk.{i}.attn.{role}", 2)[order]
            bias = reference.artifact.vector(f"blk.{i}.attn.{role}.bias", 2)
            state[f"{layer}.self_attn.{role}_proj.bias"] = bias[order] if bias.size else np.zeros(len(order))
        columns = natural_order(heads, size, quantum, False)
        state[f"{layer}.self_attn.o_proj.weight"] = reference.artifact.weight(f"blk.{i}.attn.o", 2)[:, columns]
        state[f"{layer}.self_attn.o_proj.bias"] = np.zeros(config.d_model)
        state[f"{layer}.input_layernorm.weight"] = reference.artifact.vector(f"blk.{i}.attn.norm", 2)
        state[f"{layer}.post_attention_layernorm.weight"] = reference.artifact.vector(f"blk.{i}.mlp.norm", 2)
        for role in ("gate", "up", "down"):
            weight = reference.artifact.weight(f"blk.{i}.mlp.{role}", 2)
            bias = reference.artifact.vector(f"blk.{i}.mlp.{role}.bias", 2)
            state[f"{layer}.mlp.{role}_proj.weight"] = weight
            state[f"{layer}.mlp.{role}_proj.bias"] = bias if bias.size else np.zeros(len(weight))
    model.load_state_dict({name: torch.from_numpy(np.array(values, np.float64)) for name, values in state.items()})
    return model.eval()


SHAPES = {
    "grouped": tiny_config(d_model=96),
    "untied, biases": tiny_config(d_model=96, tied_head=False, biases=True),
    "one key head": tiny_config(n_heads=4, n_kv_heads=1, head_dim=16),
    "odd width": tiny_config(d_model=72, width=168, n_heads=3, n_kv_heads=3, head_dim=24),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_float_forward_equals_transformers(tmp_path: Path, shape: str) -> None:
    """Order of heads, rotation of pairs, grouping, norms and head, against an implementation we did not write."""
    config = SHAPES[shape]
    path = tmp_path / "tiny.edge"
    write_random_artifact(path, config, nested_ladder(config))
    ours = ReferenceModel(path, 2, float_activations=True).logits(TOKENS)
    with torch.no_grad():
        theirs = as_transformers(path, config)(torch.from_numpy(TOKENS)[None]).logits[0].numpy()
    assert theirs.std() > 0.1
    np.testing.assert_allclose(ours, theirs, atol=2e-5 * np.abs(theirs).max())  # it rotates in float32


@pytest.mark.parametrize("shape", SHAPES)
def test_int8_activations_stay_within_the_derived_tolerance(tmp_path: Path, shape: str) -> None:
    config = SHAPES[shape]
    path = tmp_path / "tiny.edge"
    ladder = nested_ladder(config)
    write_random_artifact(path, config, ladder)
    for level in range(len(ladder)):
        oracle = ReferenceModel(path, level)
        exact = ReferenceModel(path, level, float_activations=True).logits(TOKENS)
        error = np.sqrt(np.mean((oracle.logits(TOKENS) - exact) ** 2) / np.mean(exact**2))
        assert 0 < error < oracle.activation_tolerance()


def test_a_prefix_of_the_tokens_has_the_same_logits(tmp_path: Path) -> None:
    """No token sees a later one, to the bit."""
    config = tiny_config()
    write_random_artifact(tmp_path / "tiny.edge", config, nested_ladder(config))
    oracle = ReferenceModel(tmp_path / "tiny.edge", 1)
    assert np.array_equal(oracle.logits(TOKENS)[:9], oracle.logits(TOKENS[:9]))
