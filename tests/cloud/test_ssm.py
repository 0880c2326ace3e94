"""Mamba-2 checkpoints through the compiler: parity with transformers, sorts, cuts, states, and whole builds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference_model import ReferenceModel
from small_builds import SMALL, collected, opened
from tiny_mamba import VARIANTS, tiny_mamba, write_tiny_mamba
from torch.nn import functional as F

from edgesdk.cloud.allocate import METHODS as ALLOCATE
from edgesdk.cloud.allocate.curves import loss_shape
from edgesdk.cloud.build import build_model
from edgesdk.cloud.check import check_unchanged
from edgesdk.cloud.checkpoint import open_checkpoint
from edgesdk.cloud.config import (
    QuantizeConfig,
    RecoverConfig,
    TuneConfig,
)
from edgesdk.cloud.families import find_family, load_model, unused_tensors
from edgesdk.cloud.families.blocks import Ssm, expected_tensors
from edgesdk.cloud.moments import SINK_TOKENS, Moments, MomentsAccumulator
from edgesdk.cloud.rank import METHODS
from edgesdk.cloud.reference import Decoder, mask_block, run_block, slice_block
from edgesdk.cloud.repair import repaired_bias
from edgesdk.cloud.sort import SsmOrder, sort_block, sort_moments
from edgesdk.cloud.ssm import SsmState, scan, step_ssm
from edgesdk.device import load
from edgesdk.errors import ModelError
from edgesdk.formats import Artifact, verify_artifact


@pytest.fixture(scope="module", params=["plain", "biases", "one_group"])
def decoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    folder = tmp_path_factory.mktemp("ssm") / "model"
    write_tiny_mamba(folder, **VARIANTS[request.param])
    return opened(folder)


@pytest.fixture(scope="module")
def tokens(decoder: Decoder) -> torch.Tensor:
    return torch.randint(0, decoder.config.vocab_size, (4, 150), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def moments(decoder: Decoder, tokens: torch.Tensor) -> list[Moments]:
    return collected(decoder, tokens)


def mixers(decoder: Decoder) -> list[tuple[Ssm, dict[str, torch.Tensor]]]:
    blocks = [block for block in decoder.config.blocks if isinstance(block, Ssm)]
    assert len(blocks) == len(decoder.config.blocks)
    return [(block, dict(decoder.block_weights(i))) for i, block in enumerate(blocks)]


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_logits_are_those_of_transformers(variant: str, tmp_path: Path) -> None:
    model = write_tiny_mamba(tmp_path / "model", **VARIANTS[variant])
    decoder = opened(tmp_path / "model")
    ids = torch.randint(0, 320, (2, 75), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = model(ids).logits
        assert (decoder.forward(ids) - wanted).abs().max() <= 1e-5 * wanted.abs().max()
        exact = model.double()(ids).logits
    # transformers keeps its norms in float32 even where the model is double
    assert (decoder.double().forward(ids) - exact).abs().max() <= 3e-6 * exact.abs().max()


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_every_tensor_is_read(variant: str, tmp_path: Path) -> None:
    write_tiny_mamba(tmp_path, **VARIANTS[variant])
    checkpoint = open_checkpoint(str(tmp_path))
    config = load_model(checkpoint)
    assert unused_tensors(checkpoint, config) == ()
    assert set(expected_tensors(config)) == set(checkpoint.names)
    assert config.family == "mamba2"
    limits = VARIANTS[variant].get("time_step_limit", (0.0, float("inf")))
    assert all(isinstance(b, Ssm) and b.step_limits == pytest.approx(limits) for b in config.blocks)


def test_all_problems_of_a_configuration_at_once() -> None:
    wrong = {"head_dim": 12, "n_groups": 3, "hidden_act": "gelu", "conv_kernel": 9, "time_step_limit": [2, 1]}
    config = {**tiny_mamba().config.to_dict(), **wrong}
    with pytest.raises(ModelError) as caught:
        find_family(config).config(config)
    for part in (
        "head_dim is 12, expected a multiple of 8",
        "n_groups (3) does not divide the 8 heads",
        "hidden_act is 'gelu', expected silu or swish",
        "the convolution has 9 taps, expected 2 to 8",
        "time_step_limit is [2, 1], expected [least, most]",
        "num_heads * head_dim is 96, expected expand * hidden_size = 128",
    ):
        assert str(caught.value).count(part) == 1


def test_the_scan_equals_the_recurrence() -> None:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    for n_tokens in (1, 63, 64, 65, 200):
        x, b, c = random(2, n_tokens, 4, 8), random(2, n_tokens, 2, 16), random(2, n_tokens, 2, 16)
        dt, a = F.softplus(random(2, n_tokens, 4)), -random(4).exp()
        y, states = scan(x, dt, a, b, c)
        state = torch.zeros(2, 4, 8, 16, dtype=torch.float64)
        for t in range(n_tokens):
            wide_b, wide_c = (v[:, t].repeat_interleave(2, dim=1) for v in (b, c))
            moved = (dt[:, t, :, None] * x[:, t])[..., None] * wide_b[:, :, None]
            state = (dt[:, t] * a).exp()[..., None, None] * state + moved
            expected = (state * wide_c[:, :, None]).sum(-1)
            assert (y[:, t] - expected).abs().max() <= 1e-12 * expected.abs().max()
        assert torch.allclose(states[:, -1], state, rtol=1e-10)


def test_steps_equal_the_whole_text(decoder: Decoder, tokens: torch.Tensor) -> None:
    x = torch.randn(2, 70, decoder.config.d_model, generator=torch.Generator().manual_seed(4)).double()
    (block, weights), *_ = mixers(decoder.double())
    whole = run_block(block, {**weights, "norm": torch.ones(x.shape[-1]).double()}, x, 1e-5) - x
    memory = SsmState.empty(block, 2)
    normed = F.rms_norm(x, x.shape[-1:], eps=1e-5)
    steps = [step_ssm(block, weights, normed[:, t : t + 1], 1e-5, memory) for t in range(70)]
    found = torch.cat(steps, dim=1) + weights.get("bias", 0.0)
    assert (found - whole).abs().max() <= 1e-10 * whole.abs().max()


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("parts", [("states",), ("channels",), ("states", "channels")], ids="-".join)
def test_sorting_leaves_the_logits_alone(
    decoder: Decoder, moments: list[Moments], tokens: torch.Tensor, method: str, parts: tuple[str, ...]
) -> None:
    def ordered(d: Decoder) -> Decoder:
        blocks = []
        for index, block in enumerate(d.config.blocks):
            order = METHODS[method](block, decoder.block_weights(index), moments[index])
            given = METHODS["given"](block, decoder.block_weights(index), moments[index])
            assert isinstance(order, SsmOrder)
            order = replace(given, **{part: getattr(order, part) for part in parts})
            blocks.append(sort_block(block, d.block_weights(index), order))
        return replace(d, block_weights=lambda i: blocks[i])

    differences = check_unchanged(decoder, ordered, tokens[:1])
    assert (differences["float32"] == 0) == (method == "given")


def test_slicing_equals_masking_at_every_size(decoder: Decoder, moments: list[Moments], tokens: torch.Tensor) -> None:
    x = decoder.double().embed(tokens[:1])
    for index, (block, weights) in enumerate(mixers(decoder.double())):
        order = METHODS["outputs"](block, decoder.block_weights(index), moments[index])
        ordered = sort_block(block, weights, order)
        full = tuple(axis.size for axis in block.axes)
        whole = run_block(block, ordered, x, 1e-5)
        for position, axis in enumerate(block.axes):
            assert axis.quantum < axis.size
            for size in range(axis.quantum, axis.size, axis.quantum):
                kept = (*full[:position], size, *full[position + 1 :])
                cut = run_block(block, slice_block(block, ordered, kept), x, 1e-5)
                masked = run_block(block, mask_block(block, ordered, kept), x, 1e-5)
                assert (cut - masked).abs().max() <= 1e-12 * masked.abs().max()
                assert (cut - whole).abs().max() > 1e-6


def test_sorted_moments_are_those_of_the_sorted_block(
    decoder: Decoder, moments: list[Moments], tokens: torch.Tensor
) -> None:
    block, weights = mixers(decoder)[0]
    order = METHODS["outputs"](block, weights, moments[0])
    accumulator = MomentsAccumulator()
    run_block(block, sort_block(block, weights, order), decoder.embed(tokens), 1e-5, accumulator.tap)
    found = sort_moments(block, moments[0], order)
    for name, tensor in accumulator.finish().tensors.items():
        assert torch.allclose(found[name], tensor, rtol=1e-3, atol=1e-4 * float(tensor.abs().max())), name


def test_channels_and_states_that_count_come_first(decoder: Decoder, tokens: torch.Tensor) -> None:
    """A channel and a state that nothing can leave come last, those that were made loud first."""
    block, weights = mixers(decoder)[0]
    weights = {name: tensor.clone() for name, tensor in weights.items()}
    weights["out"][:, :, 3] = 0
    weights["out"][:, :, 5] *= 20
    weights["c_conv"][:, 2] = 0
    weights["b_conv"][:, 7, -1] = weights["c_conv"][:, 7, -1] = 100
    accumulator = MomentsAccumulator()
    run_block(block, weights, decoder.embed(tokens), 1e-5, accumulator.tap)
    order = METHODS["outputs"](block, weights, accumulator.finish())
    assert isinstance(order, SsmOrder)
    assert (order.channels[:, -1] == 3).all()
    assert (order.channels[:, 0] == 5).all()
    assert (order.states[:, -1] == 2).all()
    assert (order.states[:, 0] == 7).all()


def test_the_repair_leaves_no_mean_error(decoder: Decoder, moments: list[Moments], tokens: torch.Tensor) -> None:
    """The states stay, so the norm's denominator is the only thing that the bias cannot know."""
    x = decoder.embed(tokens)
    block, weights = mixers(decoder)[0]
    order = METHODS["outputs"](block, weights, moments[0])
    ordered, own = sort_block(block, weights, order), sort_moments(block, moments[0], order)
    kept = (block.state_size, block.head_dim - 8)
    whole = run_block(block, ordered, x, 1e-5)[:, SINK_TOKENS:].mean((0, 1))
    cut = slice_block(block, ordered, kept)
    repaired = {**cut, "bias": repaired_bias(block, ordered, kept, own)}
    error = (run_block(block, repaired, x, 1e-5)[:, SINK_TOKENS:].mean((0, 1)) - whole).norm()
    assert error < 0.5 * (run_block(block, cut, x, 1e-5)[:, SINK_TOKENS:].mean((0, 1)) - whole).norm()


