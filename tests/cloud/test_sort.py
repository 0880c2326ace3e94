"""Sorting leaves the function alone, slicing equals masking, and the scores equal their textbook forms."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_builds import collected, opened
from tiny_llama import write_tiny_llama

from edgesdk.cloud.allocate.curves import loss_shape, prefix_errors
from edgesdk.cloud.check import check_unchanged
from edgesdk.cloud.families.blocks import Attention, Mlp
from edgesdk.cloud.moments import SINK_TOKENS, Moments
from edgesdk.cloud.rank import METHODS
from edgesdk.cloud.rank.outputs import channel_loss, value_rotation
from edgesdk.cloud.rank.uniql import ridge_leverage
from edgesdk.cloud.reference import Decoder, mask_block, run_block, slice_block
from edgesdk.cloud.repair import repaired_bias
from edgesdk.cloud.sort import AttentionOrder, MlpOrder, sort_block, sort_moments
from edgesdk.errors import ModelError


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    folder = tmp_path_factory.mktemp("sort") / "model"
    write_tiny_llama(folder, attention_bias=True)
    return opened(folder)


@pytest.fixture(scope="module")
def tokens(decoder: Decoder) -> torch.Tensor:
    return torch.randint(0, decoder.config.vocab_size, (4, 48), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def moments(decoder: Decoder, tokens: torch.Tensor) -> list[Moments]:
    return collected(decoder, tokens)


def sorted_decoder(decoder: Decoder, moments: list[Moments], method: str, kinds: tuple[type, ...]) -> Decoder:
    blocks = []
    for index, block in enumerate(decoder.config.blocks):
        weights = decoder.block_weights(index)
        if isinstance(block, kinds):
            order = METHODS[method](block, weights, moments[index])
            weights = sort_block(block, weights, order)
        blocks.append(weights)
    return replace(decoder, block_weights=lambda i: blocks[i])


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("kinds", [(Attention,), (Mlp,), (Attention, Mlp)], ids=["attention", "mlp", "both"])
def test_sorting_leaves_the_logits_alone(
    decoder: Decoder, moments: list[Moments], tokens: torch.Tensor, method: str, kinds: tuple[type, ...]
) -> None:
    differences = check_unchanged(decoder, lambda d: sorted_decoder(d, moments, method, kinds), tokens[:1])
    assert (differences["float32"] == 0) == (method == "given")
    assert differences["float32"] <= 1e-5
    assert differences["float64"] <= 1e-9


def test_a_sort_that_changes_the_function_fails_the_build(decoder: Decoder, tokens: torch.Tensor) -> None:
    def wrong(d: Decoder) -> Decoder:
        blocks = [dict(d.block_weights(i)) for i in range(len(d.config.blocks))]
        blocks[0]["v"] = blocks[0]["v"].flip(1)
        return replace(d, block_weights=lambda i: blocks[i])

    with pytest.raises(ModelError, match="sorting changed the function"):
        check_unchanged(decoder, wrong, tokens[:1])


def test_slicing_equals_masking_at_every_size(decoder: Decoder, moments: list[Moments], tokens: torch.Tensor) -> None:
    ordered = sorted_decoder(decoder, moments, "outputs", (Attention, Mlp)).double()
    x = ordered.embed(tokens[:1])
    for index, block in enumerate(ordered.config.blocks):
        weights = ordered.block_weights(index)
        full = tuple(axis.size for axis in block.axes)
        for position, axis in enumerate(block.axes):
            for size in range(axis.quantum, axis.size, axis.quantum):
                kept = (*full[:position], size, *full[position + 1 :])
                cut = run_block(block, slice_block(block, weights, kept), x, 1e-5)
                masked = run_block(block, mask_block(block, weights, kept), x, 1e-5)
                assert (cut - masked).abs().max() <= 1e-12 * masked.abs().max()
                assert (cut - run_block(block, weights, x, 1e-5)).abs().max() > 0


def test_scores_depend_only_on_the_distance_after_sort_and_slice(decoder: Decoder, moments: list[Moments]) -> None:
    index = 0
    block = decoder.config.blocks[index]
    assert isinstance(block, Attention)
    weights = decoder.double().block_weights(index)
    ordered = sort_block(block, weights, METHODS["outputs"](block, weights, moments[index]))
    cut = slice_block(block, ordered, (block.head_dim // 2, block.head_dim))
    generator = torch.Generator().manual_seed(3)
    q, k = (torch.randn(cut["q"].shape[1], dtype=torch.float64, generator=generator) for _ in range(2))

    def score(at_q: int, at_k: int) -> float:
        def rotate(x: torch.Tensor, position: int) -> torch.Tensor:
            angle = position * cut["inv_freq"][0]
            a, b = x.chunk(2)
            return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()])

        return float(rotate(q, at_q) @ rotate(k, at_k))

    assert score(7, 3) == pytest.approx(score(107, 103), abs=1e-6)
    assert score(7, 3) != pytest.approx(score(7, 4), abs=1e-6)


def test_the_rotation_of_values_has_the_loss_it_promises() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(500, 12, generator=generator, dtype=torch.float64) @ torch.randn(
        12, 12, generator=generator, dtype=torch.float64
    )
    o = torch.randn(20, 3, 12, generator=generator, dtype=torch.float64)  # (d_model, group, d)
    moment = z.T @ z / len(z)
    rotation = value_rotation(moment, o)
    inverse = torch.linalg.inv(rotation).T
    textbook = torch.linalg.svdvals(torch.linalg.cholesky(moment).T @ o.permute(2, 1, 0).flatten(1)).square()
    for kept in (4, 8, 11):
        turned = z @ rotation
        error = torch.einsum("ts,dgs->tdg", turned[:, kept:], (o @ inverse)[:, :, kept:])
        measured = float(error.square().sum()) / len(z)
        assert measured == pytest.approx(float(textbook[kept:].sum()), rel=1e-4)


def test_ridge_leverage_equals_its_textbook_form() -> None:
    x = torch.randn(200, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moment = x.T @ x / len(x)
    textbook = (moment @ torch.linalg.inv(moment + torch.eye(9, dtype=torch.float64) / 2048)).diagonal()
    assert torch.allclose(ridge_leverage(moment), textbook, rtol=1e-10)


def test_channel_loss_is_the_squared_error_of_dropping_one_channel() -> None:
    hidden = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    down = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
    moments = Moments({"hidden": hidden.T @ hidden / 64}, 0.0)
    error = (hidden[:, 2:3] @ down[:, 2:3].T).square().sum() / 64
    assert float(channel_loss({"down": down}, moments)[2]) == pytest.approx(float(error), rel=1e-5)


def test_prefix_errors_by_hand() -> None:
    product = torch.tensor([[4.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    assert prefix_errors(product).tolist() == [8.0, 2.0, 0.0]


def test_the_repair_leaves_no_mean_error(decoder: Decoder, moments: list[Moments], tokens: torch.Tensor) -> None:
    x = decoder.embed(tokens)
    block, weights = decoder.config.blocks[1], decoder.block_weights(1)
    x = run_block(decoder.config.blocks[0], decoder.block_weights(0), x, decoder.config.norm_eps)
    order = METHODS["outputs"](block, weights, moments[1])
    assert isinstance(order, MlpOrder)
    ordered, own = sort_block(block, weights, order), sort_moments(block, moments[1], order)
    kept = (block.axes[0].quantum,)
    whole = run_block(block, ordered, x, 1e-5)[:, SINK_TOKENS:].mean((0, 1))
    cut = slice_block(block, ordered, kept)
    repaired = {**cut, "bias": repaired_bias(block, ordered, kept, own)}
    error = (run_block(block, repaired, x, 1e-5)[:, SINK_TOKENS:].mean((0, 1)) - whole).abs().max()
    before = (run_block(block, cut, x, 1e-5)[:, SINK_TOKENS:].mean((0, 1)) - whole).abs().max()
    assert error < 1e-4 * before


def test_loss_shapes_fall_to_zero(decoder: Decoder, moments: list[Moments]) -> None:
    for index, block in enumerate(decoder.config.blocks):
        weights = decoder.block_weights(index)
        order = METHODS["outputs"](block, weights, moments[index])
        own = sort_moments(block, moments[index], order)
        shapes = loss_shape(block, sort_block(block, weights, order), own)
        assert isinstance(order, AttentionOrder | MlpOrder)
        for axis, shape in zip(block.axes, shapes, strict=True):
            assert len(shape) == axis.size + 1
            assert shape[-1] == 0
            assert shape[0] > 0
            assert (shape.diff() <= 1e-12).all()
