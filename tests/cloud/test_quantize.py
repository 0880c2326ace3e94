"""Quantization: grids, scales and GPTQ do what they say, and slicing never re-quantizes."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from edgesdk.cloud.config import QuantizeConfig
from edgesdk.cloud.factor import inverse_factor
from edgesdk.cloud.families.blocks import Attention, Mlp, choose_group, head_quantum
from edgesdk.cloud.quantize import METHODS
from edgesdk.cloud.quantize.block import dequantized, quantize_weight
from edgesdk.cloud.quantize.grid import Grid, best_values, learn_grid, uniform_grid
from edgesdk.cloud.quantize.rows import quantize_rows
from edgesdk.formats.tiles import pack_panel, unpack_panel


def correlated(n: int, columns: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=generator) / columns**0.5 + torch.eye(columns)
    return torch.randn(n, columns, generator=generator) @ mix


def output_error(weight: torch.Tensor, stored: torch.Tensor, x: torch.Tensor) -> float:
    return float(((weight - stored) @ x.T).square().mean() / (weight @ x.T).square().mean())


def decode(codes: torch.Tensor, scales: torch.Tensor, grid: Grid, group: int) -> torch.Tensor:
    wide = scales.repeat_interleave(group, dim=1)[:, : codes.shape[1]]
    return grid.decode(codes.long()) * wide


def test_gptq_on_a_learned_grid_beats_rounding_by_far() -> None:
    x, weight = correlated(2048, 96), torch.randn(48, 96, generator=torch.Generator().manual_seed(1))
    moment = x.T @ x / len(x)
    errors = {
        name: output_error(
            weight, decode(*method(weight, moment, 32, 0.01, columns_sorted=True), 32), correlated(2048, 96)
        )
        for name, method in METHODS.items()
    }
    assert errors["gptq"] < 0.7 * errors["rtn"] < 0.02
    assert errors["gptq"] < errors["gptq-uniform"] < 0.9 * errors["rtn"]


def test_weights_on_the_grid_are_kept_exactly() -> None:
    codes = torch.randint(0, 16, (8, 64), generator=torch.Generator().manual_seed(0))
    codes[:, ::32] = 0  # the largest value is there in every group, so the scale can be found
    weight = uniform_grid(4).decode(codes) * 0.03125
    found, scales, grid = METHODS["rtn"](weight, torch.eye(64), 32, 0.01, columns_sorted=True)
    stored = decode(found, scales, grid, 32)
    assert output_error(weight, stored, torch.eye(64)) < 1e-3


def test_the_inverse_factor_equals_the_inverse() -> None:
    x = correlated(500, 12)
    moment = x.T @ x / len(x)
    factor = inverse_factor(moment, 0.01)
    damped = moment + 0.01 * moment.diagonal().mean() * torch.eye(12)
    assert torch.allclose(factor.T @ factor, torch.linalg.inv(damped), rtol=1e-4, atol=1e-5)
    assert torch.equal(factor, factor.triu())


def test_a_learned_grid_is_sixteen_ascending_values_of_six_bits_and_better_than_uniform() -> None:
    groups = torch.randn(3000, 32, generator=torch.Generator().manual_seed(0))
    grid = learn_grid(groups, torch.ones(32))
    assert len(set(grid.values)) == 16
    assert list(grid.values) == sorted(grid.values)
    assert min(grid.values) >= -32
    assert max(grid.values) <= 31

    def loss(candidate: Grid) -> float:
        scales = candidate.best_scales(groups, torch.ones(32))[:, None]
        return float((groups - scales * candidate.decode(candidate.codes(groups / scales))).square().mean())

    assert loss(grid) < 0.95 * loss(uniform_grid(4))


def test_scales_are_what_float16_holds() -> None:
    groups = torch.cat([torch.zeros(1, 32), torch.full((1, 32), 1e-9), torch.randn(5, 32) * 1e4])
    scales = uniform_grid(4).best_scales(groups, torch.ones(32))
    assert torch.equal(scales, scales.half().float())
    assert torch.isfinite(scales).all()
    assert (scales != 0).all()


def test_the_order_of_columns_counts_on_an_unsorted_axis() -> None:
    x, weight = correlated(2048, 96), torch.randn(48, 96, generator=torch.Generator().manual_seed(1))
    x = x * torch.linspace(0.1, 3.0, 96)  # the loud columns come last
    moment = x.T @ x / len(x)
    errors = {
        is_sorted: output_error(
            weight, decode(*METHODS["gptq"](weight, moment, 32, 0.01, columns_sorted=is_sorted), 32), x
        )
        for is_sorted in (True, False)
    }
    assert errors[False] < 0.95 * errors[True]


@pytest.mark.parametrize("method", list(METHODS))
def test_a_slice_has_the_same_bytes_as_the_whole(method: str) -> None:
    block = Attention("blk.0.attn", 6, 2, 32, 0.2, tuple(1.0 for _ in range(16)), 1.0, {})
    generator = torch.Generator().manual_seed(0)
    weights = {
        "q": torch.randn(6, 32, 64, generator=generator),
        "k": torch.randn(2, 32, 64, generator=generator),
        "v": torch.randn(2, 32, 64, generator=generator),
        "o": torch.randn(64, 6, 32, generator=generator),
    }
    moments = {"input": torch.eye(64), "z": torch.eye(192)}
    o = quantize_weight(block, "o", weights, moments, QuantizeConfig(method=method))
    assert o.group == 24
    assert o.codes.shape == (64, 192)
    for kept in range(8, 33, 8):
        columns = 6 * kept
        packed = pack_panel(o.codes[:, :columns], o.scales[:, : columns // 24], 4, 24)
        codes, scales = unpack_panel(packed, 64, columns, 4, 24)
        assert np.array_equal(codes, o.codes[:, :columns])
        assert np.array_equal(scales, o.scales[:, : columns // 24])
        natural = dequantized(block, block.weights[3], o)[:, :, :kept]
        error = (natural - weights["o"][:, :, :kept]).square().mean() / weights["o"].square().mean()
        assert error < 0.02


def test_dequantized_weights_come_back_in_their_natural_order() -> None:
    generator = torch.Generator().manual_seed(0)
    block = Mlp("blk.0.mlp", 96, "silu", {})
    weights = {role: torch.randn(96, 64, generator=generator) for role in ("gate", "up")}
    weights["down"] = torch.randn(64, 96, generator=generator)
    moments = {"input": torch.eye(64), "hidden": torch.eye(96)}
    for weight in block.weights:
        made = quantize_weight(block, weight.role, weights, moments, QuantizeConfig())
        error = (dequantized(block, weight, made) - weights[weight.role]).square().mean()
        assert error < 0.01


def test_eight_bit_rows_are_near_exact() -> None:
    weight = torch.randn(33, 40, generator=torch.Generator().manual_seed(0))
    stored = quantize_rows(weight, 32, 8)
    values = stored.codes.view(np.int8).astype(np.float32)
    wide = np.repeat(stored.scales.astype(np.float32), 32, axis=1)[:, :40]
    assert np.abs(values).max() <= 127
    assert np.abs(values * wide - weight.numpy()).max() <= np.abs(weight.numpy()).max() / 127 * 0.51


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "quantum"), [(9, 3, 64, 16), (32, 8, 64, 8), (6, 2, 32, 8), (32, 8, 128, 8)]
)
def test_quanta_keep_tiles_and_groups_whole(heads: int, kv_heads: int, head_dim: int, quantum: int) -> None:
    assert head_quantum(heads, kv_heads, head_dim) == quantum
    assert quantum * kv_heads % 16 == 0
    assert quantum * heads % choose_group(quantum * heads, 32) == 0


def test_the_nearest_value_is_found_by_table_also_halfway_and_far_outside() -> None:
    grid = Grid((-32, -7, 0, 3, 4, 31), (1.0,), 32)
    scaled = torch.cat([torch.arange(-100, 100) / 4, torch.tensor([-1e6, 1e6]), torch.randn(1000) * 20])
    values = torch.tensor(grid.values, dtype=torch.float32)
    codes = torch.bucketize(scaled, (values[1:] + values[:-1]) / 2)
    assert torch.equal(grid.codes(scaled), codes)
    assert torch.equal(grid.nearest(scaled), values[codes])


def test_the_best_values_are_those_of_an_exhaustive_search() -> None:
    random = torch.Generator().manual_seed(0)
    points, mass = torch.randn(300, generator=random).double() * 14, torch.rand(300, generator=random).double()

    def error(values: tuple[int, ...]) -> float:
        distances = (points[:, None] - torch.tensor(values)).square().amin(1)
        return float((mass * distances).sum())

    found, values = best_values(points, mass, 1)
    best = min(combinations(range(-32, 32), 2), key=error)
    assert values == best
    assert found == pytest.approx(error(best))
    found, values = best_values(points, mass, 4)
    assert found == pytest.approx(error(values))
    for i in range(16):  # no single value is better elsewhere
        for step in (-1, 1):
            moved = tuple(sorted({*values[:i], values[i] + step, *values[i + 1 :]}))
            inside = len(moved) == 16 and moved[0] >= -32 and moved[-1] <= 31
            assert not inside or error(moved) >= found * (1 - 1e-12)
