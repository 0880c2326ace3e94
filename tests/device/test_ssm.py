"""Mamba-2 mixers in the engine: equal to the oracle to the bit, however tokens come; memory that text does not grow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import SSM_CASES, Hostile
from reference_model import ReferenceModel
from tiny_model import mix_bits, nested_ladder, tiny_ssm_config, write_random_artifact

import edgesdk
from edgesdk.formats.tiles import PANEL_BITS

try:
    from edgesdk.device import load
except ImportError as error:
    pytest.skip(f"the native engine is not built: {error}", allow_module_level=True)

SHAPES: dict[str, dict[str, Any]] = {
    "grouped": {},
    "one group": {"n_groups": 1, "norm_groups": 1, "conv_kernel": 2},
    "biases, limits": {"biases": True, "step_limits": (0.05, 0.5), "norm_groups": 4},
    "odd sizes": {"d_model": 72, "n_heads": 3, "n_groups": 3, "norm_groups": 1, "head_dim": 48, "state_size": 48},
    "eight taps": {"conv_kernel": 8, "n_groups": 4, "head_dim": 64, "state_size": 16},
    "hybrid": {"attention": True},
}
TOKENS = np.random.default_rng(5).integers(0, 300, 150).tolist()


def write_tiny_ssm(path: Path, **shape: Any) -> Path:
    config = tiny_ssm_config(**shape)
    write_random_artifact(path, config, nested_ladder(config))
    return path


@pytest.fixture(scope="module", params=SHAPES)
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_ssm(tmp_path_factory.mktemp("ssm") / "tiny.edge", **SHAPES[request.param])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_ssm(tmp_path_factory.mktemp("ssm") / "plain.edge", attention=True)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_engine_equals_the_oracle(artifact: Path, level: int) -> None:
    tokens = TOKENS[:21]
    expected = ReferenceModel(artifact, level).logits(tokens)
    assert expected.std() > 0.1
    for threads in (1, 3):
        np.testing.assert_array_equal(load(artifact, level=level, threads=threads).logits(tokens), expected)


def test_engine_is_within_the_int8_tolerance_of_the_float_model(artifact: Path) -> None:
    for level in range(3):
        exact = ReferenceModel(artifact, level, float_activations=True)
        expected = exact.logits(TOKENS[:21])
        error = np.sqrt(np.mean((load(artifact, level=level).logits(TOKENS[:21]) - expected) ** 2))
        assert error < exact.activation_tolerance() * np.sqrt(np.mean(expected**2))


def test_panels_of_mixed_bits_equal_the_oracle(tmp_path: Path) -> None:
    write_tiny_ssm(tmp_path / "four.edge")
    mix_bits(tmp_path / "four.edge", tmp_path / "mixed.edge", lambda name: PANEL_BITS[sum(name.encode()) % 5])
    for level in range(3):
        expected = ReferenceModel(tmp_path / "mixed.edge", level).logits(TOKENS[:9])
        np.testing.assert_array_equal(load(tmp_path / "mixed.edge", level=level).logits(TOKENS[:9]), expected)


@pytest.mark.parametrize("sizes", [[1] * 150, [127, 23], [128, 22], [3, 140, 7]])
def test_prefill_and_steps_give_the_same_bits(plain: Path, sizes: list[int]) -> None:
    """Prefill of n tokens, then k more in any pieces, is prefill of n + k."""
    for level in range(3):
        expected = load(plain, level=level, threads=1, chunk=150).logits(TOKENS)
        session = load(plain, level=level, threads=2).session()
        begin = 0
        for size in sizes:
            part = np.array(TOKENS[begin : begin + size], np.int32)
            found = session._native.feed(part, True, True)
            np.testing.assert_array_equal(found, expected[begin : begin + size])
            begin += size


@pytest.mark.parametrize("isa", ["reference", "avx2", "avx512vnni", "neon"])
def test_logits_do_not_depend_on_the_kernels(plain: Path, isa: str) -> None:
    from device_artifacts import edge_run

    arguments = ("bench", plain, "--level", 1, "--prompt-tokens", 40, "--decode-tokens", 3, "--runs", 1, "--json")
    forced = edge_run(*arguments, EDGE_ISA=isa)
    if forced.returncode != 0:
        assert isa in forced.stderr
        pytest.skip(forced.stderr.strip())
    hashes = [run.stdout.partition('"logits_hash":')[2][:18] for run in (forced, edge_run(*arguments))]
    assert hashes[0] == hashes[1] != ""


def test_a_session_goes_back_and_starts_anew(plain: Path) -> None:
    expected = load(plain, threads=1).logits(TOKENS)
    session = load(plain, threads=2).session()
    session._native.feed(np.array([*TOKENS[:50], 7, 8, 9], np.int32), False, False)
    session._native.rewind(50)
    assert session._native.position == 50
    np.testing.assert_array_equal(session._native.feed(np.array(TOKENS[50:], np.int32), True, True), expected[50:])
    session.reset()
    np.testing.assert_array_equal(session.logits(TOKENS[:9]), expected[:9])


def test_a_cancelled_call_leaves_a_session_that_can_go_on(plain: Path) -> None:
    expected = load(plain, threads=1).logits(TOKENS)
    session = load(plain, threads=1).session()
    session._native.feed(np.array(TOKENS[:20], np.int32), False, True)
    session.cancel()
    with pytest.raises(edgesdk.CancelledError):
        session._native.feed(np.array(TOKENS[20:30], np.int32), False, True)
    assert session._native.position == 20
    np.testing.assert_array_equal(session._native.feed(np.array(TOKENS[20:], np.int32), True, True), expected[20:])


def test_the_state_does_not_grow_with_the_context_and_shrinks_with_the_level(tmp_path: Path) -> None:
    model = load(write_tiny_ssm(tmp_path / "tiny.edge"), context=64)
    floats = []
    for level, info in enumerate(model.levels):
        memory = model.estimate(level)
        assert model.estimate(level, context=512).kv_bytes == memory.kv_bytes
        grown = model.estimate(level, context=512).workspace_bytes - model.estimate(level, context=256).workspace_bytes
        assert grown == 256 * 4  # the history of tokens
        count = 0
        for state, head in ReferenceModel(tmp_path / "tiny.edge", level).level.allocation:
            inner, states = 4 * head, 2 * state
            past = (-(-3 * inner // 16) + 2 * -(-3 * states // 16)) * 16
            count += past + -(-inner * state // 16) * 16 if head else 0
        assert memory.kv_bytes == -(-count * 4 // 64) * 64
        assert memory.mapped_bytes == info.mapped_bytes
        floats.append(memory.kv_bytes)
    assert floats == sorted(set(floats))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_tiny_ssm(tmp_path_factory.mktemp("hostile") / "good.edge").read_bytes()


# The engine notices these earlier than the NumPy reader, by another rule.
OTHER_RULE = {"one axis dropped": "3", "other heads": "3"}


@pytest.mark.parametrize("case", SSM_CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_a_hostile_file_is_refused(case: Hostile, good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "hostile.edge"
    path.write_bytes(case.make(good))
    with pytest.raises(edgesdk.ArtifactError) as error:
        load(path, context=64)
    assert f"rule {OTHER_RULE.get(case.name, case.rule)}" in error.value.message


def test_every_byte_of_the_header_may_be_damaged(good: bytes, tmp_path: Path) -> None:
    n_header = 8 + int.from_bytes(good[:8], "little")
    path = tmp_path / "damaged.edge"
    refused = 0
    for place in range(0, n_header, 23):
        damaged = bytearray(good)
        damaged[place] ^= 1 << place % 7
        path.write_bytes(damaged)
        try:
            load(path, context=64, threads=1).logits([1, 2])
        except edgesdk.ArtifactError:
            refused += 1
    assert refused > 100
