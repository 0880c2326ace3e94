"""Rotary frequencies equal those of transformers, for each scaling method and for older and newer configurations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from edgesdk.cloud.families.rope import rope_frequencies
from edgesdk.errors import ModelError

LLAMA3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
SCALED = {
    "linear": {"rope_type": "linear", "factor": 2.5},
    "llama3": {**LLAMA3, "original_max_position_embeddings": 8192},
    "llama3, its context from the configuration": LLAMA3,
    "yarn": YARN,
    "yarn, betas": {**YARN, "beta_fast": 20, "beta_slow": 2.5},
    "yarn, not truncated": {**YARN, "truncate": False},
    "yarn, attention factor": {**YARN, "attention_factor": 0.75},
    "yarn, two mscales": {**YARN, "mscale": 0.707, "mscale_all_dim": 1.2},
    "yarn, one mscale": {**YARN, "mscale": 0.707},
    "yarn, factor below one": {**YARN, "factor": 0.5},
    "yarn, its context from the configuration": {"rope_type": "yarn", "factor": 40.0},
    "yarn, factor from the contexts": {**YARN, "factor": None},
}


@pytest.mark.parametrize("head_dim", [64, 48])
@pytest.mark.parametrize("theta", [10000.0, 500000.0])
@pytest.mark.parametrize("name", SCALED)
def test_scaled_like_transformers(name: str, theta: float, head_dim: int) -> None:
    parameters = {**SCALED[name], "rope_theta": theta}
    config = LlamaConfig(head_dim=head_dim, max_position_embeddings=16384)
    config.rope_parameters = dict(parameters)
    expected, scale = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config)
    for form in (
        {"rope_parameters": parameters, "max_position_embeddings": 16384},
        {"rope_scaling": SCALED[name], "rope_theta": theta, "max_position_embeddings": 16384},
    ):
        inv_freq, rotary_scale = rope_frequencies(form, head_dim)
        np.testing.assert_allclose(inv_freq, expected.numpy(), rtol=5e-6)  # transformers computes in float32
        assert rotary_scale == pytest.approx(scale, rel=1e-12)


@pytest.mark.parametrize("theta", [None, 10000.0, 1000000])
def test_default_like_transformers(theta: float | None) -> None:
    given = {} if theta is None else {"rope_theta": theta}
    config = LlamaConfig(head_dim=80, rope_parameters={"rope_type": "default", "rope_theta": theta or 10000.0})
    expected = LlamaRotaryEmbedding(config).inv_freq.numpy()
    for form in (given, {"rope_scaling": None, **given}, {"rope_parameters": {"rope_type": "default", **given}}):
        inv_freq, rotary_scale = rope_frequencies(form, 80)
        np.testing.assert_allclose(inv_freq, expected, rtol=1e-6)
        assert rotary_scale == 1.0


def test_older_name_of_the_type() -> None:
    inv_freq, _ = rope_frequencies({"rope_scaling": {"type": "linear", "factor": 4.0}}, 4)
    assert inv_freq == pytest.approx((0.25, 0.0025))


def test_divisors() -> None:
    inv_freq, _ = rope_frequencies({"rope_parameters": {"rope_type": "factors", "factors": [1.0, 8.0]}}, 4)
    assert inv_freq == pytest.approx((1.0, 0.00125))


@pytest.mark.parametrize(
    ("parameters", "part"),
    [
        ({"rope_type": "dynamic", "factor": 2.0}, "`dynamic` changes with the length"),
        ({"rope_type": "longrope", "short_factor": [1], "long_factor": [1]}, "`longrope` changes with the length"),
        ({"type": "su"}, "`su` changes with the length"),
        ({"rope_type": "spiral"}, "`spiral` is not known"),
        ({"rope_type": "linear"}, "`factor` is None"),
        ({"rope_type": "linear", "factor": 0}, "`factor` is 0"),
        ({"rope_type": "linear", "factor": "2"}, "`factor` is '2'"),
        ({"rope_type": "linear", "factor": math.nan}, "`factor` is nan"),
        ({"rope_type": "default", "rope_theta": 1.0}, "rope_theta is 1"),
        ({**LLAMA3, "high_freq_factor": 1.0}, "is not below high_freq_factor"),
        ({"rope_type": "llama3", "factor": 8.0}, "`low_freq_factor` is None"),
        ({"rope_type": "factors", "factors": [1.0]}, "has 1 factors, expected 2"),
        ({"sliding": {"rope_theta": 1e4}, "full": {"rope_theta": 1e6}}, "not one set of rotary parameters"),
    ],
)
def test_refused(parameters: dict[str, Any], part: str) -> None:
    with pytest.raises(ModelError) as caught:
        rope_frequencies({"rope_parameters": parameters, "max_position_embeddings": 64}, 4)
    assert part in str(caught.value)
