"""Every dense family against transformers, and what the compiler does to it: docs/families.md holds these figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family_checks import N_TOKENS, Opened, decode_is_prefill, engine_is_oracle
from reference_model import ReferenceModel
from tiny_families import VARIANTS, tiny_family

from edgesdk.cloud.allocate.losses import Candidate, LossMeter
from edgesdk.cloud.checkpoint import open_checkpoint
from edgesdk.cloud.families import find_family, unused_tensors
from edgesdk.cloud.families.blocks import Attention, expected_tensors
from edgesdk.cloud.moments import SINK_TOKENS
from edgesdk.cloud.rank import METHODS
from edgesdk.cloud.reference import Decoder, run_block, slice_block
from edgesdk.cloud.repair import repaired_bias
from edgesdk.cloud.sample import _attend as attend_one_token
from edgesdk.cloud.sort import sort_moments
from edgesdk.device import load
from edgesdk.errors import ModelError
from edgesdk.formats import Artifact, verify_artifact


@pytest.fixture(scope="module", params=VARIANTS)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return Opened(tmp_path_factory.mktemp("dense") / "model", request.param)


def test_expected_tensors_are_those_of_transformers(opened: Opened) -> None:
    state = {name: tuple(t.shape) for name, t in opened.model.state_dict().items()}
    if opened.config.tied_head:
        del state["lm_head.weight"]
    assert expected_tensors(opened.config) == state
    assert unused_tensors(opened.checkpoint, opened.config) == ()
    assert find_family(opened.checkpoint.config).name == opened.config.family == opened.variant.split("-")[0]


def test_logits_are_those_of_transformers(opened: Opened) -> None:
    assert opened.logit_difference() <= 1e-5


@torch.no_grad()
def test_windows_bite_where_a_model_has_them(opened: Opened) -> None:
    """Without them the logits of the first tokens stay and those of later ones change."""
    blocks = tuple(replace(b, window=None) if isinstance(b, Attention) else b for b in opened.config.blocks)
    windows = [b.window for b in opened.config.blocks if isinstance(b, Attention)]
    without = replace(opened.decoder, config=replace(opened.config, blocks=blocks)).forward(opened.tokens)
    same = torch.isclose(without, opened.decoder.forward(opened.tokens), atol=1e-6).all(-1).all(0)
    assert same[:8].all()
    assert same[8:].any() == (set(windows) == {None})
    assert ("window" in opened.variant or "gemma" in opened.variant) == (8 in windows)


@pytest.mark.parametrize("method", list(METHODS))
def test_sorting_leaves_the_logits_alone(opened: Opened, method: str) -> None:
    differences = opened.sort_differences(method)
    assert differences["float32"] <= 1e-5
    assert (differences["float32"] == 0) == (method == "given")  # that one leaves the order alone
    assert differences["float64"] <= 1e-9


def test_slicing_equals_masking_at_every_size(opened: Opened) -> None:
    assert opened.slice_difference() <= 1e-12


def test_heads_with_a_norm_are_never_cut(opened: Opened) -> None:
    for block in opened.config.blocks:
        if isinstance(block, Attention):
            qk = block.axes[0]
            assert block.qk_norm == opened.variant.startswith(("qwen3", "gemma3"))
            assert qk.quantum == qk.size or not block.qk_norm


@torch.no_grad()
def test_the_repair_leaves_no_mean_error(opened: Opened) -> None:
    """Neither of cut blocks nor of one that is left out, whose output a post norm may have scaled."""
    moments, x = opened.moments, opened.decoder.embed(opened.tokens)
    decoder = opened.sorted(opened.decoder)
    for index, block in enumerate(opened.config.blocks):
        order = METHODS["outputs"](block, opened.decoder.block_weights(index), moments[index])
        weights, own = decoder.block_weights(index), sort_moments(block, moments[index], order)
        out = run_block(block, weights, x, 1e-5)
        nothing = (0,) * len(block.axes)
        bias = repaired_bias(block, weights, nothing, own)
        cut = run_block(block, {**slice_block(block, weights, nothing), "bias": bias}, x, 1e-5)
        error = (cut - out)[:, SINK_TOKENS:].mean((0, 1)).abs().max()
        assert error <= 1e-5 * out.abs().max()
        x = out


@torch.no_grad()
def test_sampling_attends_as_the_model_does(opened: Opened) -> None:
    x, eps = opened.decoder.embed(opened.tokens), opened.config.norm_eps
    for index, block in enumerate(opened.config.blocks):
        weights = opened.decoder.block_weights(index)
        whole = run_block(block, weights, x, eps)
        if isinstance(block, Attention):
            cache = tuple(torch.empty(2, block.n_kv_heads, N_TOKENS, block.head_dim) for _ in range(2))
            for t in range(N_TOKENS):
                token = x[:, t : t + 1]
                one = token + attend_one_token(block, weights, token, eps, cache, t, torch.float32)
                assert torch.allclose(one, whole[:, t : t + 1], rtol=1e-4, atol=1e-4)
        x = whole


@torch.no_grad()
def test_losses_count_capped_logits(opened: Opened) -> None:
    meter = LossMeter.start(opened.decoder, lambda index: opened.moments[index], opened.tokens)
    full = tuple(tuple(axis.size for axis in block.axes) for block in opened.config.blocks)
    base, (loss,) = meter.measure(full, [Candidate(0, (0, 0))])
    own = opened.decoder.forward(opened.tokens).log_softmax(-1)
    block, weights = opened.config.blocks[0], opened.decoder.block_weights(0)
    bias = repaired_bias(block, weights, (0, 0), opened.moments[0])
    dropped = {0: {**slice_block(block, weights, (0, 0)), "bias": bias}}
    cut = replace(opened.decoder, block_weights=lambda i: dropped.get(i) or opened.decoder.block_weights(i))
    wanted = float((own.exp() * (own - cut.forward(opened.tokens).log_softmax(-1))).sum(-1).mean())
    assert base <= 1e-3
    assert loss == pytest.approx(wanted, rel=0.05)


@pytest.fixture(scope="module")
def built(opened: Opened) -> Path:
    path = opened.build()
    verify_artifact(path)
    return path


@pytest.mark.parametrize("threads", [1, 3])
def test_the_engine_equals_the_oracle_at_every_level(built: Path, threads: int) -> None:
    found = engine_is_oracle(built, threads)
    assert len(found) >= 3
    assert all(found)


def test_the_artifact_computes_what_its_source_does(opened: Opened, built: Path) -> None:
    source = Decoder.open(open_checkpoint(str(opened.small)), opened.config)
    wanted = source.forward(opened.tokens[:1])[0].detach().numpy()
    top = len(Artifact.open(built).levels) - 1
    exact = ReferenceModel(built, top, float_activations=True)
    tokens = opened.tokens[0].tolist()
    for logits in (exact.logits(tokens), load(built).logits(tokens)):
        # random weights lose 7 to 9 % of each product at 4 bits; a wrong order would lose 100 %
        assert np.linalg.norm(logits - wanted) < 0.25 * np.linalg.norm(wanted)


@pytest.mark.parametrize("kv_bits", [8, 16])
def test_generation_goes_on_exactly(built: Path, kv_bits: int) -> None:
    assert decode_is_prefill(built, kv_bits)


def test_versions_and_fields_say_what_a_reader_must_know(opened: Opened, built: Path) -> None:
    edge = Artifact.open(built).edge
    fields = {name for block in edge["model"]["blocks"] for name in block} | set(edge["model"])
    added = fields & {"window", "softcap", "qk_norm", "post_norm", "logit_softcap"}
    wanted: Mapping[str, set[str]] = {
        "mistral-window": {"window"},
        "qwen2-window": {"window"},
        "qwen3": {"qk_norm"},
        "qwen3-bias": {"qk_norm"},
        "qwen3-yarn-window": {"qk_norm", "window"},
        "gemma2": {"softcap", "logit_softcap", "post_norm", "window"},
        "gemma2-bias": {"logit_softcap", "post_norm", "window"},
        "gemma3": {"qk_norm", "post_norm", "window"},
        "gemma3-scaled": {"qk_norm", "post_norm", "window"},
        "phi3-window": {"window"},
    }
    assert added == wanted.get(opened.variant, set())
    assert edge["format_version"].partition(".")[0] == ("2" if added else "1")


def config_of(variant: str, **overrides: Any) -> dict[str, Any]:
    return {**json.loads(tiny_family(variant).config.to_json_string(use_diff=False)), **overrides}


def test_gemma3_reads_older_files(tmp_path: Path) -> None:
    """One theta and one pattern per field, as the first files had it."""
    newer = config_of("gemma3-scaled", layer_types=None, sliding_window_pattern=2)
    older = {key: value for key, value in newer.items() if key != "rope_parameters"}
    older |= {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    assert find_family(newer).config(newer) == find_family(older).config(older)


@pytest.mark.parametrize(
    ("variant", "overrides", "message"),
    [
        ("gemma3", {"use_bidirectional_attention": True}, "expected causal attention"),
        ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0, expected null"),
        ("gemma3", {"layer_types": ["full_attention"]}, "layer_types is"),
        ("gemma2", {"hidden_activation": "relu"}, "hidden_activation is 'relu', expected gelu_pytorch_tanh"),
        ("qwen2", {"layer_types": ["chunked_attention"] * 2}, "layer_types is"),
        ("mistral-window", {"sliding_window": 0}, "sliding_window is 0, expected a positive integer"),
        ("qwen3", {"hidden_act": "gelu"}, "hidden_act is 'gelu', expected silu"),
    ],
)
def test_what_a_family_does_not_do_is_refused(variant: str, overrides: dict[str, Any], message: str) -> None:
    config = config_of(variant, **overrides)
    with pytest.raises(ModelError, match=message):
        find_family(config).config(config)
