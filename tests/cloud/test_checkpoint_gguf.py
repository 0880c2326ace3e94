"""GGUF files say the same as the Hugging Face checkpoint they come from, converted here as llama.cpp converts."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray
from tiny_families import tiny_family
from tiny_llama import CHAT_TEMPLATE, LLAMA3, VARIANTS, tiny_model
from transformers import LlamaForCausalLM, PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from edgesdk.cloud.checkpoint import Checkpoint, open_checkpoint
from edgesdk.cloud.families import load_model, unused_tensors
from edgesdk.errors import ModelError

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


GEMMA_NAMES = NAMES | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def gguf_name(name: str, names: dict[str, str]) -> str:
    stem, kind = name.rsplit(".", 1)
    if match := re.fullmatch(r"model\.layers\.(\d+)\.(.+)", stem):
        return f"blk.{match[1]}.{names[match[2]]}.{kind}"
    return f"{NAMES[stem]}.{kind}"


def interleaved(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """`permute` of llama.cpp's converter: rows of a head from (half, pair) to (pair, half)."""
    swapped = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:]).swapaxes(1, 2)
    return np.ascontiguousarray(swapped.reshape(values.shape))


def stored_values(model: PreTrainedModel) -> dict[str, NDArray[np.float32]]:
    """All tensors under their GGUF names, in GGUF order, without a tied head."""
    config = model.config
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    heads = heads if config.model_type == "llama" else {}
    names = GEMMA_NAMES if config.model_type == "gemma3_text" else NAMES
    stored = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.numpy()
        role = name.split(".")[-2]
        if config.model_type == "gemma3_text" and role.endswith("norm"):
            values = values + 1  # as its gains count
        stored[gguf_name(name, names)] = interleaved(values, heads[role]) if role in heads else values
    return stored


