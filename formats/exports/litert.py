"""A .tflite for LiteRT: signatures `prefill_N` and `decode`, caches as inputs and outputs, as in its generative API.

int8: embedding and linear layers with weights of 8 bits per row, activations of 8 bits as they come, by AI Edge
Quantizer. Source of names: LiteRT's generative API.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesdk.errors import MissingExtraError
from edgesdk.formats.exports.hf import write_tokenizer
from edgesdk.formats.exports.natural import Floats
from edgesdk.formats.exports.output import optional

if TYPE_CHECKING:
    from edgesdk.formats.exports import ExportRequest, Runtime

__all__ = ["FILE", "open_runtime", "require_runtime", "write"]

FILE = "model.tflite"

_EXTRA = "litert"
_PREFILL_TOKENS = 128  # at once, at most half of the context


def write(request: ExportRequest, folder: Path) -> list[str]:
    """model.tflite and the tokenizer."""
    torch = optional("torch", _EXTRA)
    litert = optional("litert_torch", _EXTRA)
    slices = optional("litert_torch.generative.custom_ops.dynamic_update_slice", _EXTRA)
    quantizer = optional("ai_edge_quantizer", _EXTRA)

    def place(cache: Any, rows: Any, positions: Any) -> Any:
        zero = torch.zeros([], dtype=torch.int32)
        return slices.dynamic_update_slice(cache, rows, [zero, positions[0].reshape([]), zero, zero])

    n_prefill = _prefill_tokens(request.context)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        module = request.functional(place)
        caches = module.empty_caches()
        converter: Any = None
        for name, size in ((f"prefill_{n_prefill}", n_prefill), ("decode", 1)):
            inputs = {
                "tokens": torch.zeros((1, size), dtype=torch.int32),
                "input_pos": torch.arange(size, dtype=torch.int32),
                "kv_cache": caches,
            }
            add = litert.signature if converter is None else converter.signature
            converter = add(name, module, sample_kwargs=inputs)
        path = folder / FILE
        converter.convert(strict_export=False).export(str(path))
        if request.weights != "float":
            plain = path.rename(folder / "float.tflite")
            quantizer.Quantizer(str(plain), _recipe(quantizer)).quantize().export_model(str(path))
            plain.unlink()
    write_tokenizer(request, folder)
    return []


def require_runtime() -> None:
    """Raises MissingExtraError where neither ai-edge-litert nor tflite-runtime is installed."""
    _interpreter()


def open_runtime(request: ExportRequest, folder: Path) -> Runtime:
    """ai-edge-litert's interpreter, or that of tflite-runtime where only this is installed; on one thread."""
    return _LiteRt(*_interpreter(), folder, request.context)


def _interpreter() -> tuple[Any, str]:
    """The module, and its package with its version."""
    try:
        module, package = optional("ai_edge_litert.interpreter", _EXTRA), "ai-edge-litert"
    except MissingExtraError as missing:
        try:
            module, package = optional("tflite_runtime.interpreter", _EXTRA), "tflite-runtime"
        except MissingExtraError:
            raise missing from None
    return module, f"{package} {metadata.version(package)}"


class _LiteRt:
    """Feeds whole parts of a text to `prefill`, where they fit, and what is left to `decode`."""

    def __init__(self, module: Any, name: str, folder: Path, context: int) -> None:
        self.name = name
        self._interpreter = module.Interpreter(model_path=str(folder / FILE), num_threads=1)
        self._n_prefill = _prefill_tokens(context)
        self._context = context
        self._prefill = self._interpreter.get_signature_runner(f"prefill_{self._n_prefill}")
        self._decode = self._interpreter.get_signature_runner("decode")
        shapes = {key: one["shape"] for key, one in self._decode.get_input_details().items()}
        self._empty = {key: np.zeros(shape, np.float32) for key, shape in shapes.items() if key.startswith("kv_cache_")}
        self._caches: dict[str, Floats] = {}

    def step(self, tokens: Sequence[int], position: int) -> Floats:
        if position == 0:
            self._caches = dict(self._empty)
        tokens = list(tokens)
        while len(tokens) > 1 and position + self._n_prefill <= self._context:
            part = tokens[: min(self._n_prefill, len(tokens) - 1)]
            padded = part + [0] * (self._n_prefill - len(part))  # what stands behind a text is overwritten by it
            self._run(self._prefill, padded, position)
            tokens, position = tokens[len(part) :], position + len(part)
        for offset, token in enumerate(tokens):
            logits = self._run(self._decode, [token], position + offset)
        last: Floats = logits["logits"].reshape(-1)
        return last

    def _run(self, signature: Any, tokens: Sequence[int], position: int) -> dict[str, Floats]:
        places = np.arange(position, position + len(tokens), dtype=np.int32)
        out: dict[str, Floats] = signature(tokens=np.array([tokens], np.int32), input_pos=places, **self._caches)
        self._caches = {key: values for key, values in out.items() if key.startswith("kv_cache_")}
        return out


def _prefill_tokens(context: int) -> int:
    return max(2, min(_PREFILL_TOKENS, context // 2))


def _recipe(quantizer: Any) -> Any:
    """What is quantized: linear layers and embedding rows."""
    operations, manager = quantizer.qtyping.TFLOperationName, quantizer.recipe_manager.RecipeManager()
    for operation in (operations.EMBEDDING_LOOKUP, operations.FULLY_CONNECTED):
        manager.add_dynamic_config(".*", operation, num_bits=8)
    return manager.get_quantization_recipe()
