"""ONNX: onnxruntime and onnxruntime-genai run every level, and weights take the bytes that they should."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from export_models import FULL, KINDS, LEVELS, VOCAB_SIZE, export_request, run_check, write_export_model

from edgesdk.errors import UsageError
from edgesdk.formats.exports import find_format
from edgesdk.formats.exports.blockwise import eight_bits, four_bits

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module", params=KINDS)
def artifact(request, tmp_path_factory) -> Path:
    return write_export_model(tmp_path_factory.mktemp("onnx") / "tiny.edge", request.param)


@pytest.mark.parametrize("level", LEVELS)
def test_the_float_graph_computes_the_level(artifact, level, tmp_path):
    found = run_check(artifact, level, "onnx", "float", tmp_path / "out")
    assert found.max_error < 1e-5 * found.max_logit
    assert found.ours == found.theirs
    assert found.top1 == 1
    assert found.runtime.startswith("onnxruntime ")


@pytest.mark.parametrize("level", LEVELS)
def test_both_ways_to_write_four_bits_compute_the_same(artifact, level, tmp_path):
    """Their weights are the same; onnxruntime rounds activations in either, so nothing is equal to the bit."""
    found = {name: run_check(artifact, level, "onnx", name, tmp_path / name) for name in ("int4", "int4-qdq")}
    for one in found.values():
        assert 0 < one.kl < 1
        assert one.max_error < 0.25 * one.max_logit
    assert found["int4"].kl == pytest.approx(found["int4-qdq"].kl, rel=0.25)


def test_eight_bits_are_nearer(artifact, tmp_path):
    found = {name: run_check(artifact, FULL, "onnx", name, tmp_path / name) for name in ("int4", "int8")}
    assert 0 < found["int8"].kl < 0.1 * found["int4"].kl


def operators(folder: Path) -> set[tuple[str, str]]:
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    return {(node.domain, node.op_type) for node in model.graph.node}


def test_only_int4_needs_operators_of_onnxruntime(artifact, tmp_path):
    used = {}
    for weights in find_format("onnx")[0].weights:
        run_check(artifact, 1, "onnx", weights, tmp_path / weights, 2)
        onnx.checker.check_model(str(tmp_path / weights / "model.onnx"))
        used[weights] = {op for domain, op in operators(tmp_path / weights) if domain}
    own = {"MatMulNBits", "GroupQueryAttention"}
    assert used == {"float": set(), "int4-qdq": set(), "int4": own, "int8": own}


def test_four_bits_take_the_bytes_that_they_should(artifact, tmp_path):
    sizes = {}
    for weights in ("float", "int4"):
        run_check(artifact, FULL, "onnx", weights, tmp_path / weights, 2)
        sizes[weights] = (tmp_path / weights / "model.onnx.data").stat().st_size
    assert sizes["int4"] < 0.3 * sizes["float"]  # 5.1 of 32 bits in blocks, 9 in the embedding, small vectors whole


@pytest.mark.parametrize("weights", ["int4", "float"])
@pytest.mark.parametrize("level", LEVELS)
def test_genai_runs_it(artifact, level, weights, tmp_path):
    pytest.importorskip("onnxruntime_genai")
    from edgesdk.formats.exports.onnx import open_genai

    found = run_check(artifact, level, "onnx", weights, tmp_path / "out", 8)
    tokens = np.random.default_rng(1).integers(0, VOCAB_SIZE, 24).tolist()[:7]
    ends = json.loads((tmp_path / "out" / "genai_config.json").read_text())["model"]["eos_token_id"]
    wanted = found.theirs[: next((i + 1 for i, token in enumerate(found.theirs) if token in ends), 8)]
    got = open_genai(tmp_path / "out").greedy(tokens, 8)
    assert got[: len(wanted)] == wanted


@pytest.mark.parametrize("opset", [20, 99])
def test_an_opset_that_cannot_hold_it_is_refused(artifact, opset, tmp_path):
    with pytest.raises(UsageError, match=f"opset {opset} cannot hold this model: blocks of 4 bits began with 21"):
        find_format("onnx")[0].write(export_request(artifact, 0, "int4", opset=opset), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_newer_opset_is_taken(artifact, tmp_path):
    find_format("onnx")[0].write(export_request(artifact, 0, "float", opset=23), tmp_path)
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 23)]


def test_blocks_of_columns_lose_no_more_than_half_a_step():
    weight = np.random.default_rng(0).normal(size=(40, 88)).astype(np.float32)
    for quantize, steps in ((four_bits, 15), (eight_bits, 254)):
        blocks = quantize(weight, 32)
        assert blocks.codes.shape == (40, 3, 32)
        values = blocks.values()
        assert not values[:, 88:].any()
        padded = np.pad(weight, ((0, 0), (0, 8))).reshape(40, 3, 32)
        span = padded.max(-1).clip(0) - padded.min(-1).clip(None, 0)
        if steps > 15:
            span = 2 * np.abs(padded).max(-1)
        plain = (span / steps) ** 2 / 12  # mean squared error of a grid over the whole range
        error = np.square(values.reshape(40, 3, 32) - padded).mean(-1)
        assert (error < 3 * plain).all() and error.mean() < 1.1 * plain.mean()
    row = np.array([[-8.0, 7.0, 0.0, 3.0] * 8], np.float32)
    assert np.array_equal(four_bits(row, 32).values(), row)
