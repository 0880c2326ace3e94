"""An ONNX model with keys and values as inputs and outputs, named as onnxruntime-genai does, and genai_config.json.

`float` and `int4-qdq` are made of standard operators alone (opset 21 has blocks of 4 bits); `int4` and `int8` use
onnxruntime's own MatMulNBits and GroupQueryAttention. Sources: the ONNX operators, onnxruntime's contributed operators.
All layers share one head size in the caches, the largest of the level: heads that are smaller are filled up with zeros
as they are stored, while their weights keep their own size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesdk.errors import UsageError
from edgesdk.formats.exports.hf import write_tokenizer
from edgesdk.formats.exports.level_model import LevelModel
from edgesdk.formats.exports.natural import Floats
from edgesdk.formats.exports.onnx_graph import Graph
from edgesdk.formats.exports.output import optional

if TYPE_CHECKING:
    from edgesdk.formats.exports import ExportRequest, Runtime

__all__ = ["FILE", "open_genai", "open_runtime", "require_runtime", "write"]

FILE = "model.onnx"
MIN_OPSET = 21  # the first with 4-bit weights in blocks

_UNSEEN = np.float32(-1e9)


def write(request: ExportRequest, folder: Path) -> list[str]:
    """model.onnx, model.onnx.data, genai_config.json and the tokenizer."""
    onnx = optional("onnx", "onnx")
    newest = onnx.defs.onnx_opset_version()
    if not MIN_OPSET <= request.opset <= newest:
        raise UsageError(
            f"opset {request.opset} cannot hold this model: blocks of 4 bits began with {MIN_OPSET}, this onnx knows "
            f"{newest}",
            hint=f"give --opset {MIN_OPSET} to {newest}, or leave it out",
        )
    model = request.model
    cached = [index for index, sizes in enumerate(model.layers) if sizes.vo]
    if not cached:
        raise UsageError(
            f"level {model.level.index} has no attention left, and a graph without caches is no language model",
            hint="export a larger level",
        )
    built = _Decoder(Graph(onnx, request.opset, request.weights), model, cached).build()
    onnx.save_model(
        built,
        str(folder / FILE),
        save_as_external_data=True,
        location=f"{FILE}.data",
        size_threshold=1024,
        convert_attribute=False,
    )
    config = _genai_config(request, len(cached), _head_size(model))
    (folder / "genai_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    write_tokenizer(request, folder)
    n_padded = sum(0 < min(sizes.qk, sizes.vo) < _head_size(model) for sizes in model.layers)
    if not n_padded:
        return []
    return [
        f"caches of {n_padded} of {len(model.layers)} layers are filled up to heads of {_head_size(model)}: "
        "onnxruntime-genai has one head size for all; the weights keep their own sizes"
    ]


def require_runtime() -> None:
    """Raises MissingExtraError where onnxruntime is not installed."""
    optional("onnxruntime", "onnx")


def open_runtime(request: ExportRequest, folder: Path) -> Runtime:
    """onnxruntime, on one thread."""
    return _OnnxRuntime(optional("onnxruntime", "onnx"), folder, request.model)


def open_genai(folder: Path) -> Any:
    """onnxruntime-genai's model: greedy(tokens, n) -> tokens."""
    return _GenAi(optional("onnxruntime_genai", "onnx"), folder)


def _head_size(model: LevelModel) -> int:
    return max(max(sizes.qk, sizes.vo) for sizes in model.layers)


class _OnnxRuntime:
    def __init__(self, onnxruntime: Any, folder: Path, model: LevelModel) -> None:
        self.name = f"onnxruntime {onnxruntime.__version__}"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(folder / FILE), options, providers=["CPUExecutionProvider"])
        self._empty = np.zeros((1, model.n_kv_heads, 0, _head_size(model)), np.float32)
        self._names = [one.name for one in self._session.get_inputs() if one.name.startswith("past_key_values.")]
        self._caches: list[Floats] = []

    def step(self, tokens: Sequence[int], position: int) -> Floats:
        if position == 0:
            self._caches = [self._empty] * len(self._names)
        total = position + len(tokens)
        feeds = {
            "input_ids": np.array([tokens], np.int64),
            "attention_mask": np.ones((1, total), np.int64),
            "position_ids": np.arange(position, total, dtype=np.int64)[None],
            **dict(zip(self._names, self._caches, strict=True)),
        }
        logits, *self._caches = self._session.run(None, feeds)
        last: Floats = logits[0, -1]
        return last


