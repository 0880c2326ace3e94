"""An OpenCL device for the tests of GPUs (PoCL where there is no GPU), with a program cache of a module's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from device_artifacts import write_tiny

from edgesdk.errors import EngineError


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A program cache of this module's own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_CACHE_DIR", str(folder))
        patch.delenv("EDGE_OPENCL_DEVICE", raising=False)
        yield folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("gpu") / "tiny.edge")


@pytest.fixture(scope="module")
def opencl(cache: Path, tiny: Path) -> Iterator[None]:
    """Skips where there is no OpenCL device; keeps the device open, so that each test does not open it anew."""
    from edgesdk.device import load

    try:
        model = load(tiny, level=0, backend="opencl")
    except EngineError as error:
        if os.environ.get("EDGE_REQUIRE_OPENCL"):
            raise
        pytest.skip(f"SKIPPED no OpenCL device (apt-get install pocl-opencl-icd): {error}")
    yield
    model.close()
