"""Checkpoints that ask for more than they hold: what fuzzers or readers of the importers found, one file each."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from small_sources import (
    BYTE_LEVEL,
    CONFIG,
    METASPACE,
    TEMPLATE,
    WIDTH,
    D,
    N,
    gguf_parts,
    safetensors_parts,
    write_gguf,
    write_safetensors,
)

from edgesdk.cloud.checkpoint import open_checkpoint
from edgesdk.cloud.checkpoint.gguf import _float32
from edgesdk.cloud.checkpoint.gguf_file import GgufTensor
from edgesdk.cloud.families import load_model
from edgesdk.cloud.tokenizer import import_tokenizer
from edgesdk.errors import ModelError


@pytest.fixture(autouse=True)
def in_time() -> Any:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < 5


def gguf(tmp_path: Path, model: str, key: str, value: Any) -> Path:
    """A sound file in which one key has another value."""
    parts = gguf_parts(model)
    next(entry for entry in parts["keys"] if entry[0] == key)[2] = value
    (tmp_path / "model.gguf").write_bytes(write_gguf(parts, parts["tensors"][-1][3] + 4 * WIDTH * D))
    return tmp_path / "model.gguf"


@pytest.mark.parametrize(("at", "what"), [(8, "tensors"), (16, "keys")])
def test_a_count_is_compared_with_the_file(tmp_path: Path, at: int, what: str) -> None:
    parts = gguf_parts("gpt2")
    data = bytearray(write_gguf(parts, 64))
    data[at : at + 8] = (1 << 60).to_bytes(8, "little")
    (tmp_path / "model.gguf").write_bytes(data)
    with pytest.raises(ModelError, match="entries follow"):
        open_checkpoint(str(tmp_path / "model.gguf"))


def test_the_length_of_an_array_is_compared_with_the_file(tmp_path: Path) -> None:
    """The reader of the gguf package counts to it, and keeps an empty piece each time."""
    path = gguf(tmp_path, "gpt2", "tokenizer.ggml.token_type", [0, [1] * N])
    data = path.read_bytes()
    at = data.index(b"tokenizer.ggml.token_type") + len("tokenizer.ggml.token_type") + 4 + 4
    path.write_bytes(data[:at] + (1 << 40).to_bytes(8, "little") + data[at + 8 :])
    with pytest.raises(ModelError, match="entries follow"):
        import_tokenizer(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tokenizer.ggml.tokens", [8, ["x" * 100_000, *("t" for _ in range(N - 1))]], "100000 characters"),
        ("tokenizer.ggml.tokens", [4, list(range(N))], "malformed"),
        ("tokenizer.ggml.token_type", [4, [6] * N], "not written as <0xNN>"),
        ("llama.attention.head_count", 1 << 31, "key_length` is 0"),
        ("llama.block_count", 1 << 31, "at most 4096"),
    ],
)
def test_metadata_of_a_gguf_file(tmp_path: Path, key: str, value: Any, message: str) -> None:
    path = gguf(tmp_path, "llama", key, value)
    with pytest.raises(ModelError, match=message):
        import_tokenizer(path) if key.startswith("tokenizer") else load_model(open_checkpoint(str(path)))


@pytest.mark.parametrize("kind", [GGMLQuantizationType.Q4_0, GGMLQuantizationType.F64])
def test_values_that_are_not_finite_are_read_in_silence(kind: GGMLQuantizationType) -> None:
    """Found by the fuzzer: NumPy warned of infinity times 0. They are refused when the model is calibrated."""
    data = np.array([[1e300]])  # of which float32 makes infinity
    if kind == GGMLQuantizationType.Q4_0:
        data = np.full((1, GGML_QUANT_SIZES[kind][1]), 0x88, np.uint8)  # codes of 0
        data[0, :2] = np.array([np.inf], np.float16).view(np.uint8)  # and their scale
    assert not np.isfinite(_float32(GgufTensor("x", kind, data.shape, data))).any()


def changed(document: dict[str, Any], *path: Any, value: Any) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(document))
    place: Any = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return copy


@pytest.mark.parametrize(
    "tokenizer",
    [
        changed(BYTE_LEVEL, "model", "vocab", "ab", value=1 << 40),
        changed(BYTE_LEVEL, "model", "vocab", "ab", value=-1),
        changed(BYTE_LEVEL, "added_tokens", 0, "id", value="3"),
        changed(BYTE_LEVEL, "model", "vocab", value=[]),
        changed(METASPACE, "model", "merges", value=[1]),
        changed(METASPACE, "model", "vocab", "\ud800", value=261),
        changed(METASPACE, "decoder", value=[]),
    ],
    ids=["huge id", "negative id", "id as text", "vocabulary as a list", "merge as a number", "half a pair", "decoder"],
)
def test_parts_of_a_tokenizer(tmp_path: Path, tokenizer: dict[str, Any]) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match="malformed"):
        import_tokenizer(tmp_path)


def test_a_template_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(BYTE_LEVEL))
    with pytest.raises(ModelError, match="malformed"):
        import_tokenizer(tmp_path, chat_template=TEMPLATE + "\ud800")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_hidden_layers", 10**9, "at most 4096"),
        ("head_dim", 1 << 30, "at most 4096"),
        ("rms_norm_eps", 10**400, "malformed"),
        ("rope_parameters", [1], "malformed"),
        ("quantization_config", [1], "malformed"),
    ],
)
def test_fields_of_a_configuration(tmp_path: Path, name: str, value: Any, message: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {name: value}))
    write_safetensors(tmp_path / "model.safetensors", *safetensors_parts())
    with pytest.raises(ModelError, match=message):
        load_model(open_checkpoint(str(tmp_path)))


def test_json_that_nests_without_end(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(ModelError, match="not valid JSON"):
        open_checkpoint(str(tmp_path))


def test_a_shard_whose_name_no_file_can_have(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    index = {"weight_map": {"model.norm.weight": "é" * 300}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="cannot be read"):
        open_checkpoint(str(tmp_path))
