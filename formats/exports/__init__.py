"""Levels for other runtimes: FORMATS is the list of them, one file each beside this one.

A format is a module with three functions; what it needs of other packages it imports inside of them:
    write(request, folder)                writes its files into an empty folder, and says what is worth a remark
    require_runtime()                     raises where the runtime that they are for is not there
    open_runtime(request, folder)         opens them in it
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from edgesdk.errors import UsageError
from edgesdk.formats.exports.check import Agreement, Runtime, compare
from edgesdk.formats.exports.level_model import LevelModel, open_level_model
from edgesdk.formats.exports.output import new_folder

__all__ = [
    "DEFAULT_OPSET",
    "FORMATS",
    "Agreement",
    "ExportRequest",
    "Format",
    "LevelModel",
    "Runtime",
    "compare",
    "find_format",
    "new_folder",
    "open_level_model",
]


DEFAULT_OPSET = 21
"""Of ONNX: the first with blocks of 4 bits."""


@dataclass(frozen=True)
class ExportRequest:
    """What an exporter works from.

    weights: one of the format's own ways to store them; context: tokens of the cache; dynamic: one program for any
    number of tokens at once, instead of one token; opset: of ONNX
    tokenizer: tokenizer.json of the Hugging Face library, None where the artifact has no tokenizer
    buffered(fused), functional(place): make a torch module of the level (edgesdk.cloud.export_module)
    """

    model: LevelModel
    weights: str
    context: int
    dynamic: bool
    opset: int
    tokenizer: str | None
    chat_template: str | None
    buffered: Callable[[bool], Any]
    functional: Callable[[Callable[..., Any]], Any]


@dataclass(frozen=True)
class Format:
    """weights: names of the ways in which it stores weights, the default first; `float` is 32 bits, not rounded."""

    name: str
    weights: tuple[str, ...]

    def write(self, request: ExportRequest, folder: Path) -> list[str]:
        """Writes the files; returns remarks. Raises UsageError and MissingExtraError."""
        remarks: list[str] = self._module.write(request, folder)
        return remarks

    def require_runtime(self) -> None:
        """Raises MissingExtraError, or EdgeError, where exports cannot be run here."""
        self._module.require_runtime()

    def open_runtime(self, request: ExportRequest, folder: Path) -> Runtime:
        """Opens what `write` wrote. Raises as `require_runtime` does, and EdgeError for what the runtime refuses."""
        runtime: Runtime = self._module.open_runtime(request, folder)
        return runtime

    @property
    def _module(self) -> Any:
        return import_module(f"edgesdk.formats.exports.{self.name}")


FORMATS = (
    Format("hf", ("float",)),
    Format("gguf", ("iq4_nl", "q4_0", "q8_0", "float")),
    Format("executorch", ("8da4w", "8da8w", "float")),
    Format("litert", ("int8", "float")),
    Format("onnx", ("int4", "int8", "int4-qdq", "float")),
)


def find_format(name: str, weights: str | None = None) -> tuple[Format, str]:
    """The format, and how it is to store weights: its default where that is None. Raises UsageError."""
    known = {one.name: one for one in FORMATS}
    if name not in known:
        raise UsageError(f"no export is called `{name}`", hint=f"there are {', '.join(known)}")
    found = known[name]
    if weights is not None and weights not in found.weights:
        raise UsageError(f"{name} stores no weights as `{weights}`", hint=f"give one of {', '.join(found.weights)}")
    return found, weights or found.weights[0]
