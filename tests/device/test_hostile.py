"""The engine refuses every hostile file with an error that names the rule, as the NumPy reader does."""

from __future__ import annotations

import pytest
from device_artifacts import write_tiny
from hostile import CASES, TOKENIZER_CASES, Hostile

import edgesdk

# The engine notices these earlier than the NumPy reader, by another rule.
OTHER_RULE = {"vocabulary too large": "4.2", "huge heads": "3"}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("hostile") / "good.edge").read_bytes()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_a_hostile_file_is_refused(case: Hostile, good: bytes, tmp_path) -> None:
    path = tmp_path / "hostile.edge"
    path.write_bytes(case.make(good))
    with pytest.raises(edgesdk.ArtifactError) as error:
        edgesdk.load(path, context=64)
    assert f"rule {OTHER_RULE.get(case.name, case.rule)}" in error.value.message


@pytest.mark.parametrize("case", TOKENIZER_CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_a_hostile_tokenizer_is_refused(case: Hostile, good: bytes, tmp_path) -> None:
    path = tmp_path / "hostile.edge"
    path.write_bytes(case.make(good))
    with pytest.raises(edgesdk.ArtifactError, match="token"):
        edgesdk.load(path, context=64)


def test_every_byte_of_the_header_may_be_damaged(good: bytes, tmp_path) -> None:
    """No damage to the header may do worse than an error (or nothing, where the field is only for people)."""
    n_header = 8 + int.from_bytes(good[:8], "little")
    path = tmp_path / "damaged.edge"
    refused = 0
    for place in range(0, n_header, 23):
        damaged = bytearray(good)
        damaged[place] ^= 1 << place % 7
        path.write_bytes(damaged)
        try:
            edgesdk.load(path, context=64, threads=1).logits([1, 2])
        except edgesdk.ArtifactError:
            refused += 1
    assert refused > 100
