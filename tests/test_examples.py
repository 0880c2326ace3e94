"""The examples run as a reader would run them, on a tiny artifact."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import nested_ladder, tiny_config, write_random_artifact

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("examples") / "tiny.edge"
    config = tiny_config()
    write_random_artifact(path, config, nested_ladder(config))
    return path


def run(name: str, *arguments: object) -> list[str]:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, timeout=120)
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout.decode(errors="replace").splitlines()


def test_quickstart_uses_the_full_level_and_goes_on_with_the_prompt(tiny):
    first, second = run("quickstart.py", tiny, "abc")[:2]
    assert first.startswith("level 2 of 0 to 2: rate 0.00")
    assert second.startswith("abc")


def test_pick_a_level_agrees_with_the_engine(tiny):
    lines = run("pick_a_level.py", tiny)
    assert [line.split(":")[0] for line in lines[:3]] == ["level 0", "level 1", "level 2"]
    assert lines[-1].endswith("level 1 by hand, level 1 by the engine")


def test_pick_a_level_shows_the_error_of_a_budget_that_is_too_small(tiny):
    lines = run("pick_a_level.py", tiny, 1000)
    assert any(line.startswith("error: ") for line in lines)
    assert lines[-1] == "budget of 1000 bytes: level None by hand, level None by the engine"
