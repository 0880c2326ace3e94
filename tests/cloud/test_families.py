"""Families: blocks as declared by the configuration, and every misfit of a checkpoint in one error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_llama import VARIANTS, tiny_model, write_tiny_llama
from transformers import MistralConfig, MistralForCausalLM

from edgesdk.cloud.checkpoint import open_checkpoint
from edgesdk.cloud.families import FAMILIES, find_family, load_model, unused_tensors
from edgesdk.cloud.families.blocks import Attention, Mlp, expected_tensors
from edgesdk.errors import ModelError


@pytest.mark.parametrize("variant", VARIANTS)
def test_expected_tensors_are_those_of_transformers(tmp_path: Path, variant: str) -> None:
    model = tiny_model(**VARIANTS[variant])
    model.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    config = load_model(checkpoint)
    state = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    if config.tied_head:
        del state["lm_head.weight"]
    assert expected_tensors(config) == state
    assert unused_tensors(checkpoint, config) == ()


def test_blocks_of_a_llama(tmp_path: Path) -> None:
    write_tiny_llama(tmp_path / "little", head_dim=48, attention_bias=True)
    config = load_model(open_checkpoint(str(tmp_path / "little")))
    assert (config.family, config.name, config.d_model, config.max_context) == ("llama", "little", 64, 512)
    assert [block.name for block in config.blocks] == ["blk.0.attn", "blk.0.mlp", "blk.1.attn", "blk.1.mlp"]
    attention, mlp = config.blocks[2:]
    assert isinstance(attention, Attention)
    assert isinstance(mlp, Mlp)
    assert (attention.n_heads, attention.n_kv_heads, attention.head_dim) == (4, 2, 48)
    assert attention.softmax_scale == pytest.approx(48**-0.5)
    assert len(attention.inv_freq) == 24
    assert attention.sources["o_bias"] == "model.layers.1.self_attn.o_proj.bias"
    assert mlp.sources["norm"] == "model.layers.1.post_attention_layernorm.weight"
    assert (mlp.width, mlp.activation) == (96, "silu")


def test_a_window_as_long_as_the_context_is_none(tmp_path: Path) -> None:
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 64}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    MistralForCausalLM(MistralConfig(**shape, **heads, sliding_window=None)).save_pretrained(tmp_path)
    config = load_model(open_checkpoint(str(tmp_path)))
    assert (config.family, config.d_model) == ("mistral", 32)
    found = json.loads((tmp_path / "config.json").read_text())
    for fields, window in (({"sliding_window": None}, None), ({"sliding_window": 4096}, 4096), ({}, 4096)):
        without = {key: value for key, value in found.items() if key != "sliding_window"}
        attention = find_family(found).config({**without, **fields}).blocks[0]
        assert isinstance(attention, Attention)
        assert attention.window == window
    attention = find_family(found).config({**found, "sliding_window": found["max_position_embeddings"]}).blocks[0]
    assert isinstance(attention, Attention)
    assert attention.window is None


def config_of(**overrides: Any) -> dict[str, Any]:
    return {**tiny_model().config.to_dict(), **overrides}


def test_defaults_are_those_of_transformers() -> None:
    """Older files leave out what LlamaConfig fills in."""
    sizes = ("model_type", "hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size")
    config = find_family({"model_type": "llama"}).config({key: config_of()[key] for key in sizes})
    attention = config.blocks[0]
    assert isinstance(attention, Attention)
    assert (attention.n_kv_heads, attention.head_dim) == (4, 16)
    assert (config.norm_eps, config.max_context, config.tied_head) == (1e-6, 2048, False)


def test_all_problems_of_a_configuration_at_once() -> None:
    wrong = {"hidden_size": 60, "head_dim": 12, "num_key_value_heads": 3, "hidden_act": "gelu", "rms_norm_eps": "small"}
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "partial_rotary_factor": 0.5}
    with pytest.raises(ModelError) as caught:
        find_family(config_of()).config(config_of(**wrong, vocab_size=None, rope_parameters=dynamic))
    for part in (
        "hidden_size is 60, expected a multiple of 8",
        "head_dim is 12, expected a multiple of 8",
        "num_key_value_heads (3) does not divide num_attention_heads (4)",
        "hidden_act is 'gelu', expected silu",
        "rms_norm_eps is 'small', expected a positive number",
        "vocab_size is None, expected a positive integer",
        "partial_rotary_factor is 0.5, expected 1",
        "`dynamic` changes with the length",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("size", [0, -1, True, 2.0, "2"])
def test_sizes_must_be_positive_integers(size: object) -> None:
    with pytest.raises(ModelError, match="num_attention_heads is"):
        find_family(config_of()).config(config_of(num_attention_heads=size))


@pytest.mark.parametrize("model_type", ["whisper", None, 3])
def test_unknown_family(model_type: object) -> None:
    with pytest.raises(ModelError, match=r"model_type .*known are: .*bamba, .*llama, .*qwen3\nhint:"):
        find_family({"model_type": model_type})


def test_model_types_are_unique() -> None:
    known = [model_type for family in FAMILIES for model_type in family.model_types]
    assert len(known) == len(set(known))


def test_all_misfits_of_a_checkpoint_at_once(tmp_path: Path) -> None:
    write_tiny_llama(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.norm.weight"]
    for layer in (0, 1):
        del tensors[f"model.layers.{layer}.self_attn.k_proj.weight"]
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(95, 64)
    tensors["model.layers.1.input_layernorm.weight"] = torch.zeros(64, 1)
    tensors["transformer.ln_f.weight"] = torch.zeros(64)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(8)
    save_file(tensors, path)
    with pytest.raises(ModelError) as caught:
        load_model(open_checkpoint(str(tmp_path)))
    assert str(caught.value).splitlines()[1:-1] == [
        "  missing: model.norm.weight",
        "  missing: model.layers.N.self_attn.k_proj.weight for N = 0, 1",
        "  wrong shape: model.layers.0.mlp.up_proj.weight is 95 x 64, expected 96 x 64",
        "  wrong shape: model.layers.1.input_layernorm.weight is 64 x 1, expected 64",
        "  not used: transformer.ln_f.weight",
    ]


def test_unused_tensors_are_a_warning_not_an_error(tmp_path: Path) -> None:
    """A tied model whose head was saved as well: transformers does not use it either."""
    write_tiny_llama(tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({**load_file(path), "lm_head.weight": torch.zeros(320, 64)}, path)
    checkpoint = open_checkpoint(str(tmp_path))
    config = load_model(checkpoint)
    assert config.tied_head
    assert unused_tensors(checkpoint, config) == ("lm_head.weight",)


def test_untied_without_a_head(tmp_path: Path) -> None:
    write_tiny_llama(tmp_path)
    found = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**found, "tie_word_embeddings": False}))
    with pytest.raises(ModelError, match=r"missing: lm_head.weight\nhint: .*tie_word_embeddings"):
        load_model(open_checkpoint(str(tmp_path)))
