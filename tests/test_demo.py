"""The whole path on a tiny model: the command builds it, every other command reads it, the demo drives it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from tiny_llama import write_tiny_llama

from edgesdk.cli import main
from edgesdk.formats import Artifact
from edgesdk.formats.ladder import LADDER_SCHEMA, level_table

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's output folder for a tiny Llama whose MLP is wide enough for eight levels."""
    source = tmp_path_factory.mktemp("model")
    write_tiny_llama(source, intermediate_size=768)
    out = tmp_path_factory.mktemp("out") / "demo"
    command = [sys.executable, str(ROOT / "benchmarks" / "demo.py"), "--out", str(out), "--model", str(source)]
    result = subprocess.run(command, capture_output=True, timeout=600)
    assert result.returncode == 0, result.stderr.decode()
    return source, out, result.stdout.decode("utf-8", "replace")


@pytest.fixture
def artifact(demo):
    (path,) = demo[1].glob("*.edge")
    return path


def test_levels_json_is_the_level_table(demo, artifact):
    table = json.loads((demo[1] / "levels.json").read_text("utf-8"))
    jsonschema.validate(table, LADDER_SCHEMA)
    assert table == level_table(Artifact.open(artifact))
    assert all(row["ppl"] is not None and row["kl"] is not None for row in table)
    assert table[0]["rate"] >= 0.35


def test_the_demo_answers_at_three_budgets_and_times_every_level(demo):
    report = json.loads((demo[1] / "demo.json").read_text("utf-8"))
    top = len(report["levels"]) - 1
    assert next(answer["level"] for answer in report["answers"]) == top
    assert len(report["answers"]) == 3
    assert all(level["tokens_per_s"] > 0 for level in report["levels"])
    for level in report["levels"]:
        assert f"{level['ppl']:.3f}" in demo[2]


def test_build_json_prints_the_same_ladder(demo, artifact, tmp_path, capsys):
    """The second build takes every step but evaluation and writing from the first one's work directory."""
    (demo[1] / "work").rename(tmp_path / "work")
    assert main(["build", str(demo[0]), "-o", str(tmp_path), "--preset", "fast", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == level_table(Artifact.open(artifact))
    (tmp_path / "work").rename(demo[1] / "work")


def test_build_reports_an_unknown_model(tmp_path, capsys):
    assert main(["build", str(tmp_path / "nothing"), "-o", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "error: " in error
    assert "\nhint: " in error


def test_eval_measures_the_levels_that_were_asked_for(artifact, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("The cat sat on the mat and looked at the moon.\n" * 40, "utf-8")
    arguments = ["eval", str(artifact), "--text", str(text), "--level", "0", "--level", "2", "--window-tokens", "64"]
    assert main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [level["index"] for level in report["levels"]] == [0, 2]
    assert report["n_tokens"] % 64 == 0
    assert all(level["ppl"] > 1 for level in report["levels"])
    assert main(arguments) == 0
    assert f"{report['levels'][0]['ppl']:.3f}" in capsys.readouterr().out
