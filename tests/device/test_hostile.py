"""The engine refuses every hostile file with an error that names the rule, as the NumPy reader does."""

from __future__ import annotations

import pytest
from device_artifacts import edge_run, write_tiny
from hostile import CASES, CHAT_CASES, DATA_CASES, SSM_CASES, TOKENIZER_CASES, Hostile
from hostile_rows import ROW_CASES
from tiny_model import nested_ladder, table_bits, tiny_config, tiny_ssm_config, write_random_artifact

import edgesdk

# The engine notices these earlier than the NumPy reader, by another rule.
OTHER_RULE = {
    "vocabulary too large": "4.2",
    "huge heads": "3",
    "epsilon beyond floats": "1.6",
    "other heads": "3",
    "one axis dropped": "3",
}


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


@pytest.mark.parametrize("case", ROW_CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_hostile_rows_of_an_embedding_are_refused(case: Hostile, tmp_path) -> None:
    path, config = tmp_path / "hostile.edge", tiny_config()
    write_random_artifact(path, config, nested_ladder(config), model_bits=table_bits(config))
    edgesdk.load(path, context=64)
    path.write_bytes(case.make(path.read_bytes()))
    with pytest.raises(edgesdk.ArtifactError) as error:
        edgesdk.load(path, context=64)
    assert f"rule {case.rule}" in error.value.message


@pytest.fixture(scope="module")
def good_ssm(tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "ssm.edge"
    config = tiny_ssm_config()
    write_random_artifact(path, config, nested_ladder(config))
    edgesdk.load(path, context=64)
    return path.read_bytes()


@pytest.mark.parametrize("case", SSM_CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_a_hostile_file_with_mixers_is_refused(case: Hostile, good_ssm: bytes, tmp_path) -> None:
    path = tmp_path / "hostile.edge"
    path.write_bytes(case.make(good_ssm))
    with pytest.raises(edgesdk.ArtifactError) as error:
        edgesdk.load(path, context=64)
    assert f"rule {OTHER_RULE.get(case.name, case.rule)}" in error.value.message


@pytest.mark.parametrize("case", DATA_CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_hostile_data_does_nothing_worse_than_to_compute(case: Hostile, tmp_path) -> None:
    good = write_tiny(tmp_path / "good.edge", d_model=96)
    path = tmp_path / "hostile.edge"
    path.write_bytes(case.make(good.read_bytes()))
    if case.rule == "5.4":
        with pytest.raises(edgesdk.HashError):
            edgesdk.load(path, context=64, verify="eager")
        return
    model = edgesdk.load(path, context=64, verify="eager", level=2)
    assert model.logits([1, 2]).shape[-1] == 300
    assert isinstance(model.generate("a", max_tokens=4, temperature=0.8), str)


@pytest.mark.parametrize("case", CHAT_CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_a_hostile_chat_format_is_refused(case: Hostile, tmp_path) -> None:
    good = write_tiny(tmp_path / "good.edge", chat=True)
    path = tmp_path / "hostile.edge"
    path.write_bytes(case.make(good.read_bytes()))
    result = edge_run("chat", path, "--max-tokens", 1, text="hello\n")
    assert result.returncode == 1
    assert "section 7" in result.stderr


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
