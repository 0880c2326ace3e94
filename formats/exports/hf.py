"""A Hugging Face folder: safetensors and config.json; a plain Llama where nothing is cut, else a model file of ours.

Source of names and fields: transformers' Llama.
"""

from __future__ import annotations

import inspect
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesdk.formats.exports.level_model import LevelModel, full_heads, geometric_theta
from edgesdk.formats.exports.natural import Floats
from edgesdk.formats.exports.output import optional

if TYPE_CHECKING:
    from edgesdk.formats.exports import ExportRequest, Runtime

__all__ = ["open_runtime", "require_runtime", "write"]

_FILE = "modeling_edge_level.py"
_ATTENTION = {role: f"self_attn.{role}_proj" for role in "qkvo"}
_MLP = {role: f"mlp.{role}_proj" for role in ("gate", "up", "down")}


def write(request: ExportRequest, folder: Path) -> list[str]:
    """model.safetensors, config.json, generation_config.json, tokenizer; for cut levels modeling_edge_level.py too."""
    save_file = optional("safetensors.numpy", "hf").save_file
    model = request.model
    theta = geometric_theta(model.natural_frequencies)
    plain = model.is_full and theta is not None and model.d_model % model.n_heads == 0  # which a Llama must be
    tensors = dict(_tensors(model, plain))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = _config(model, tensors) | (_llama_fields(tensors, theta) if plain else _own_fields(model, tensors))
    _write_json(folder / "config.json", config)
    ids = {name: value for name, value in _special_ids(model).items() if value is not None}
    _write_json(folder / "generation_config.json", ids)
    write_tokenizer(request, folder)
    if plain:
        return []
    shutil.copyfile(Path(__file__).with_name("hf_files") / _FILE, folder / _FILE)
    return [f"transformers loads it with trust_remote_code=True: layers differ in size, {_FILE} runs them"]


def write_tokenizer(request: ExportRequest, folder: Path) -> None:
    """tokenizer.json and tokenizer_config.json, where the artifact has a tokenizer."""
    if request.tokenizer is None:
        return
    (folder / "tokenizer.json").write_text(request.tokenizer, "utf-8")
    texts = {token["id"]: token["content"] for token in json.loads(request.tokenizer)["added_tokens"]}
    bos, eos = request.model.special_tokens
    fields = {"bos_token": texts.get(bos), "eos_token": texts.get(eos[0]) if eos else None}
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    config |= {name: text for name, text in fields.items() if text is not None}
    config |= {"model_max_length": request.model.max_context}
    if request.chat_template is not None:
        config["chat_template"] = request.chat_template
    _write_json(folder / "tokenizer_config.json", config)


def require_runtime() -> None:
    """Raises MissingExtraError where transformers is not installed."""
    optional("transformers", "hf")


def open_runtime(request: ExportRequest, folder: Path) -> Runtime:
    """transformers, in float32."""
    transformers = optional("transformers", "hf")
    return _Transformers(transformers, folder)


class _Transformers:
    def __init__(self, transformers: Any, folder: Path) -> None:
        self.name = f"transformers {transformers.__version__}"
        self._torch = optional("torch", "hf")
        transformers.utils.logging.disable_progress_bar()
        kind = _own_class() if (folder / _FILE).is_file() else transformers.AutoModelForCausalLM
        self._model = kind.from_pretrained(folder, dtype=self._torch.float32).eval()
        known = inspect.signature(self._model.forward).parameters
        self._argument = "cache" if "cache" in known else "past_key_values"  # transformers 5 is changing its name
        self._new_cache = transformers.DynamicCache
        self._cache: Any = None

    def step(self, tokens: Sequence[int], position: int) -> Floats:
        if position == 0:
            self._cache = self._new_cache()
        ids = self._torch.tensor([list(tokens)])
        with self._torch.inference_mode():
            out = self._model(input_ids=ids, use_cache=True, **{self._argument: self._cache})
        logits: Floats = out.logits[0, -1].numpy()
        return logits


def _own_class() -> Any:
    """The model of the file that exports bring along, out of this package: no code of a folder is run."""
    loader = SourceFileLoader("edgesdk_modeling_edge_level", str(Path(__file__).with_name("hf_files") / _FILE))
    module = ModuleType(loader.name)
    sys.modules[loader.name] = module  # transformers looks there for where a class comes from
    loader.exec_module(module)
    return module.EdgeLevelForCausalLM


