"""A GGUF file for llama.cpp: its `llama` where all layers are alike, else its `deci`, whose layers differ in MLP width.

Source of keys, names and the order of rows in q and k: the GGUF specification; llama.cpp (models/llama.cpp, deci.cpp).
llama.cpp has one size for all heads of all layers, for keys and values alike, and one set of rotary frequencies: heads
are written at full size, with zeros for what the level gave up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgesdk.formats.exports.blockwise import on_table
from edgesdk.formats.exports.gguf_tokenizer import add_tokenizer
from edgesdk.formats.exports.level_model import LevelModel, full_heads, geometric_theta
from edgesdk.formats.exports.llama_cpp import open_llama_cpp, require_llama_cpp
from edgesdk.formats.exports.natural import Floats
from edgesdk.formats.exports.output import optional

if TYPE_CHECKING:
    from edgesdk.formats.exports import ExportRequest, Runtime

__all__ = ["FILE", "open_runtime", "require_runtime", "write"]

FILE = "model.gguf"

_ATTENTION = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output"}
_MLP = {"gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}
_EMPTY_WIDTH = 32  # of an MLP that the level drops: deci leaves a layer without MLP out, attention and all
_BLOCK = 32  # columns of a block of IQ4_NL, Q4_0 and Q8_0


def write(request: ExportRequest, folder: Path) -> list[str]:
    """model.gguf: matrices as IQ4_NL or Q4_0 (embedding and head Q8_0), all as Q8_0, or as F32; vectors are F32."""
    gguf = optional("gguf", "gguf")
    model = request.model
    alike = len({sizes.width for sizes in model.layers}) == 1 and all(
        sizes.vo and sizes.width for sizes in model.layers
    )
    writer = gguf.GGUFWriter(folder / FILE, "llama" if alike else "deci")
    theta = geometric_theta(model.natural_frequencies)
    _add_sizes(gguf, writer, request, alike, theta)
    remarks = add_tokenizer(gguf, writer, model)
    if request.chat_template is not None:
        writer.add_chat_template(request.chat_template)
    _Tensors(gguf, writer, request.weights).add_model(model, theta)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return remarks + _kept_full(model)


def require_runtime() -> None:
    """Raises EdgeError where no built llama.cpp is named."""
    require_llama_cpp()


def open_runtime(request: ExportRequest, folder: Path) -> Runtime:
    """llama.cpp itself: see llama_cpp.py."""
    return open_llama_cpp(folder / FILE, request.model.vocab_size, request.context)


def _kept_full(model: LevelModel) -> list[str]:
    """Which axes were kept full, and why."""
    remarks = []
    for axis, what in (("qk", "queries and keys"), ("vo", "values and outputs")):
        n_cut = sum(0 < getattr(sizes, axis) < model.head_dim for sizes in model.layers)
        if n_cut:
            remarks.append(
                f"axis {axis} was kept full ({model.head_dim} per head, zeros where cut) in {n_cut} of "
                f"{len(model.layers)} layers: llama.cpp has one head size for all layers and for {what} alike"
            )
    n_dropped = sum(not sizes.vo for sizes in model.layers)
    if n_dropped:
        remarks.append(f"{n_dropped} dropped attentions were kept as one head of zeros, which carries their bias")
    n_dropped = sum(not sizes.width for sizes in model.layers)
    if n_dropped:
        remarks.append(
            f"{n_dropped} dropped MLPs were kept as {_EMPTY_WIDTH} channels of zeros, which carry their bias"
        )
    return remarks


def _add_sizes(gguf: Any, writer: Any, request: ExportRequest, alike: bool, theta: float | None) -> None:
    model = request.model
    types = gguf.LlamaFileType
    kinds = {
        "iq4_nl": types.MOSTLY_IQ4_NL,
        "q4_0": types.MOSTLY_Q4_0,
        "q8_0": types.MOSTLY_Q8_0,
        "float": types.ALL_F32,
    }
    writer.add_name(f"{model.name} level {model.level.index}")
    writer.add_file_type(kinds[request.weights])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(len(model.layers))
    writer.add_context_length(model.max_context)
    writer.add_embedding_length(model.d_model)
    if alike:
        writer.add_feed_forward_length(model.layers[0].width)
        writer.add_head_count(model.n_heads)
        writer.add_head_count_kv(model.n_kv_heads)
    else:
        writer.add_feed_forward_length([sizes.width or _EMPTY_WIDTH for sizes in model.layers])
        writer.add_head_count([model.n_heads if sizes.vo else 1 for sizes in model.layers])
        writer.add_head_count_kv([model.n_kv_heads if sizes.vo else 1 for sizes in model.layers])
    writer.add_key_length(model.head_dim)
    writer.add_value_length(model.head_dim)
    writer.add_rope_dimension_count(model.head_dim)
    writer.add_rope_freq_base(_base(theta))
    writer.add_layer_norm_rms_eps(model.norm_eps)
    writer.add_vocab_size(model.vocab_size)


def _base(theta: float | None) -> float:
    """Of frequencies that follow no theta: any base, since rope_freqs then says how far each is from it."""
    return 10000.0 if theta is None else theta


class _Tensors:
    """Adds tensors in the type that they are to have."""

    def __init__(self, gguf: Any, writer: Any, weights: str) -> None:
        self._gguf, self._writer, self._weights = gguf, writer, weights

    def add_model(self, model: LevelModel, theta: float | None) -> None:
        """All tensors; a softmax scale of the model's own becomes a part of the queries."""
        self._matrix("token_embd.weight", model.embedding, whole=True)
        self._vector("output_norm.weight", model.norm)
        if not model.tied_head:
            self._matrix("output.weight", model.head, whole=True)
        if theta is None:
            steps = np.arange(model.head_dim // 2) * 2 / model.head_dim
            self._vector("rope_freqs.weight", (_base(theta) ** -steps / model.natural_frequencies).astype(np.float32))
        scale = model.softmax_scale * model.head_dim**0.5
        for index, sizes in enumerate(model.layers):
            attention = full_heads(model, model.attention(index))
            if not sizes.vo:  # zeros throughout: one head is enough
                attention |= {role: attention[role][:1] for role in "qkv"} | {"o": attention["o"][:, :1]}
            for name in {"q", "q_bias"} & attention.keys():
                attention[name] = attention[name] * np.float32(scale)
            for name in {"q", "k", "q_bias", "k_bias"} & attention.keys():
                attention[name] = _interleaved(attention[name])
            self._block(index, "attn_norm", _ATTENTION, "o", attention)
            mlp = model.mlp(index)
            if not sizes.width:
                rows = np.zeros((_EMPTY_WIDTH, model.d_model), np.float32)
                mlp |= {"gate": rows, "up": rows, "down": rows.T.copy()}
            self._block(index, "ffn_norm", _MLP, "down", mlp)

    def _block(self, index: int, norm: str, names: Mapping[str, str], last: str, weights: Mapping[str, Floats]) -> None:
        self._vector(f"blk.{index}.{norm}.weight", weights["norm"])
        for role, name in names.items():
            values = weights[role]
            flat = values.reshape(len(values), -1) if role == last else values.reshape(-1, values.shape[-1])
            self._matrix(f"blk.{index}.{name}.weight", flat)
            bias = weights.get("bias" if role == last else f"{role}_bias")
            if bias is not None:
                self._vector(f"blk.{index}.{name}.bias", bias.reshape(-1))

    def _vector(self, name: str, values: Floats) -> None:
        self._writer.add_tensor(name, np.ascontiguousarray(values, np.float32))

    def _matrix(self, name: str, values: Floats, *, whole: bool = False) -> None:
        """whole: embedding and head, which lose more by 4 bits; so does what has columns for no block of 32."""
        kind = "F32" if self._weights == "float" else "Q8_0" if whole else self._weights.upper()
        kind = "F16" if kind != "F32" and values.shape[1] % _BLOCK else kind
        values = np.ascontiguousarray(values, np.float32)
        if kind == "F32":
            self._writer.add_tensor(name, values)
            return
        target, quants = self._gguf.GGMLQuantizationType[kind], self._gguf.quants
        data = _nonlinear(values, quants.IQ4_NL.kvalues) if kind == "IQ4_NL" else quants.quantize(values, target)
        self._writer.add_tensor(name, data, raw_dtype=target)


def _nonlinear(values: Floats, table: Sequence[int]) -> NDArray[np.uint8]:
    """IQ4_NL: per block the scale, then bytes with a code of the first half low and one of the second half high."""
    codes, scales = on_table(values, np.array(table, np.float32), _BLOCK)
    packed = codes[..., : _BLOCK // 2] | codes[..., _BLOCK // 2 :] << np.uint8(4)
    return np.concatenate([scales[..., None].view(np.uint8), packed], axis=-1).reshape(len(values), -1)


def _interleaved(values: Floats) -> Floats:
    """Rows of each head from (half, pair) to (pair, half): (heads, head_dim, ...)."""
    heads, size = values.shape[:2]
    halves = values.reshape(heads, 2, size // 2, *values.shape[2:])
    return np.ascontiguousarray(np.swapaxes(halves, 1, 2)).reshape(values.shape)