def write_gguf(path: Path, model: PreTrainedModel, kind: Kind = Kind.F32, **metadata: Any) -> None:
    """Matrices as `kind`, vectors as F32; `metadata` adds or replaces keys `ARCHITECTURE.*` (`__` stands for a dot)."""
    config = model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    architecture = config.model_type.removesuffix("_text")
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("Tiny")
    writer.add_license("mit")
    keys = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.dimension_count": head_dim,
        "rope.freq_base": rope["rope_theta"],
        "attention.sliding_window": config.sliding_window if architecture == "gemma3" else None,
        **{key.replace("__", "."): value for key, value in metadata.items()},
    }
    for key, value in keys.items():
        if isinstance(value, str):
            writer.add_string(f"{architecture}.{key}", value)
        elif isinstance(value, list):
            writer.add_array(f"{architecture}.{key}", value)
        elif isinstance(value, float):
            writer.add_float32(f"{architecture}.{key}", value)
        elif value is not None:
            writer.add_uint32(f"{architecture}.{key}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_chat_template(CHAT_TEMPLATE)
    for name, values in stored_values(model).items():
        if values.ndim == 1 or kind == Kind.F32:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    if rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(model))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama3_factors(model: LlamaForCausalLM) -> NDArray[np.float32]:
    """Divisors as llama.cpp's converter derives them from a llama3 configuration."""
    p = model.config.rope_parameters
    factors = []
    for i in range(model.config.head_dim // 2):
        wavelength = 2 * np.pi * p["rope_theta"] ** (2 * i / model.config.head_dim)
        low = p["original_max_position_embeddings"] / p["low_freq_factor"]
        high = p["original_max_position_embeddings"] / p["high_freq_factor"]
        if wavelength < high:
            factors.append(1.0)
        elif wavelength > low:
            factors.append(p["factor"])
        else:
            turns = p["original_max_position_embeddings"] / wavelength
            smooth = (turns - p["low_freq_factor"]) / (p["high_freq_factor"] - p["low_freq_factor"])
            factors.append(1 / ((1 - smooth) / p["factor"] + smooth))
    return np.array(factors, np.float32)


def opened(tmp_path: Path, model: PreTrainedModel, kind: Kind = Kind.F32, **metadata: Any) -> Checkpoint:
    write_gguf(tmp_path / "tiny.gguf", model, kind, **metadata)
    return open_checkpoint(str(tmp_path / "tiny.gguf"))


FAMILIES = ("qwen2", "qwen2-untied", "qwen3", "qwen3-bias", "gemma3-file")


def family_model(variant: str) -> PreTrainedModel:
    """gemma3-file: with the pattern of windows and the scale that files do not say because all have them."""
    if variant != "gemma3-file":
        return tiny_family(variant)
    return tiny_family("gemma3", num_hidden_layers=6, sliding_window_pattern=6, query_pre_attn_scalar=32)


@pytest.mark.parametrize("variant", [*(name for name in VARIANTS if name != "yarn"), *FAMILIES])
def test_same_tensors_and_same_model_as_the_directory(tmp_path: Path, variant: str) -> None:
    model: PreTrainedModel = tiny_model(**VARIANTS[variant]) if variant in VARIANTS else family_model(variant)
    model.save_pretrained(tmp_path)
    directory = open_checkpoint(str(tmp_path))
    file = opened(tmp_path, model)
    assert set(file.names) == set(directory.names)
    atol = 1e-7 if variant == "gemma3-file" else 0.0  # 1 was added and taken off
    for name in file.names:
        assert file.shape(name) == directory.shape(name)
        assert torch.allclose(file.tensor(name), directory.tensor(name), rtol=0, atol=atol), name
    from_file, from_directory = load_model(file), load_model(directory)
    assert unused_tensors(file, from_file) == ()
    for ours, theirs in zip(from_file.blocks, from_directory.blocks, strict=True):
        assert dict(ours.sources) == dict(theirs.sources)
        assert ours.axes == theirs.axes
        for field in ("window", "softmax_scale", "activation", "softcap"):
            assert getattr(ours, field, None) == getattr(theirs, field, None)
        if ours.kind == "attention":
            np.testing.assert_allclose(ours.inv_freq, theirs.inv_freq, rtol=1e-6)
    assert from_file.embedding_scale == from_directory.embedding_scale
    assert from_file.norm_eps == pytest.approx(from_directory.norm_eps, rel=1e-7)
    assert (from_file.tied_head, from_file.max_context, from_file.vocab_size) == (
        from_directory.tied_head,
        from_directory.max_context,
        from_directory.vocab_size,
    )


# The largest error as a share of a block's largest value: half a step; a whole one for the _0 types, whose largest
# code is clipped; the _1 types span twice the largest value. Float16 scales and minima add 2^-11 of each.
@pytest.mark.parametrize(
    ("kind", "share"),
    [
        (Kind.F16, 0.0),
        (Kind.BF16, 2.0**-8),
        (Kind.Q8_0, 0.5 / 127),
        (Kind.Q5_0, 1 / 16),
        (Kind.Q5_1, 1 / 31),
        (Kind.Q4_0, 1 / 8),
        (Kind.Q4_1, 1 / 15),
    ],
)
def test_quantized_values_lie_within_a_step_of_the_source(tmp_path: Path, kind: Kind, share: float) -> None:
    model = tiny_model()
    file = opened(tmp_path, model, kind)
    for name, exact in model.state_dict().items():
        if name in file.names and exact.ndim == 2:
            error = (file.tensor(name) - exact).reshape(-1, 32).abs().amax(1)
            assert (error <= (share + 3 * 2.0**-11) * exact.reshape(-1, 32).abs().amax(1)).all(), name
            assert error.max() > 0
            assert file.tensors[name].stored_as == kind.name


@pytest.mark.parametrize(
    "kind", [Kind.Q2_K, Kind.Q3_K, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K, Kind.IQ4_NL, Kind.IQ3_S, Kind.MXFP4]
)
def test_types_that_only_llama_cpp_writes(tmp_path: Path, kind: Kind) -> None:
    """Random blocks: the package can dequantize these types, not quantize them."""
    model = tiny_model(hidden_size=256)
    raw = np.random.default_rng(0).integers(0, 60, (96, gguf.quant_shape_to_byte_shape((96, 256), kind)[1]), np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "raw.gguf", "llama")
    for key, value in {
        "block_count": 1,
        "context_length": 64,
        "embedding_length": 256,
        "feed_forward_length": 96,
    }.items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tensor("token_embd.weight", model.state_dict()["model.embed_tokens.weight"].numpy())
    writer.add_tensor("blk.0.ffn_up.weight", raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    checkpoint = open_checkpoint(str(tmp_path / "raw.gguf"))
    assert checkpoint.shape("model.layers.0.mlp.up_proj.weight") == (96, 256)
    values = checkpoint.tensor("model.layers.0.mlp.up_proj.weight")
    expected = np.concatenate([gguf.quants.dequantize(row[None], kind) for row in raw])
    assert torch.equal(values, torch.from_numpy(expected))


def test_describes_its_source(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, tiny_model())
    path = tmp_path / "tiny.gguf"
    assert (checkpoint.source.kind, checkpoint.source.name, checkpoint.source.licence) == ("gguf", "Tiny", "mit")
    assert checkpoint.source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert checkpoint.chat_template == CHAT_TEMPLATE
    assert checkpoint.tokenizer_files.gguf == path
    assert (checkpoint.config["bos_token_id"], checkpoint.config["eos_token_id"]) == (0, 2)


def test_yarn_from_metadata(tmp_path: Path) -> None:
    yarn = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
    model = tiny_model(rope_parameters={**yarn, "beta_fast": 24.0, "beta_slow": 2.0})
    checkpoint = opened(
        tmp_path,
        model,
        rope__scaling__type="yarn",
        rope__scaling__factor=4.0,
        rope__scaling__original_context_length=64,
        rope__scaling__yarn_beta_fast=24.0,
        rope__scaling__yarn_beta_slow=2.0,
    )
    inv_freq, scale = ROPE_INIT_FUNCTIONS["yarn"](model.config)
    block = load_model(checkpoint).blocks[0]
    np.testing.assert_allclose(block.inv_freq, inv_freq.numpy(), rtol=1e-6)
    assert block.rotary_scale == pytest.approx(scale, rel=1e-6)


def test_linear_scaling_from_metadata(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, tiny_model(), rope__scaling__type="linear", rope__scaling__factor=4.0)
    assert load_model(checkpoint).blocks[0].inv_freq[0] == 0.25


def refused(tmp_path: Path, *parts: str, **metadata: Any) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(opened(tmp_path, tiny_model(), **metadata))
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("metadata", "part"),
    [
        ({"expert_count": 8}, "llama.expert_count = 8"),
        ({"attention__sliding_window": 128}, "llama.attention.sliding_window = 128"),
        ({"rope__scaling__type": "longrope"}, "`longrope` is not supported"),
        ({"rope__scaling__type": "yarn", "rope__scaling__yarn_ext_factor": 0.5}, "yarn_ext_factor is 0.5"),
        ({"rope__dimension_count": 8}, "`rope.dimension_count` is 8, expected 16"),
        ({"attention__head_count_kv": [2, 1]}, "`llama.attention.head_count_kv` differs between layers"),
        ({"embedding_length": None}, "`llama.embedding_length` is None, expected one positive integer"),
        ({"attention__layer_norm_rms_epsilon": None}, "rms_epsilon` is None, expected a finite number"),
        ({"block_count": 3}, "missing: model.layers.N.self_attn.q_proj.weight for N = 2"),
        ({"feed_forward_length": 128}, "mlp.down_proj.weight is 64 x 96, expected 64 x 128"),
    ],
)
def test_metadata_that_does_not_fit(tmp_path: Path, metadata: dict[str, Any], part: str) -> None:
    refused(tmp_path, part, **metadata)


def test_per_layer_sizes_that_agree_are_one_size(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, tiny_model(), attention__head_count_kv=[2, 2])
    assert checkpoint.config["num_key_value_heads"] == 2


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.05, 0.5, 0.999])
def test_truncated_file(tmp_path: Path, share: float) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny_model())
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ModelError, match="not a whole GGUF file"):
        open_checkpoint(str(path))


def test_other_architectures_and_parts(tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    writer = gguf.GGUFWriter(path, "falcon")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelError, match="architecture `falcon`, expected one of: gemma3, llama"):
        open_checkpoint(str(path))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint16("split.count", 3)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelError, match="one of 3 parts"):
        open_checkpoint(str(path))


def test_rope_factors_are_configuration_and_unknown_tensors_keep_their_names(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, tiny_model(rope_parameters=LLAMA3))
    assert "rope_freqs.weight" not in checkpoint.names
    assert checkpoint.config["rope_parameters"]["rope_type"] == "factors"
    writer = gguf.GGUFWriter(tmp_path / "odd.gguf", "llama")
    for key in ("block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count"):
        writer.add_uint32(f"llama.{key}", 8)
    writer.add_layer_norm_rms_eps(1e-5)
    for name in ("token_embd.weight", "blk.0.ffn_gate_inp.weight", "blk.0.attn_q.scale", "odd.weight"):
        writer.add_tensor(name, np.zeros((8, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    names = open_checkpoint(str(tmp_path / "odd.gguf")).names
    assert names == ("model.embed_tokens.weight", "blk.0.ffn_gate_inp.weight", "blk.0.attn_q.scale", "odd.weight")