class _GenAi:
    def __init__(self, genai: Any, folder: Path) -> None:
        self.name = f"onnxruntime-genai {genai.__version__}"
        self._genai = genai
        self._model = genai.Model(str(folder))

    def greedy(self, tokens: Sequence[int], n_tokens: int) -> list[int]:
        """The likeliest tokens behind a text, one after the other."""
        options = self._genai.GeneratorParams(self._model)
        options.set_search_options(do_sample=False, max_length=len(tokens) + n_tokens)
        generator = self._genai.Generator(self._model, options)
        generator.append_tokens(np.array(tokens, np.int32))
        while not generator.is_done() and len(generator.get_sequence(0)) < len(tokens) + n_tokens:
            generator.generate_next_token()
        return [int(token) for token in generator.get_sequence(0)[len(tokens) :]]


class _Decoder:
    """Builds the graph of a level."""

    def __init__(self, graph: Graph, model: LevelModel, cached: Sequence[int]) -> None:
        self._g, self._model, self._cached = graph, model, cached
        self._size = _head_size(model)
        self._group = model.n_heads // model.n_kv_heads

    def build(self) -> Any:
        """The whole ONNX model."""
        g, model = self._g, self._model
        g.input("input_ids", g.INT64, ["batch", "tokens"])
        g.input("attention_mask", g.INT64, ["batch", "total"])
        g.input("position_ids", g.INT64, ["batch", "tokens"])
        x, head = self._embedding()
        attention = {index: model.attention(index) for index in range(len(model.layers))}
        turns = self._turns([attention[index]["inv_freq"] for index in self._cached])
        seen = self._seen()
        outputs = []
        for index, sizes in enumerate(model.layers):
            weights = attention.pop(index)
            if sizes.vo:
                x, caches = self._attention(self._cached.index(index), x, weights, turns[index], seen)
                outputs += caches
            elif "bias" in weights:
                x = g.node("Add", x, g.constant(weights["bias"]))
            x = self._mlp(x, model.mlp(index), bool(sizes.width))
        x = self._norm(x, model.norm)
        logits = g.matmul_shared(x, head) if head is not None else g.matmul(x, model.head, bits=8)
        g.output(g.node("Identity", logits, names=["logits"]), g.FLOAT, ["batch", "tokens", model.vocab_size])
        for name in outputs:
            g.output(name, g.FLOAT, ["batch", model.n_kv_heads, "total", self._size])
        return g.model(f"{model.name} level {model.level.index}")

    def _embedding(self) -> tuple[str, Any]:
        """Embedded tokens, and the table when the head can use it too."""
        g, model = self._g, self._model
        table = g.table(model.embedding)
        x = g.lookup(table, "input_ids", model.d_model)
        return x, table if model.tied_head else None

    def _turns(self, frequencies: Sequence[Floats]) -> dict[int, tuple[str, str]]:
        """cos and sin of every cached layer, (batch, tokens, n_kv_heads, 1, pairs): computed in one go."""
        g = self._g
        places = g.node("Unsqueeze", g.node("Cast", "position_ids", to=g.FLOAT), g.ints([-1]))
        angle = g.node("Mul", places, g.constant(np.concatenate([one.reshape(-1) for one in frequencies])))
        pieces = {}
        for op in ("Cos", "Sin"):
            parts = g.split(g.node(op, angle), [one.size for one in frequencies])
            shapes = [g.ints([0, 0, one.shape[0], 1, one.shape[1]]) for one in frequencies]
            pieces[op] = [g.node("Reshape", part, shape) for part, shape in zip(parts, shapes, strict=True)]
        return {index: (pieces["Cos"][i], pieces["Sin"][i]) for i, index in enumerate(self._cached)}

    def _seen(self) -> Sequence[str]:
        """What attention needs to know of masks: for onnxruntime's operator lengths, else a mask to be added."""
        g = self._g
        total = g.node("Shape", "attention_mask", start=1, end=2)
        if g.contributed:
            lengths = g.node("Sub", g.node("ReduceSum", "attention_mask", g.ints([1]), keepdims=0), g.ints([1]))
            return g.node("Cast", lengths, to=g.INT32), g.node("Cast", g.node("Squeeze", total), to=g.INT32)
        n_tokens = g.node("Shape", "input_ids", start=1, end=2)
        zero, one = g.scalar(0), g.scalar(1)
        columns = g.node("Range", zero, g.node("Squeeze", total), one)
        first = g.node("Squeeze", g.node("Sub", total, n_tokens))
        rows = g.node("Add", g.node("Range", zero, g.node("Squeeze", n_tokens), one), first)
        causal = g.node("LessOrEqual", columns, g.node("Unsqueeze", rows, g.ints([1])))  # (tokens, total)
        given = g.node("Unsqueeze", g.node("Cast", "attention_mask", to=g.BOOL), g.ints([1, 2, 3]))
        unseen = g.node("Where", g.node("And", causal, given), g.floats(0), g.constant(_UNSEEN))
        return (unseen,)  # (batch, 1, 1, tokens, total)

    def _norm(self, x: str, gain: Floats) -> str:
        g = self._g
        mean = g.node("ReduceMean", g.node("Pow", x, g.floats(2)), g.ints([-1]), keepdims=1)
        root = g.node("Sqrt", g.node("Add", mean, g.constant(np.float32(self._model.norm_eps))))
        return g.node("Mul", g.node("Div", x, root), g.constant(gain))

    def _mlp(self, x: str, weights: Mapping[str, Floats], kept: bool) -> str:
        g = self._g
        if not kept:
            return g.node("Add", x, g.constant(weights["bias"])) if "bias" in weights else x
        hidden = self._norm(x, weights["norm"])
        gate = g.matmul(hidden, weights["gate"], bias=weights.get("gate_bias"))
        up = g.matmul(hidden, weights["up"], bias=weights.get("up_bias"))
        active = g.node("Mul", g.node("Mul", gate, g.node("Sigmoid", gate)), up)
        return g.node("Add", x, g.matmul(active, weights["down"], bias=weights.get("bias")))

    def _attention(
        self, place: int, x: str, weights: Mapping[str, Floats], turn: tuple[str, str], seen: Sequence[str]
    ) -> tuple[str, list[str]]:
        """The stream behind the block, and the names of what its caches became. place: its number among caches."""
        g, model, size = self._g, self._model, self._size
        heads, group, vo = model.n_kv_heads, self._group, weights["v"].shape[1]
        past, present = [], []
        for kind in ("key", "value"):
            shape: list[int | str] = ["batch", heads, "past", size]
            past.append(g.input(f"past_key_values.{place}.{kind}", g.FLOAT, shape))
            present.append(f"present.{place}.{kind}")
        hidden = self._norm(x, weights["norm"])
        q = self._turned(self._project(hidden, weights, "q"), group, weights["q"].shape[1], turn)
        k = self._turned(self._project(hidden, weights, "k"), 1, weights["k"].shape[1], turn)
        v = g.node("Reshape", self._project(hidden, weights, "v"), g.ints([0, 0, heads, 1, vo]))
        q, k, v = (
            self._filled(one, width) for one, width in ((q, weights["q"].shape[1]), (k, weights["k"].shape[1]), (v, vo))
        )
        attend = self._contributed_attention if g.contributed else self._plain_attention
        z = attend(q, k, v, past, present, seen)  # (batch, tokens, n_kv_heads, group, size)
        if vo < size:
            z = g.node("Slice", z, g.ints([0]), g.ints([vo]), g.ints([-1]))
        z = g.node("Reshape", z, g.ints([0, 0, model.n_heads * vo]))
        o = weights["o"].reshape(model.d_model, -1)
        return g.node("Add", x, g.matmul(z, o, bias=weights.get("bias"))), present

    def _project(self, x: str, weights: Mapping[str, Floats], role: str) -> str:
        bias = weights.get(f"{role}_bias")
        flat = weights[role].reshape(-1, self._model.d_model)
        return self._g.matmul(x, flat, bias=None if bias is None else bias.reshape(-1))

    def _turned(self, x: str, group: int, size: int, turn: tuple[str, str]) -> str:
        """(batch, tokens, heads * size) -> (batch, tokens, n_kv_heads, group, size), pairs turned."""
        g = self._g
        heads = g.node("Reshape", x, g.ints([0, 0, self._model.n_kv_heads, group, size]))
        first, second = g.split(heads, [size // 2, size // 2])
        cos, sin = turn
        left = g.node("Sub", g.node("Mul", first, cos), g.node("Mul", second, sin))
        right = g.node("Add", g.node("Mul", second, cos), g.node("Mul", first, sin))
        return g.node("Concat", left, right, axis=-1)

    def _filled(self, x: str, size: int) -> str:
        """The last axis filled up with zeros to the size that caches have."""
        g = self._g
        if size == self._size:
            return x
        return g.node("Pad", x, g.ints([0, self._size - size]), g.floats(0), g.ints([-1]))

    def _contributed_attention(
        self, q: str, k: str, v: str, past: Sequence[str], present: Sequence[str], seen: Sequence[str]
    ) -> str:
        g, model, size = self._g, self._model, self._size
        flat = [
            g.node("Reshape", one, g.ints([0, 0, heads * size]))
            for one, heads in ((q, model.n_heads), (k, model.n_kv_heads), (v, model.n_kv_heads))
        ]
        z = g.node(
            "GroupQueryAttention",
            *flat,
            *past,
            *seen,
            names=[g.fresh("attention"), *present],
            domain=g.CONTRIBUTED,
            num_heads=model.n_heads,
            kv_num_heads=model.n_kv_heads,
            scale=model.softmax_scale,
        )
        return g.node("Reshape", z, g.ints([0, 0, model.n_kv_heads, self._group, size]))

    def _plain_attention(
        self, q: str, k: str, v: str, past: Sequence[str], present: Sequence[str], seen: Sequence[str]
    ) -> str:
        g = self._g
        stored = []
        for new, old, name in zip((k, v), past, present, strict=True):
            one = g.node("Transpose", g.node("Squeeze", new, g.ints([3])), perm=[0, 2, 1, 3])
            g.node("Concat", old, one, axis=2, names=[name])
            stored.append(g.node("Unsqueeze", name, g.ints([2])))  # (batch, n_kv_heads, 1, total, size)
        queries = g.node("Transpose", q, perm=[0, 2, 3, 1, 4])
        queries = g.node("Mul", queries, g.constant(np.float32(self._model.softmax_scale)))
        scores = g.node("MatMul", queries, g.node("Transpose", stored[0], perm=[0, 1, 2, 4, 3]))
        shares = g.node("Softmax", g.node("Add", scores, seen[0]), axis=-1)
        return g.node("Transpose", g.node("MatMul", shares, stored[1]), perm=[0, 3, 1, 2, 4])


def _genai_config(request: ExportRequest, n_caches: int, head_size: int) -> dict[str, Any]:
    """What onnxruntime-genai reads beside the graph."""
    model = request.model
    bos, eos = model.special_tokens
    ends = list(eos) or [model.vocab_size - 1]
    shared = request.weights in ("int4", "int8")  # its attention writes into the cache that it got
    return {
        "model": {
            "type": "llama",
            "bos_token_id": ends[0] if bos is None else bos,
            "eos_token_id": ends,
            "pad_token_id": ends[0],
            "vocab_size": model.vocab_size,
            "context_length": request.context,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": FILE,
                "head_size": head_size,
                "hidden_size": model.d_model,
                "num_attention_heads": model.n_heads,
                "num_key_value_heads": model.n_kv_heads,
                "num_hidden_layers": n_caches,
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "position_ids": "position_ids",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {
            "do_sample": False,
            "max_length": request.context,
            "min_length": 0,
            "num_beams": 1,
            "num_return_sequences": 1,
            "past_present_share_buffer": shared,
            "repetition_penalty": 1.0,
            "temperature": 1.0,
            "top_k": 1,
            "top_p": 1.0,
        },
    }