def _tensors(model: LevelModel, plain: bool) -> list[tuple[str, Floats]]:
    """Names of a Llama; of a cut level each attention has its own `inv_freq`, (n_kv_heads, qk / 2)."""
    out = [("model.embed_tokens.weight", model.embedding), ("model.norm.weight", model.norm)]
    if not model.tied_head:
        out.append(("lm_head.weight", model.head))
    for index, sizes in enumerate(model.layers):
        prefix = f"model.layers.{index}."
        attention, mlp = model.attention(index), model.mlp(index)
        if plain:
            attention = full_heads(model, attention)
        out += _named(prefix, "input_layernorm", _ATTENTION, "o", attention, bool(sizes.vo))
        out += _named(prefix, "post_attention_layernorm", _MLP, "down", mlp, bool(sizes.width))
        if not plain and sizes.vo:
            out.append((f"{prefix}self_attn.inv_freq", attention["inv_freq"]))
    if plain:
        out += _missing_biases(model, dict(out))
    return [(name, np.ascontiguousarray(values)) for name, values in out]


def _named(
    prefix: str, norm: str, names: Mapping[str, str], last: str, weights: Mapping[str, Floats], kept: bool
) -> list[tuple[str, Floats]]:
    """The tensors of one block; of one that is dropped only the bias, if it has any."""
    out = []
    if "bias" in weights:
        out.append((f"{prefix}{names[last]}.bias", weights["bias"]))
    if not kept:
        return out
    out.append((f"{prefix}{norm}.weight", weights["norm"]))
    for role, name in names.items():
        values = weights[role]
        flat = values.reshape(len(values), -1) if role == last else values.reshape(-1, values.shape[-1])
        out.append((f"{prefix}{name}.weight", flat))
        if f"{role}_bias" in weights:
            out.append((f"{prefix}{name}.bias", weights[f"{role}_bias"].reshape(-1)))
    return out


def _missing_biases(model: LevelModel, tensors: Mapping[str, Floats]) -> list[tuple[str, Floats]]:
    """A Llama has all biases of a kind or none: zeros for those that are not there."""
    out = []
    for names in (_ATTENTION, _MLP):
        modules = [f"model.layers.{i}.{name}" for i in range(len(model.layers)) for name in names.values()]
        if any(f"{module}.bias" in tensors for module in modules):
            absent = [module for module in modules if f"{module}.bias" not in tensors]
            out += [(f"{module}.bias", np.zeros(len(tensors[f"{module}.weight"]), np.float32)) for module in absent]
    return out


def _special_ids(model: LevelModel) -> dict[str, Any]:
    bos, eos = model.special_tokens
    return {"bos_token_id": bos, "eos_token_id": list(eos) if len(eos) > 1 else next(iter(eos), None)}


def _config(model: LevelModel, tensors: Mapping[str, Floats]) -> dict[str, Any]:
    """Fields that a Llama and our own model share."""
    return {
        **_special_ids(model),
        "vocab_size": model.vocab_size,
        "hidden_size": model.d_model,
        "intermediate_size": model.width,
        "num_hidden_layers": len(model.layers),
        "num_attention_heads": model.n_heads,
        "num_key_value_heads": model.n_kv_heads,
        "head_dim": model.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": model.norm_eps,
        "max_position_embeddings": model.max_context,
        "tie_word_embeddings": model.tied_head,
        "torch_dtype": "float32",
    }


def _llama_fields(tensors: Mapping[str, Floats], theta: float | None) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "rope_theta": theta,
        "attention_bias": "model.layers.0.self_attn.o_proj.bias" in tensors,
        "mlp_bias": "model.layers.0.mlp.down_proj.bias" in tensors,
    }


def _own_fields(model: LevelModel, tensors: Mapping[str, Floats]) -> dict[str, Any]:
    stem = Path(_FILE).stem
    return {
        "architectures": ["EdgeLevelForCausalLM"],
        "model_type": "edge_level",
        "auto_map": {
            "AutoConfig": f"{stem}.EdgeLevelConfig",
            "AutoModelForCausalLM": f"{stem}.EdgeLevelForCausalLM",
        },
        "softmax_scale": model.softmax_scale,
        "layer_sizes": [[sizes.qk, sizes.vo, sizes.width] for sizes in model.layers],
        "biases": sorted(name for name in tensors if name.endswith(".bias")),
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
