"""Compile a language model once into one nested `.edge` file; run any size of it from that file on the device.

    import edgesdk

    model = edgesdk.load("model.edge", budget="80MB")
    print(model.generate("The capital of France is", max_tokens=8))

Names are loaded at first use: importing this package costs nothing, and the device half never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgesdk.errors import (
    ArtifactError,
    CancelledError,
    DeviceError,
    EdgeError,
    EngineError,
    HashError,
    MemoryBudgetError,
    MissingExtraError,
    ModelError,
    ToolchainError,
    TruncatedError,
    UsageError,
)

if TYPE_CHECKING:
    from edgesdk.cloud.build import build_model as build
    from edgesdk.device import Model, load
    from edgesdk.formats import Artifact

__version__ = "0.1.0"

__all__ = [
    "Artifact",
    "ArtifactError",
    "CancelledError",
    "DeviceError",
    "EdgeError",
    "EngineError",
    "HashError",
    "MemoryBudgetError",
    "MissingExtraError",
    "Model",
    "ModelError",
    "ToolchainError",
    "TruncatedError",
    "UsageError",
    "build",
    "load",
]

# Public name -> (module, name there, extra that brings what the module imports).
_LAZY = {
    "Artifact": ("edgesdk.formats", "Artifact", ""),
    "Model": ("edgesdk.device", "Model", ""),
    "build": ("edgesdk.cloud.build", "build_model", "cloud"),
    "load": ("edgesdk.device", "load", ""),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module `edgesdk` has no attribute `{name}`")
    module, attribute, extra = _LAZY[name]
    try:
        value = getattr(import_module(module), attribute)
    except ModuleNotFoundError as missing:
        if not extra or (missing.name or "").startswith("edgesdk"):
            raise
        raise MissingExtraError(
            f"`edgesdk.{name}` needs `{missing.name}`, which is not installed",
            hint=f"pip install 'edgesdk[{extra}]'",
        ) from missing
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
