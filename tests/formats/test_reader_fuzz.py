"""Damaged artifacts: the NumPy reader and `verify_artifact` refuse each with one of our errors, or read it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from damage import Outcomes, byte_changes, change_bytes, change_json, fuzz, json_changes
from hostile import join, split
from tiny_model import nested_ladder, tiny_config, tiny_ssm_config, write_random_artifact

from edgesdk.formats import Artifact, verify_artifact


@pytest.fixture(scope="module", params=["attention", "ssm"])
def good(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("fuzz") / "good.edge"
    shape: dict[str, Any] = {"n_layers": 1, "d_model": 32}
    config = tiny_ssm_config(**shape) if request.param == "ssm" else tiny_config(**shape, biases=True)
    write_random_artifact(path, config, nested_ladder(config))
    verify_artifact(path)
    return path.read_bytes()


def read_everything(path: Path) -> None:
    artifact = Artifact.open(path)
    verify_artifact(path)
    for level in range(artifact.n_available_levels):
        artifact.level(level)
        for name in artifact.used_names(level):
            if name in artifact.edge["panels"]:
                artifact.panel(name)
            else:
                artifact.tensor(name)


def test_damaged_headers(good: bytes, tmp_path: Path) -> None:
    outer, edge, data = split(good)
    path, outcomes = tmp_path / "damaged.edge", Outcomes()

    @fuzz(150, changes=json_changes())
    def check_edge(changes: Any) -> None:
        path.write_bytes(join({**outer, "__metadata__": {}}, change_json(edge, changes), data))
        outcomes.of(lambda: read_everything(path))

    @fuzz(80, changes=json_changes())
    def check_outer(changes: Any) -> None:
        changed = change_json({**outer, "__metadata__": {**outer["__metadata__"]}}, changes)
        path.write_bytes(join(changed, None, data))
        outcomes.of(lambda: read_everything(path))

    check_edge()
    check_outer()
    outcomes.finish()


def test_damaged_bytes(good: bytes, tmp_path: Path) -> None:
    outer, edge, data = split(good)
    path, outcomes = tmp_path / "damaged.edge", Outcomes()

    @fuzz(80, changes=byte_changes())
    def check_file(changes: Any) -> None:
        path.write_bytes(change_bytes(good, changes))
        outcomes.of(lambda: read_everything(path))

    @fuzz(80, changes=byte_changes())
    def check_data(changes: Any) -> None:
        """With right hashes."""
        changed = change_bytes(data, changes)
        runs = [
            {**run, "sha256": hashlib.sha256(changed[run["begin"] : run["end"]]).hexdigest()} for run in edge["runs"]
        ]
        path.write_bytes(join({**outer, "__metadata__": {}}, {**edge, "runs": runs}, changed))
        outcomes.of(lambda: read_everything(path))

    check_file()
    check_data()
    outcomes.finish()
