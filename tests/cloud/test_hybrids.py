"""Hybrids of mixers, attention and MLPs through the compiler: parity with transformers, sorts, cuts, whole builds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference_model import ReferenceModel
from small_builds import SMALL, opened
from tiny_hybrids import VARIANTS, write_tiny_hybrid

from edgesdk.cloud.build import build_model
from edgesdk.cloud.check import check_unchanged
from edgesdk.cloud.checkpoint import open_checkpoint
from edgesdk.cloud.families import find_family, load_model, unused_tensors
from edgesdk.cloud.families.blocks import Attention, Mlp, Ssm
from edgesdk.cloud.moments import MomentsAccumulator
from edgesdk.cloud.rank import METHODS
from edgesdk.cloud.reference import Decoder, mask_block, run_block, slice_block
from edgesdk.cloud.sort import sort_block
from edgesdk.device import load
from edgesdk.errors import ModelError
from edgesdk.formats import Artifact, verify_artifact


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_logits_are_those_of_transformers(variant: str, tmp_path: Path) -> None:
    family, overrides = VARIANTS[variant]
    model = write_tiny_hybrid(tmp_path, family, **overrides)
    checkpoint = open_checkpoint(str(tmp_path))
    config = load_model(checkpoint)
    assert config.family == family
    assert unused_tensors(checkpoint, config) == ()
    ids = torch.randint(0, 320, (2, 75), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = model(ids).logits
    assert (Decoder.open(checkpoint, config).forward(ids) - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("share", [1e9, 1.5, -0.5, float("nan")])
def test_a_share_of_rotated_elements_allocates_nothing(share: float, tmp_path: Path) -> None:
    """Found by the fuzzer: as many frequencies were computed before the share was looked at."""
    write_tiny_hybrid(tmp_path, "bamba")
    config = json.loads((tmp_path / "config.json").read_text()) | {"partial_rotary_factor": share}
    config.pop("rope_parameters", None)
    with pytest.raises(ModelError, match=r"partial_rotary_factor is|malformed"):
        load_model(replace(open_checkpoint(str(tmp_path)), config=config))


def test_blocks_of_the_hybrids(tmp_path: Path) -> None:
    write_tiny_hybrid(tmp_path / "bamba", "bamba")
    blocks = opened(tmp_path / "bamba").config.blocks
    assert [b.name for b in blocks] == [
        f"blk.{i}.{kind}" for i, k in enumerate(("ssm", "attn", "ssm")) for kind in (k, "mlp")
    ]
    attention = blocks[2]
    assert isinstance(attention, Attention)
    assert (attention.rotary_dim, attention.softmax_scale) == (8, 0.25)
    assert attention.inv_freq[:2] == pytest.approx((1.0, 10000**-0.25))
    assert attention.inv_freq[4:] == (0.0,) * 4
    write_tiny_hybrid(tmp_path / "nemotron", "nemotron_h")
    blocks = opened(tmp_path / "nemotron").config.blocks
    assert [b.kind for b in blocks] == ["ssm", "mlp", "attention", "ssm", "mlp"]
    attention, mlp = blocks[2], blocks[1]
    assert isinstance(attention, Attention)
    assert set(attention.inv_freq) == {0.0}
    assert isinstance(mlp, Mlp)
    assert (mlp.gated, mlp.activation, [w.role for w in mlp.weights]) == (False, "relu2", ["up", "down"])


def test_older_configurations_have_a_pattern_of_letters(tmp_path: Path) -> None:
    write_tiny_hybrid(tmp_path, "nemotron_h")
    found = json.loads((tmp_path / "config.json").read_text())
    older = {k: v for k, v in found.items() if k not in ("layers_block_type", "layer_types")}
    blocks = find_family(found).config(found).blocks
    assert find_family(found).config({**older, "hybrid_override_pattern": "M-*M-"}).blocks == blocks
    for wrong, message in (({"hybrid_override_pattern": "ME"}, "type E are not known"), ({}, "type of each layer")):
        with pytest.raises(ModelError, match=message):
            find_family(found).config({**older, "hybrid_override_pattern": None, **wrong})


@pytest.fixture(scope="module", params=["bamba biases", "nemotron"])
def decoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    family, overrides = VARIANTS[request.param]
    folder = tmp_path_factory.mktemp("hybrid") / "model"
    write_tiny_hybrid(folder, family, **overrides)
    return opened(folder)


def ordered(decoder: Decoder, tokens: torch.Tensor, method: str) -> list[Any]:
    x, orders = decoder.embed(tokens), []
    for index, block in enumerate(decoder.config.blocks):
        accumulator = MomentsAccumulator()
        out = run_block(block, decoder.block_weights(index), x, decoder.config.norm_eps, accumulator.tap)
        accumulator.see_residual(x, out)
        orders.append(METHODS[method](block, decoder.block_weights(index), accumulator.finish()))
        x = out
    return orders


@pytest.mark.parametrize("method", list(METHODS))
def test_sorting_leaves_the_logits_alone_and_slicing_equals_masking(decoder: Decoder, method: str) -> None:
    tokens = torch.randint(0, 320, (2, 60), generator=torch.Generator().manual_seed(1))
    orders = ordered(decoder, tokens, method)

    def sort(d: Decoder) -> Decoder:
        blocks = [sort_block(b, d.block_weights(i), orders[i]) for i, b in enumerate(d.config.blocks)]
        return replace(d, block_weights=lambda i: blocks[i])

    assert (check_unchanged(decoder, sort, tokens[:1])["float32"] == 0) == (method == "given")
    exact = sort(decoder.double())
    x = exact.embed(tokens[:1])
    for index, block in enumerate(exact.config.blocks):
        weights = exact.block_weights(index)
        kept = tuple(max(axis.quantum, axis.size // 2 // axis.quantum * axis.quantum) for axis in block.axes)
        cut = run_block(block, slice_block(block, weights, kept), x, 1e-5)
        masked = run_block(block, mask_block(block, weights, kept), x, 1e-5)
        assert (cut - masked).abs().max() <= 1e-12 * masked.abs().max()


@pytest.mark.parametrize("family", ["bamba", "nemotron_h"])
def test_a_build_makes_a_ladder_that_engine_and_oracle_agree_on(family: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    biases = {"bamba": "bamba biases", "nemotron_h": "nemotron biases"}[family]
    write_tiny_hybrid(folder, family, **VARIANTS[biases][1])
    path = build_model(str(folder), tmp_path / "out", SMALL)
    verify_artifact(path)
    artifact = Artifact.open(path)
    assert len(artifact.levels) >= 3
    ids = list(range(3, 60))
    for level in range(len(artifact.levels)):
        expected = ReferenceModel(path, level).logits(ids)
        np.testing.assert_array_equal(load(path, level=level, threads=2).logits(ids), expected)
        session = load(path, level=level).session()
        parts = [session._native.feed(np.array(ids[i : i + 19], np.int32), True, True) for i in range(0, 57, 19)]
        np.testing.assert_array_equal(np.concatenate(parts), expected)
    wanted = opened(folder).forward(torch.tensor([ids]))[0].detach().numpy()
    stored = ReferenceModel(path, 2, float_activations=True).logits(ids)
    assert np.linalg.norm(stored - wanted) < 0.3 * np.linalg.norm(wanted)


def test_block_kinds_have_their_own_axes(decoder: Decoder) -> None:
    kinds = {block.kind: [axis.name for axis in block.axes] for block in decoder.config.blocks}
    assert kinds == {"ssm": ["state", "head"], "attention": ["qk", "vo"], "mlp": ["width"]}
    assert any(isinstance(block, Ssm) for block in decoder.config.blocks)
