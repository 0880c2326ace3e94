"""The native engine against the NumPy oracle, at every level: equal to the bit, with any number of threads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_artifacts import SHAPES, edge_run
from reference_model import ReferenceModel
from tiny_model import mix_bits, nested_ladder, table_bits, tiny_config, write_random_artifact

from edgesdk.cloud.sizes import model_panels
from edgesdk.formats.tiles import PANEL_BITS

try:
    from edgesdk.device import load
except ImportError as error:
    pytest.skip(f"the native engine is not built: {error}", allow_module_level=True)


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


@pytest.mark.parametrize("shape", ["grouped", "untied, biases", "wide"])
def test_rows_of_embedding_and_head_have_bits_of_their_own(shape: str, tmp_path: Path) -> None:
    """Tokens of every panel, next to all borders."""
    config = tiny_config(**SHAPES[shape])
    path = tmp_path / "rows.edge"
    write_random_artifact(path, config, nested_ladder(config), model_bits=table_bits(config))
    borders = [row for panel in model_panels(config) for row in (panel.begin, panel.end - 1)]
    tokens = [*borders, *np.random.default_rng(3).integers(0, config.vocab_size, 9).tolist()]
    for level in range(3):
        expected = ReferenceModel(path, level).logits(tokens)
        assert expected.std() > 0.1
        model = load(path, level=level, threads=2)
        np.testing.assert_array_equal(model.logits(tokens), expected)
        np.testing.assert_array_equal(model.logits(tokens[1:2]), ReferenceModel(path, level).logits(tokens[1:2]))


@pytest.mark.parametrize("bits", [2, 3, 6, 8])
def test_blocks_of_other_bits_equal_the_oracle(bits: int, tmp_path: Path) -> None:
    config = tiny_config()
    roles = dict.fromkeys(("q", "k", "v", "o", "gate", "up", "down"), bits)
    write_random_artifact(tmp_path / "tiny.edge", config, nested_ladder(config), bits=roles)
    tokens = np.random.default_rng(bits).integers(0, 300, 9).tolist()
    expected = ReferenceModel(tmp_path / "tiny.edge", 1).logits(tokens)
    np.testing.assert_array_equal(load(tmp_path / "tiny.edge", level=1).logits(tokens), expected)


WINDOWED: dict[str, Any] = {"norms": ("qk_norm",), "windows": (70, None, 5), "softcap": 20.0, "n_layers": 3}


@pytest.mark.parametrize("kv_bits", [8, 16])
@pytest.mark.parametrize("chunk", [1, 3, 50, 128])
def test_windows_do_not_depend_on_how_tokens_are_cut(chunk: int, kv_bits: int, tmp_path: Path) -> None:
    """Windows begin anywhere in a block of keys, end inside a chunk, and lie behind blocks that nothing sees."""
    config = tiny_config(**WINDOWED)
    write_random_artifact(tmp_path / "tiny.edge", config, nested_ladder(config))
    tokens = np.random.default_rng(4).integers(0, 300, 300).tolist()
    for level in (0, 2):
        expected = load(tmp_path / "tiny.edge", level=level, threads=1, kv_bits=kv_bits, chunk=77).logits(tokens)
        if kv_bits == 8:
            np.testing.assert_array_equal(expected, ReferenceModel(tmp_path / "tiny.edge", level).logits(tokens))
        model = load(tmp_path / "tiny.edge", level=level, threads=3, kv_bits=kv_bits, chunk=chunk)
        np.testing.assert_array_equal(model.logits(tokens), expected)


def test_a_window_forgets_what_lies_before_it(tmp_path: Path) -> None:
    config = tiny_config(windows=(5,), n_layers=1)
    write_random_artifact(tmp_path / "tiny.edge", config, nested_ladder(config))
    model = load(tmp_path / "tiny.edge")
    tokens = np.random.default_rng(4).integers(0, 300, 100).tolist()
    last = model.logits(tokens)[-1]
    assert np.array_equal(model.logits([7] * 95 + tokens[-5:])[-1], last)
    assert not np.array_equal(model.logits([7] * 96 + tokens[-4:])[-1], last)


@pytest.mark.parametrize("isa", ["reference", "avx2", "avxvnni", "avx512vnni", "neon", "dotprod", "i8mm"])
@pytest.mark.parametrize("kv_bits", [8, 16])
def test_windows_and_caps_do_not_depend_on_the_kernels(isa: str, kv_bits: int, tmp_path: Path) -> None:
    config = tiny_config(**{**WINDOWED, "logit_softcap": 2.0, "activation": "gelu_tanh"})
    write_random_artifact(tmp_path / "tiny.edge", config, nested_ladder(config))
    arguments = ["bench", tmp_path / "tiny.edge", "--level", 1, "--prompt-tokens", 100, "--decode-tokens", 3]
    arguments += ["--runs", 1, "--json", "--kv-bits", kv_bits]
    forced = edge_run(*arguments, EDGE_ISA=isa)
    if forced.returncode != 0:
        assert isa in forced.stderr
        pytest.skip(forced.stderr.strip())
    hashes = [re.findall(r'"logits_hash": ?"(\w+)"', run.stdout) for run in (forced, edge_run(*arguments))]
    assert hashes[0] == hashes[1] != []


def test_engine_is_within_the_int8_tolerance_of_the_float_model(artifact: Path) -> None:
    """The dequantized weights in float64, activations not quantized: what the artifact approximates."""
    tokens = np.random.default_rng(9).integers(0, 300, 37).tolist()
    for level in range(3):
        exact = ReferenceModel(artifact, level, float_activations=True)
        expected = exact.logits(tokens)
        error = np.sqrt(np.mean((load(artifact, level=level).logits(tokens) - expected) ** 2))
        assert error < exact.activation_tolerance() * np.sqrt(np.mean(expected**2))
