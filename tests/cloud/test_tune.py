"""After quantization: gradients of the KL are right, the chosen weights are those that cost most, tuning helps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_llama import write_tiny_llama
from torch import Tensor

from edgesdk.cloud.allocate import bits
from edgesdk.cloud.calibrate import collect_moments
from edgesdk.cloud.checkpoint import open_checkpoint
from edgesdk.cloud.config import BuildConfig, QuantizeConfig, RecoverConfig, TuneConfig
from edgesdk.cloud.families import load_model
from edgesdk.cloud.ordered import SortedModel
from edgesdk.cloud.quantize.block import multiplied
from edgesdk.cloud.quantize.rows import quantize_rows
from edgesdk.cloud.quantize.tasks import quantize_blocks
from edgesdk.cloud.reference import Decoder, run_block
from edgesdk.cloud.sizes import LevelPlan, full_allocation, model_panels
from edgesdk.cloud.stored import StoredWeights, save_codes
from edgesdk.cloud.tasks import ModelFiles
from edgesdk.cloud.tasks.local import LocalExecutor
from edgesdk.cloud.tune import gradients, recover, scales
from edgesdk.cloud.tune.recover import recover_levels
from edgesdk.cloud.tune.scales import tune_scales
from edgesdk.cloud.tune.student import Student
from edgesdk.cloud.tune.widen import choose, quantization_costs, widen
from edgesdk.cloud.workdir import WorkDirectory

CONFIG = BuildConfig(quantize=QuantizeConfig("rtn"), tune=TuneConfig(wide_share=0.2, batch_windows=4, rate=2e-3))


class Model:
    """A small checkpoint, quantized by rounding, so that there is something left to win."""

    def __init__(self, root: Path) -> None:
        write_tiny_llama(root / "model", intermediate_size=192)
        checkpoint = open_checkpoint(str(root / "model"))
        self.source = Decoder.open(checkpoint, load_model(checkpoint))
        generator = torch.Generator().manual_seed(0)
        self.windows = torch.randint(0, self.source.config.vocab_size, (96, 48), generator=generator)
        self.calibration = calibration = collect_moments(self.source, self.windows, WorkDirectory(root, "moments", "0"))
        self.ordered = SortedModel(self.source, calibration, "outputs")
        config = self.source.config
        self.four = LevelPlan.of(config, full_allocation(config))
        self.codes = WorkDirectory(root, "codes", "0")
        save_codes(self.codes, None, "embed", quantize_rows(self.source.embedding, 32, 8, calibration.head_moment()))
        files = ModelFiles.of(str(root / "model"))
        for n_bits in (2, 4, 6):
            versions = [(i, weight.role, n_bits) for i, block in enumerate(config.blocks) for weight in block.weights]
            quantize_blocks(files, config, CONFIG, calibration, self.codes, versions, LocalExecutor())
        self.weights, self.root = StoredWeights(self.codes), root

    def student(self) -> Student:
        return Student.start(self.ordered, self.weights, [self.four])

    @torch.inference_mode()
    def kl(self, decoder: Decoder, windows: Tensor) -> float:
        own = self.source.forward(windows).log_softmax(-1)
        return float((own.exp() * (own - decoder.forward(windows).log_softmax(-1))).sum(-1).mean())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(tmp_path_factory.mktemp("tune"))


@pytest.fixture(autouse=True)
def exact_products(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (gradients, recover, scales):
        monkeypatch.setattr(module, "product_dtype", lambda: torch.float32)


def test_gradients_equal_those_of_one_graph(model: Model) -> None:
    tokens = model.windows[:3]
    student = model.student().decoder()
    blocks = student.config.blocks
    weights = [dict(student.block_weights(index)) for index in range(len(blocks))]
    leaves = {(i, name): w[name].requires_grad_() for i, w in enumerate(weights) for name in w if name in ("q", "norm")}
    leaves |= {(i, "down"): w["down"].requires_grad_() for i, w in enumerate(weights) if "down" in w}
    x = student.embed(tokens)
    for index, block in enumerate(blocks):
        x = run_block(block, weights[index], x, student.config.norm_eps)
    own = model.source.forward(tokens).log_softmax(-1)
    kl = (own.exp() * (own - student.logits(x).log_softmax(-1))).sum(-1).mean()
    wanted = dict(zip(leaves, torch.autograd.grad(kl, list(leaves.values())), strict=True))
    found: dict[tuple[int, str], Tensor] = {}

    def see(index: int, gradients: Mapping[str, Tensor]) -> None:
        found.update({(index, name): gradient for name, gradient in gradients.items()})

    with torch.no_grad():
        states = model.source.final_states(tokens, 2)
    divergence = gradients.divergence_gradients(model.source, states, student, tokens, see)
    assert divergence == pytest.approx(float(kl.detach()), rel=1e-4)
    for key, gradient in wanted.items():
        assert torch.allclose(found[key], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max())), key


def test_the_loss_of_each_panel_of_the_embedding_is_its_own(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bits, "_FLOOR", 0.0)
    for n_bits in (3, 4):
        rows = quantize_rows(model.source.embedding, 32, n_bits, model.calibration.head_moment())
        save_codes(model.codes, None, "embed", rows)
    monkeypatch.setattr(bits, "MODEL_BITS", (8, 4, 3))
    config = model.source.config
    found = bits._model_losses(model.ordered, model.weights, model.four, model.windows)
    assert list(found) == [(None, panel.name) for panel in model_panels(config)]

    def table(n_bits: int) -> Tensor:
        stored = model.weights.weight(None, "embed", n_bits)
        return multiplied(torch.from_numpy(stored.values()), torch.from_numpy(stored.scales).float(), stored.group)

    source = model.ordered.decoder
    base = model.kl(replace(source, embedding=table(8), head=table(8)), model.windows)
    for panel in model_panels(config)[1::2]:
        for n_bits in (4, 3):
            mixed = table(8)
            mixed[panel.begin : panel.end] = table(n_bits)[panel.begin : panel.end]
            wanted = model.kl(replace(source, embedding=mixed, head=mixed), model.windows) - base
            assert found[None, panel.name][n_bits] == pytest.approx(max(wanted, 0.0), rel=0.02, abs=1e-6)


def test_no_panel_is_taken_for_free() -> None:
    raised = bits._raised({(None, f"embed.{i}"): {8: 0.0, 4: loss} for i, loss in enumerate((0.9, 0.0, 0.3))})
    assert [losses[4] for losses in raised.values()] == pytest.approx([0.9, 0.08, 0.3])
    assert {losses[8] for losses in raised.values()} == {0.0}


def test_the_parts_of_all_weights_add_up_to_the_whole_divergence(model: Model) -> None:
    student = model.student().decoder()
    embedded = replace(model.ordered.decoder, embedding=student.embedding, head=student.head)
    whole = model.kl(student, model.windows) - model.kl(embedded, model.windows)
    costs = quantization_costs(model.ordered.decoder, student, model.windows)
    assert sum(costs.values()) == pytest.approx(whole, rel=0.25)


def test_the_chosen_weights_gain_most_and_fit() -> None:
    gains = {(0, "v"): 0.5, (0, "down"): 2.0, (1, "v"): 0.4, (1, "k"): -0.1, (1, "down"): 0.9}
    elements = {(0, "v"): 10, (0, "down"): 80, (1, "v"): 10, (1, "k"): 10, (1, "down"): 90}
    assert choose(gains, elements, 0.1) == [(0, "v"), (1, "v")]
    assert choose(gains, elements, 0.5) == [(0, "v"), (1, "v"), (0, "down")]
    assert choose(gains, elements, 0.0) == []


def test_wide_weights_and_tuned_scales_bring_the_model_nearer_to_its_source(model: Model) -> None:
    held_back = torch.randint(0, model.source.config.vocab_size, (8, 48), generator=torch.Generator().manual_seed(1))
    kl = {"four bits": model.kl(model.student().decoder(), held_back)}
    wide = widen(model.ordered, model.student(), model.windows, 0.2, WorkDirectory(model.root, "wide", "0"))
    assert wide
    config = model.source.config
    bits = tuple(
        tuple(6 if (i, weight.role) in wide else 4 for weight in block.weights) for i, block in enumerate(config.blocks)
    )
    plan = replace(model.four, bits=bits)
    kl["wide"] = model.kl(Student.start(model.ordered, model.weights, [plan]).decoder(), held_back)
    tuned = WorkDirectory(model.root, "tuned", "0")
    settings = replace(CONFIG.tune, n_epochs=3)
    tune_scales(model.source, Student.start(model.ordered, model.weights, [plan]), model.windows, settings, tuned)
    weights = StoredWeights(model.codes, tuned)
    kl["tuned"] = model.kl(Student.start(model.ordered, weights, [plan]).decoder(), held_back)
    assert kl["wide"] < 0.97 * kl["four bits"]
    assert kl["tuned"] < 0.97 * kl["wide"]


def test_smaller_levels_recover_without_touching_the_full_one(model: Model) -> None:
    held_back = torch.randint(0, model.source.config.vocab_size, (8, 48), generator=torch.Generator().manual_seed(1))
    kept = tuple(
        tuple(max(a.quantum, a.size // 2 // a.quantum * a.quantum) for a in b.axes) for b in model.source.config.blocks
    )
    small = replace(LevelPlan.of(model.source.config, model.four.kept, bits=2), kept=kept)
    cut = replace(model.four, kept=kept)  # owns no version, only a bias
    mixed = replace(model.four, bits=(*model.four.bits[:-1], (2,) * len(model.four.bits[-1])))
    ladder = [small, cut, mixed, model.four]
    before = Student.start(model.ordered, model.weights, ladder)
    work = WorkDirectory(model.root, "recovered", "0")
    settings = RecoverConfig(n_epochs=4, n_knots=3, batch_windows=4)
    recover_levels(model.source, before, model.windows, settings, work)
    after = Student.start(model.ordered, StoredWeights(model.codes, recovered=work), ladder)
    tokens = held_back[:2]
    assert torch.equal(before.decoder().forward(tokens), after.decoder().forward(tokens))
    for level, gain in ((0, 0.98), (1, 1.0), (2, 0.98)):  # a bias alone does little on random text
        assert model.kl(after.decoder(level), held_back) < gain * model.kl(before.decoder(level), held_back), level


def test_changes_of_biases_are_linear_between_knots(model: Model) -> None:
    ladder = [replace(model.four, model_bits=(8,) * len(model.four.model_bits))] * 6
    student = Student.start(model.ordered, model.weights, ladder)
    biases = recover._BiasChanges(student, 3)
    gradient = torch.ones(model.source.config.d_model)
    biases.step(0, 1, gradient, 0.5)  # halfway between the first two knots
    unit = float(student.biases[0].square().mean().sqrt())
    changes = [float(biases.value(0, level)[0]) / unit for level in range(5)]
    assert changes == pytest.approx([-0.5, -0.5, -0.5, -0.25, 0.0])
    result = biases.result(0)
    assert torch.equal(result[5], student.biases[0][5])
    assert torch.allclose(result[3], student.biases[0][3] + biases.value(0, 3))
