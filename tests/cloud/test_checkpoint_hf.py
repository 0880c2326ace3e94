"""Hugging Face directories: the same tensors as transformers', and one clear error for each kind of damage."""

from __future__ import annotations

import hashlib
import json
import resource
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_llama import CHAT_TEMPLATE, write_tiny_llama

from edgesdk.cloud.checkpoint import open_checkpoint
from edgesdk.cloud.families import load_model
from edgesdk.errors import ModelError


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shard_size", ["1GB", "40KB"])
def test_tensors_equal_those_of_transformers(tmp_path: Path, dtype: torch.dtype, shard_size: str) -> None:
    state = write_tiny_llama(tmp_path, dtype=dtype, max_shard_size=shard_size, tie_word_embeddings=False).state_dict()
    assert (len(list(tmp_path.glob("*.safetensors"))) > 2) == (shard_size == "40KB")
    checkpoint = open_checkpoint(str(tmp_path))
    assert set(checkpoint.names) == set(state)
    for name in checkpoint.names:
        tensor = checkpoint.tensor(name)
        assert tensor.dtype == torch.float32
        assert checkpoint.shape(name) == tuple(tensor.shape)
        assert torch.equal(tensor, state[name]), name
    load_model(checkpoint)


def test_describes_its_source(tmp_path: Path) -> None:
    write_tiny_llama(tmp_path / "little")
    (tmp_path / "little" / "README.md").write_text(
        "---\nlanguage: en\nlicense: apache-2.0\n---\n# Card\nlicense: none\n"
    )
    checkpoint = open_checkpoint(str(tmp_path / "little"))
    assert (checkpoint.source.kind, checkpoint.source.name, checkpoint.source.licence) == (
        "directory",
        "little",
        "apache-2.0",
    )
    weights = (tmp_path / "little" / "model.safetensors").read_bytes()
    assert checkpoint.source.sha256 == hashlib.sha256(weights).hexdigest()
    assert checkpoint.chat_template == CHAT_TEMPLATE
    assert checkpoint.tokenizer_files.tokenizer_json == tmp_path / "little" / "tokenizer.json"
    assert checkpoint.tokenizer_files.gguf is None


def test_hash_of_shards_covers_all_of_them(tmp_path: Path) -> None:
    write_tiny_llama(tmp_path, max_shard_size="40KB")
    shards = b"".join(path.read_bytes() for path in sorted(tmp_path.glob("*.safetensors")))
    assert open_checkpoint(str(tmp_path)).source.sha256 == hashlib.sha256(shards).hexdigest()


def test_template_file_wins_and_the_default_is_chosen(tmp_path: Path) -> None:
    write_tiny_llama(tmp_path)
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert open_checkpoint(str(tmp_path)).chat_template == "plain"
    (tmp_path / "chat_template.jinja").write_text("from the file")
    assert open_checkpoint(str(tmp_path)).chat_template == "from the file"
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    assert open_checkpoint(str(tmp_path)).chat_template is None


def test_a_tensor_is_a_copy_of_its_own(tmp_path: Path) -> None:
    write_tiny_llama(tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    checkpoint.tensor("model.norm.weight").zero_()
    assert checkpoint.tensor("model.norm.weight").abs().min() >= 0.5


def test_reads_only_the_bytes_of_the_tensor(tmp_path: Path) -> None:
    """A sparse file of 3 GiB: reading all of it would show in the peak of resident memory."""
    write_tiny_llama(tmp_path)
    n_bytes = 3 << 30
    header = json.dumps(
        {
            "small": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
            "large": {"dtype": "F16", "shape": [n_bytes // 2], "data_offsets": [16, 16 + n_bytes]},
        }
    ).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header + struct.pack("<4f", 1, 2, 3, 4))
        file.truncate(8 + len(header) + 16 + n_bytes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    checkpoint = open_checkpoint(str(tmp_path))
    assert checkpoint.shape("large") == (n_bytes // 2,)
    assert checkpoint.tensor("small").tolist() == [1, 2, 3, 4]
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 200e6


def refused(path: Path, *parts: str) -> None:
    with pytest.raises(ModelError) as caught:
        open_checkpoint(str(path))
    for part in parts:
        assert part in str(caught.value)


def test_all_missing_shards_are_named(tmp_path: Path) -> None:
    write_tiny_llama(tmp_path, max_shard_size="40KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    shards[0].unlink()
    shards[2].unlink()
    refused(tmp_path, f"2 of the {len(shards)} shards", shards[0].name, shards[2].name, "hint:")


@pytest.mark.parametrize("keep", [0, 5, 200, -3])
def test_truncated_weights(tmp_path: Path, keep: int) -> None:
    write_tiny_llama(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refused(tmp_path, "not a whole safetensors file", "hint:")


def test_large_file_pointer_instead_of_weights(tmp_path: Path) -> None:
    write_tiny_llama(tmp_path)
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    refused(tmp_path, "git-lfs")


def test_index_and_shards_that_disagree(tmp_path: Path) -> None:
    write_tiny_llama(tmp_path, max_shard_size="40KB")
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    shard = index["weight_map"]["model.norm.weight"]
    path.write_text(json.dumps({"weight_map": {**index["weight_map"], "model.extra.weight": shard}}))
    refused(tmp_path, "`model.extra.weight` in " + shard)
    path.write_text(json.dumps({"weight_map": {"model.norm.weight": "../elsewhere.safetensors"}}))
    refused(tmp_path, "outside its directory", "../elsewhere.safetensors")
    path.write_text("{")
    refused(tmp_path, "not valid JSON")
    path.write_text("[]")
    refused(tmp_path, "expected an object")
    path.write_text("{}")
    refused(tmp_path, "weight_map")


def test_pickled_weights_are_not_opened(tmp_path: Path) -> None:
    write_tiny_llama(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    refused(tmp_path, "pytorch_model.bin", "can run code")


def test_no_config(tmp_path: Path) -> None:
    refused(tmp_path, "config.json is missing")


def test_already_quantized(tmp_path: Path) -> None:
    write_tiny_llama(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))
    refused(tmp_path, "already quantized with `gptq`")


def test_types_that_are_no_floats_are_named_with_everything_else(tmp_path: Path) -> None:
    write_tiny_llama(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.float8_e4m3fn)
    tensors["model.layers.0.mlp.up_proj.weight"] = tensors["model.layers.0.mlp.up_proj.weight"].to(torch.int32)
    save_file(tensors, path)
    checkpoint = open_checkpoint(str(tmp_path))
    with pytest.raises(ModelError, match="F8_E4M3, expected one of"):
        checkpoint.tensor("model.norm.weight")
    with pytest.raises(ModelError, match="do not fit") as caught:
        load_model(checkpoint)
    assert "not readable: model.norm.weight is stored as F8_E4M3" in str(caught.value)
    assert "not readable: model.layers.0.mlp.up_proj.weight is stored as I32" in str(caught.value)


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "no file or directory", "hf:org/name", "smollm2")
    write_tiny_llama(tmp_path)
    refused(tmp_path / "model.safetensors", "no configuration", "directory")
    with pytest.raises(ModelError, match="no tensor `lm_head"):
        open_checkpoint(str(tmp_path)).tensor("lm_head.weight")
