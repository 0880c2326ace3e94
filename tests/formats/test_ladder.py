"""The table of levels: its schema, and that it says what the file says."""

from __future__ import annotations

import json

import jsonschema
import pytest
from tiny_model import nested_ladder, tiny_config, write_random_artifact

from edgesdk.formats import Artifact
from edgesdk.formats.ladder import LADDER_SCHEMA, level_table


@pytest.fixture
def artifact(tmp_path):
    config = tiny_config()
    write_random_artifact(tmp_path / "tiny.edge", config, nested_ladder(config))
    return Artifact.open(tmp_path / "tiny.edge")


def test_the_table_follows_the_schema_and_the_header(artifact):
    table = level_table(artifact)
    jsonschema.validate(json.loads(json.dumps(table)), LADDER_SCHEMA)
    levels = artifact.edge["levels"]
    assert [row["index"] for row in table] == list(range(len(levels)))
    for row, level in zip(table, levels, strict=True):
        assert {key: row[key] for key in ("rate", "mapped_bytes", "file_bytes", "kl", "gave_up")} == {
            key: level[key] for key in ("rate", "mapped_bytes", "file_bytes", "kl", "gave_up")
        }
        assert row["ppl"] == level["perplexity"]


@pytest.mark.parametrize(
    "change",
    [
        {"rate": 1.0},
        {"mapped_bytes": 1.5},
        {"file_bytes": 0},
        {"ppl": 0.5},
        {"index": -1},
        {"gave_up": []},
        {"more": 1},
    ],
    ids=str,
)
def test_the_schema_refuses_what_cannot_be(artifact, change):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate([{**level_table(artifact)[0], **change}], LADDER_SCHEMA)
