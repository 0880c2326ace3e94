"""The native engine against the NumPy oracle, at every level: equal to the bit, with any number of threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference_model import ReferenceModel
from tiny_model import mix_bits, nested_ladder, tiny_config, write_random_artifact

from edgesdk.formats.tiles import PANEL_BITS

try:
    from edgesdk.device import load
except ImportError as error:
    pytest.skip(f"the native engine is not built: {error}", allow_module_level=True)

SHAPES: dict[str, dict[str, Any]] = {
    "grouped": {},
    "untied, biases": {"tied_head": False, "biases": True},
    "one key head": {"n_heads": 4, "n_kv_heads": 1, "head_dim": 16},
    "odd width": {"d_model": 72, "width": 168, "n_heads": 3, "n_kv_heads": 3, "head_dim": 24},
    "wide": {"d_model": 256, "width": 512, "n_heads": 8, "n_kv_heads": 4, "head_dim": 64, "vocab_size": 1000},
}


@pytest.fixture(scope="module", params=SHAPES)
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config(**SHAPES[request.param])
    path = tmp_path_factory.mktemp("oracle") / "tiny.edge"
    write_random_artifact(path, config, nested_ladder(config))
    return path


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("threads", [1, 3])
def test_engine_equals_the_oracle(artifact: Path, level: int, threads: int) -> None:
    tokens = np.random.default_rng(level).integers(0, 300, 37).tolist()
    expected = ReferenceModel(artifact, level).logits(tokens)
    model = load(artifact, level=level, threads=threads)
    logits = model.logits(tokens)
    assert logits.dtype == np.float32
    assert expected.std() > 0.1
    np.testing.assert_array_equal(logits, expected)


@pytest.mark.parametrize("shape", ["grouped", "odd width"])
def test_panels_of_mixed_bits_equal_the_oracle(shape: str, tmp_path: Path) -> None:
    """Every panel of a weight has a width of its own: at each level, for one token and for several."""
    config = tiny_config(**SHAPES[shape])
    write_random_artifact(tmp_path / "four.edge", config, nested_ladder(config))
    mix_bits(tmp_path / "four.edge", tmp_path / "mixed.edge", lambda name: PANEL_BITS[sum(name.encode()) % 5])
    tokens = np.random.default_rng(5).integers(0, 300, 19).tolist()
    for level in range(3):
        expected = ReferenceModel(tmp_path / "mixed.edge", level).logits(tokens)
        assert expected.std() > 0.1
        model = load(tmp_path / "mixed.edge", level=level, threads=2)
        np.testing.assert_array_equal(model.logits(tokens), expected)
        np.testing.assert_array_equal(model.logits(tokens[:1]), expected[:1])


@pytest.mark.parametrize("bits", [2, 3, 6, 8])
def test_blocks_of_other_bits_equal_the_oracle(bits: int, tmp_path: Path) -> None:
    config = tiny_config()
    roles = dict.fromkeys(("q", "k", "v", "o", "gate", "up", "down"), bits)
    write_random_artifact(tmp_path / "tiny.edge", config, nested_ladder(config), bits=roles)
    tokens = np.random.default_rng(bits).integers(0, 300, 9).tolist()
    expected = ReferenceModel(tmp_path / "tiny.edge", 1).logits(tokens)
    np.testing.assert_array_equal(load(tmp_path / "tiny.edge", level=1).logits(tokens), expected)


def test_engine_is_within_the_int8_tolerance_of_the_float_model(artifact: Path) -> None:
    """The dequantized weights in float64, activations not quantized: what the artifact approximates."""
    tokens = np.random.default_rng(9).integers(0, 300, 37).tolist()
    for level in range(3):
        exact = ReferenceModel(artifact, level, float_activations=True)
        expected = exact.logits(tokens)
        error = np.sqrt(np.mean((load(artifact, level=level).logits(tokens) - expected) ** 2))
        assert error < exact.activation_tolerance() * np.sqrt(np.mean(expected**2))
