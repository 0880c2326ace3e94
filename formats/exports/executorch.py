"""A .pte for ExecuTorch: XNNPACK computes it, caches are its own buffers, and its LLM runner finds what it asks for.

Source of the names of metadata and of the program's inputs: ExecuTorch's LLM runner. 8da4w: weights of 4 bits in groups
of 32, 8da8w: of 8 bits in rows, activations of 8 bits per token, by torchao; rows of embedding and head have 8 bits in
either.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesdk.errors import UsageError
from edgesdk.formats.exports.hf import write_tokenizer
from edgesdk.formats.exports.natural import Floats
from edgesdk.formats.exports.output import optional

if TYPE_CHECKING:
    from edgesdk.formats.exports import ExportRequest, Runtime

__all__ = ["FILE", "open_runner", "open_runtime", "read_metadata", "require_runtime", "write"]

FILE = "model.pte"

_EXTRA = "executorch"
_GROUP = 32
_OPERATORS = "executorch.extension.llm.custom_ops.custom_ops"  # importing it registers them


def write(request: ExportRequest, folder: Path) -> list[str]:
    """model.pte and the tokenizer."""
    torch = optional("torch", _EXTRA)
    exir = optional("executorch.exir", _EXTRA)
    partition = optional("executorch.backends.xnnpack.partition.xnnpack_partitioner", _EXTRA)
    optional(_OPERATORS, _EXTRA)
    model = request.model
    if request.weights == "8da4w" and model.d_model % _GROUP:
        raise UsageError(
            f"8da4w has groups of {_GROUP} weights, and rows of this model have {model.d_model}",
            hint="give --weights float",
        )
    quantized = request.weights != "float"
    n_tokens = 2 if request.dynamic else 1  # an example of 1 would fix the size
    with _quiet(), torch.no_grad():
        module = request.buffered(True)
        if quantized:
            _quantize(torch, module, request.weights)
        example = (torch.zeros((1, n_tokens), dtype=torch.int64), torch.arange(n_tokens))
        shapes = None
        if request.dynamic:
            tokens = torch.export.Dim("tokens", min=1, max=request.context)
            shapes = ({1: tokens}, {0: tokens})
        program = torch.export.export(module, example, dynamic_shapes=shapes, strict=True)
        # What is left beside quantized linear layers is cheap, and its partitions take most of the time of an export.
        chosen = partition.XnnpackDynamicallyQuantizedPartitioner if quantized else partition.XnnpackPartitioner
        lowered = exir.to_edge_transform_and_lower(
            program,
            partitioner=[chosen()],
            constant_methods=_metadata(request),
            compile_config=exir.EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True),
        )
        planned = exir.passes.MemoryPlanningPass(alloc_graph_input=False, alloc_graph_output=True)
        shaped = exir.passes.sym_shape_eval_pass.ConstraintBasedSymShapeEvalPass()
        config = exir.ExecutorchBackendConfig(
            memory_planning_pass=planned,
            sym_shape_eval_pass=shaped,
            extract_delegate_segments=True,
        )
        with (folder / FILE).open("wb") as file:
            lowered.to_executorch(config).write_to_file(file)
    write_tokenizer(request, folder)
    return []


def require_runtime() -> None:
    """Raises MissingExtraError where executorch is not installed."""
    optional("executorch.runtime", _EXTRA)


def open_runtime(request: ExportRequest, folder: Path) -> Runtime:
    """executorch.runtime."""
    return _ExecuTorch(folder)


def open_runner(folder: Path) -> Any:
    """ExecuTorch's LLM runner over the folder's tokenizer: `generate(text, n)`."""
    return _Runner(optional("executorch.extension.llm.runner", _EXTRA), folder)


class _ExecuTorch:
    def __init__(self, folder: Path) -> None:
        optional(_OPERATORS, _EXTRA)
        runtime = optional("executorch.runtime", _EXTRA)
        version = optional("executorch.version", _EXTRA).__version__
        self.name = f"executorch {version}"
        self._torch = optional("torch", _EXTRA)
        self._program = runtime.Runtime.get().load_program(folder / FILE)
        self._method = self._program.load_method("forward")
        self._whole = self._program.load_method("enable_dynamic_shape").execute([])[0]

    def step(self, tokens: Sequence[int], position: int) -> Floats:
        size = len(tokens) if self._whole else 1
        for begin in range(0, len(tokens), size):
            part = self._torch.tensor([list(tokens[begin : begin + size])])
            places = self._torch.arange(position + begin, position + begin + size)
            (out,) = self._method.execute([part, places])
        logits: Floats = out.reshape(-1).numpy().copy()
        return logits


class _Runner:
    def __init__(self, runner: Any, folder: Path) -> None:
        self._module = runner
        self._runner = runner.TextLLMRunner(str(folder / FILE), str(folder / "tokenizer.json"))

    def generate(self, text: str, n_tokens: int) -> str:
        """The greedy continuation of a text."""
        pieces: list[str] = []
        config = self._module.GenerationConfig(echo=False, max_new_tokens=n_tokens, temperature=0.0)
        self._runner.generate(text, config, pieces.append)
        return "".join(pieces)


def _quantize(torch: Any, module: Any, weights: str) -> None:
    """Changes the module's linear layers and its embedding."""
    api = optional("torchao.quantization", _EXTRA)
    granularity = optional("torchao.quantization.granularity", _EXTRA)
    module.round_embedding()
    by_row = api.Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int8, weight_granularity=granularity.PerAxis(0)
    )
    by_group = api.Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int4, weight_granularity=granularity.PerGroup(_GROUP)
    )

    def is_block(part: Any, name: str) -> bool:
        return isinstance(part, torch.nn.Linear) and name != "head"

    api.quantize_(module, by_group if weights == "8da4w" else by_row, is_block)
    api.quantize_(module.head, by_row)


def _metadata(request: ExportRequest) -> dict[str, Any]:
    """What ExecuTorch's LLM runner asks a program for."""
    model = request.model
    bos, eos = model.special_tokens
    ends = list(eos) or [model.vocab_size - 1]
    return {
        "get_max_seq_len": request.context,
        "get_max_context_len": request.context,
        "get_vocab_size": model.vocab_size,
        "get_n_layers": len(model.layers),
        "get_bos_id": ends[0] if bos is None else bos,
        "get_eos_ids": ends,
        "get_n_bos": 0,
        "get_n_eos": len(ends),
        "use_kv_cache": True,
        "use_sdpa_with_kv_cache": True,
        "enable_dynamic_shape": request.dynamic,
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporting warns of what its own libraries do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_metadata(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """What a written program answers to these methods."""
    runtime = optional("executorch.runtime", _EXTRA)
    program = runtime.Runtime.get().load_program(folder / FILE)
    found = {name: program.load_method(name).execute([]) for name in names}
    return {name: values[0] if len(values) == 1 else list(values) for name, values in found.items()}