def test_loss_shapes_fall_to_zero(decoder: Decoder, moments: list[Moments]) -> None:
    block, weights = mixers(decoder)[0]
    order = METHODS["outputs"](block, weights, moments[0])
    shapes = loss_shape(block, sort_block(block, weights, order), sort_moments(block, moments[0], order))
    for axis, shape in zip(block.axes, shapes, strict=True):
        assert len(shape) == axis.size + 1
        assert shape[-1] == 0
        assert shape[0] > 0
        assert (shape.diff() <= 1e-12).all()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build") / "model"
    write_tiny_mamba(folder, head_dim=32, num_heads=4, state_size=32, n_groups=1)
    return folder


@pytest.fixture(scope="module")
def built(checkpoint: Path) -> Path:
    return build_model(str(checkpoint), checkpoint.parent / "out", SMALL)


def test_a_build_makes_a_valid_ladder_that_engine_and_oracle_agree_on(built: Path) -> None:
    verify_artifact(built)
    artifact = Artifact.open(built)
    assert len(artifact.levels) >= 3
    assert all(level.perplexity and level.kl is not None for level in artifact.levels)
    ids = list(range(3, 40))
    for level in range(len(artifact.levels)):
        np.testing.assert_array_equal(load(built, level=level).logits(ids), ReferenceModel(built, level).logits(ids))


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_every_variant_compiles_to_what_its_source_computes(variant: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_tiny_mamba(folder, **VARIANTS[variant])
    quantize = QuantizeConfig(max_bits=6, model_bits=8)  # random weights lose a quarter at 4 bits, which says little
    config = replace(SMALL, quantize=quantize, tune=TuneConfig(wide_share=0.0, n_epochs=0))
    path = build_model(str(folder), tmp_path / "out", config)
    ids = torch.randint(0, 320, (1, 40), generator=torch.Generator().manual_seed(5))
    wanted = opened(folder).forward(ids)[0].detach().numpy()
    stored = ReferenceModel(path, len(Artifact.open(path).levels) - 1, float_activations=True)
    for logits in (stored.logits(ids[0].tolist()), load(path).logits(ids[0].tolist())):
        assert np.linalg.norm(logits - wanted) < 0.25 * np.linalg.norm(wanted)


@pytest.mark.parametrize("method", list(ALLOCATE))
def test_every_allocation_method_makes_a_nested_ladder(method: str, checkpoint: Path, tmp_path: Path) -> None:
    allocate = replace(SMALL.allocate, method=method, axes="width")
    path = build_model(str(checkpoint), tmp_path, replace(SMALL, allocate=allocate, tune=TuneConfig(0.0, n_epochs=0)))
    rates = [level.rate for level in Artifact.open(path).levels]
    assert rates[-1] == 0
    for rate, wanted in zip(rates[-3:], (0.4, 0.2, 0.0), strict=True):
        assert wanted <= rate < wanted + 0.12


def test_recovery_trains_levels_with_mixers(checkpoint: Path, tmp_path: Path) -> None:
    config = replace(SMALL, recover=RecoverConfig(n_epochs=2))
    path = build_model(str(checkpoint), tmp_path, config)
    recovered = Artifact.open(path).levels
    assert all(level.kl is not None for level in recovered)
    ids = list(range(3, 40))
    np.testing.assert_array_equal(load(path, level=0).logits(ids), ReferenceModel(path, 0).logits(ids))


def test_sampled_text_follows_the_model(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn token by token from states, and the most likely ones are those of the whole text."""
    from edgesdk.cloud import sample

    drawn: list[torch.Tensor] = []
    search: Callable[..., Any] = torch.searchsorted

    def greedy(cumulative: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        drawn.append(torch.diff(cumulative, prepend=torch.zeros(len(cumulative), 1)))
        return drawn[-1].argmax(-1, keepdim=True)

    monkeypatch.setattr(torch, "searchsorted", greedy)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    windows = sample.sample_windows(decoder, [1, 2], 2, 40, 0)
    monkeypatch.setattr(torch, "searchsorted", search)
    expected = decoder.forward(windows).softmax(-1)[:, :-1]
    assert torch.allclose(torch.stack(drawn, dim=1), expected, atol=1e-4)
