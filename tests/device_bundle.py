"""A bundle of this machine's own edge-run, as `edgesdk build --targets` leaves it."""

from __future__ import annotations

import json
import platform
import shutil
from dataclasses import asdict
from pathlib import Path

from device_artifacts import edge_run_path

from edgesdk.cli.bundle import bundled_artifact
from edgesdk.targets.connections.push import file_sha256


def write_bundle(folder: Path, **changes: object) -> Path:
    """A bundle of OUT/model.edge for this machine; changes: other values of the manifest's fields."""
    machine = platform.machine()
    bundle = folder / f"linux-{machine}"
    bundle.mkdir(exist_ok=True)
    shutil.copy(edge_run_path(), bundle / "edge-run")
    artifact = bundled_artifact(folder / "model.edge")
    n_bytes = artifact.path.stat().st_size
    program = bundle / "edge-run"
    manifest = {
        "format_version": 1,
        "target": f"linux-{machine}",
        "abi": f"{machine}-linux-gnu",
        "isa_floor": [],
        "backends": ["cpu"],
        "default_budget_bytes": 10**9,
        "default_level": len(artifact.levels) - 1,
        "limits": {"memory_gb_per_s": 10, "tokens_per_s": [1e10 / level.token_bytes for level in artifact.levels]},
        "artifact": {
            "path": "../model.edge",
            "sha256": file_sha256(artifact.path, n_bytes),
            "file_bytes": n_bytes,
            "levels": [asdict(level) for level in artifact.levels],
        },
        "files": [
            {
                "path": "edge-run",
                "sha256": file_sha256(program, program.stat().st_size),
                "bytes": program.stat().st_size,
            }
        ],
        "notes": ["Made by a test."],
        **changes,
    }
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return bundle
