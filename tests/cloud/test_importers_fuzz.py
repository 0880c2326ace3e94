"""Damaged checkpoints: importers read files from the internet. Each is refused with one of our errors, or imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from damage import Outcomes, byte_changes, change_bytes, change_json, fuzz, json_changes
from small_sources import (
    BYTE_LEVEL,
    CONFIG,
    METASPACE,
    TOKENIZER_CONFIG,
    WIDTH,
    D,
    N,
    gguf_parts,
    safetensors_parts,
    write_gguf,
    write_safetensors,
)

from edgesdk.cloud.checkpoint import Checkpoint, LazyTensor, Source, TokenizerFiles, open_checkpoint
from edgesdk.cloud.families import FAMILIES, load_model
from edgesdk.cloud.tokenizer import import_tokenizer
from edgesdk.errors import ModelError


def import_everything(path: Path) -> None:
    checkpoint = open_checkpoint(str(path))
    load_model(checkpoint)
    for name in checkpoint.names:
        assert checkpoint.tensor(name).shape == checkpoint.shape(name)


# --- GGUF ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_damaged_gguf(model: str, tmp_path: Path) -> None:
    parts = gguf_parts(model)
    n_data_bytes = parts["tensors"][-1][3] + 4 * WIDTH * D
    good = write_gguf(parts, n_data_bytes)
    path, outcomes, tokenizers = tmp_path / "model.gguf", Outcomes(), Outcomes()
    path.write_bytes(good)
    import_everything(path)
    assert import_tokenizer(path).n_tokens == N

    def use(data: bytes) -> None:
        path.write_bytes(data)
        outcomes.of(lambda: import_everything(path))
        tokenizers.of(lambda: import_tokenizer(path))

    @fuzz(120, changes=json_changes())
    def check_structure(changes: Any) -> None:
        use(write_gguf(change_json(parts, changes), n_data_bytes))

    @fuzz(80, changes=byte_changes())
    def check_header(changes: Any) -> None:
        use(change_bytes(good[:-n_data_bytes], changes) + good[-n_data_bytes:])

    check_structure()
    check_header()
    outcomes.finish()
    tokenizers.finish()


# --- safetensors and the JSON beside them -------------------------------------------------------------------------
@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, METASPACE], ids=["byte_level", "metaspace"])
def test_damaged_directories(tokenizer: dict[str, Any], tmp_path: Path) -> None:
    header, data = safetensors_parts()
    index = {"metadata": {}, "weight_map": dict.fromkeys(header, "part-1.safetensors")}
    documents = {
        "config.json": CONFIG,
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": TOKENIZER_CONFIG,
        "generation_config.json": {"eos_token_id": [1, 2]},
        "model.safetensors.index.json": index,
    }
    outcomes, tokenizers = Outcomes(), Outcomes()

    def write() -> None:
        for name, document in documents.items():
            (tmp_path / name).write_text(json.dumps(document))
        write_safetensors(tmp_path / "part-1.safetensors", header, data)

    def use() -> None:
        outcomes.of(lambda: import_everything(tmp_path))
        tokenizers.of(lambda: import_tokenizer(tmp_path, chat_template=open_checkpoint(str(tmp_path)).chat_template))

    write()
    import_everything(tmp_path)
    assert import_tokenizer(tmp_path).n_tokens == len(tokenizer["model"]["vocab"])

    @fuzz(150, name=st.sampled_from(sorted(documents)), changes=json_changes())
    def check_documents(name: str, changes: Any) -> None:
        write()
        (tmp_path / name).write_text(json.dumps(change_json(documents[name], changes)))
        use()

    @fuzz(60, changes=json_changes())
    def check_header(changes: Any) -> None:
        write()
        write_safetensors(tmp_path / "part-1.safetensors", change_json(header, changes), data)
        use()

    @fuzz(60, name=st.sampled_from([*sorted(documents), "part-1.safetensors"]), changes=byte_changes())
    def check_bytes(name: str, changes: Any) -> None:
        write()
        path = tmp_path / name
        path.write_bytes(change_bytes(path.read_bytes(), changes))
        use()

    check_documents()
    check_header()
    check_bytes()
    outcomes.finish()
    tokenizers.finish()


# --- configurations of all families -------------------------------------------------------------------------------
_SSM = {"num_heads": 8, "head_dim": 8, "state_size": 16, "n_groups": 2, "conv_kernel": 4, "expand": 2}
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 16, "mamba_n_groups": 1, "mamba_d_conv": 4}
CONFIGS: dict[str, dict[str, Any]] = {
    **{name: CONFIG | {"model_type": name} for name in ("llama", "mistral", "qwen2", "qwen3")},
    "gemma2": CONFIG | {"hidden_activation": "gelu_pytorch_tanh", "sliding_window": 16, "head_dim": 8},
    "gemma3_text": CONFIG | {"hidden_activation": "gelu_pytorch_tanh", "layer_types": ["sliding_attention"]},
    "phi3": CONFIG | {"sliding_window": 16, "rope_scaling": None},
    "mamba2": {"hidden_size": 32, "vocab_size": N, "num_hidden_layers": 2, "time_step_limit": [0.0, 1.0], **_SSM},
    "bamba": CONFIG | {"attn_layer_indices": [0], "partial_rotary_factor": 0.5, **_MAMBA},
    "nemotron_h": CONFIG
    | {"hybrid_override_pattern": "M-*", "mlp_hidden_act": "relu2", "head_dim": 8}
    | {"mamba_num_heads": 8, "mamba_head_dim": 8, "ssm_state_size": 16, "n_groups": 2, "layer_norm_epsilon": 1e-5},
}


def test_there_is_a_configuration_of_every_family() -> None:
    assert set(CONFIGS) == {model_type for family in FAMILIES for model_type in family.model_types}


@pytest.mark.parametrize("model_type", sorted(CONFIGS))
def test_damaged_configurations(model_type: str, tmp_path: Path) -> None:
    """A model without tensors: of a configuration that can be read, all tensors are missing."""
    config = CONFIGS[model_type] | {"model_type": model_type}
    outcomes = Outcomes()

    def read(config: Any) -> None:
        source = Source("directory", "x", tmp_path, "", None, ())
        tensors: dict[str, LazyTensor] = {}
        with pytest.raises(ModelError) as error:
            load_model(Checkpoint(source, config, TokenizerFiles(), None, tensors))
        if "missing: " not in error.value.message:
            raise error.value

    read(config)

    @fuzz(80, changes=json_changes())
    def check(changes: Any) -> None:
        changed = change_json(config, changes)
        outcomes.of(lambda: read(changed if isinstance(changed, dict) else {}))

    check()
    outcomes.finish()
