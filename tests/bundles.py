"""Bundles for the tests: built once per state of the sources, and kept where the build keeps everything."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from edgesdk.cli.bundle import bundle_artifact
from edgesdk.errors import MissingExtraError
from edgesdk.targets import load_profiles

ROOT = Path(__file__).parents[1]
BUILD = Path(os.environ.get("EDGE_BUILD_DIR", ROOT / "build"))
CACHE = BUILD / "bundle-cache"


def make_bundle(artifact: Path, target: str, out: Path) -> Path:
    """OUT/TARGET, without the NDK; skips the test where a tool is missing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESDK_CACHE", str(CACHE))
        patch.delenv("ANDROID_NDK_HOME", raising=False)
        try:
            (manifest,) = bundle_artifact(artifact, load_profiles(target), out)
        except MissingExtraError as missing:
            pytest.skip(f"{missing.message}: {missing.hint}")
    return manifest.parent


def read_manifest(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / "manifest.json").read_text("utf-8"))
