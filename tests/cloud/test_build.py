"""The whole compiler on small checkpoints: what a build makes, resumes, refuses and leaves behind."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from reference_model import ReferenceModel
from safetensors.numpy import load_file, save_file
from small_builds import SMALL
from tiny_llama import VARIANTS, write_tiny_llama, write_tokenizer

from edgesdk.cloud import order
from edgesdk.cloud.allocate import METHODS as ALLOCATE
from edgesdk.cloud.build import build_model
from edgesdk.cloud.checkpoint import open_checkpoint
from edgesdk.cloud.config import (
    AllocateConfig,
    QuantizeConfig,
    RankConfig,
    RecoverConfig,
    preset,
)
from edgesdk.cloud.families import load_model
from edgesdk.cloud.quantize import tasks
from edgesdk.cloud.reference import Decoder
from edgesdk.cloud.tasks import local
from edgesdk.device import load
from edgesdk.errors import ModelError, UsageError
from edgesdk.formats import Artifact, verify_artifact


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build") / "model"
    write_tiny_llama(folder, intermediate_size=192)
    return folder


@pytest.fixture(scope="module")
def built(checkpoint: Path) -> Path:
    return build_model(str(checkpoint), checkpoint.parent / "out", SMALL)


def test_the_artifact_is_valid_and_its_ladder_is_what_was_asked_for(built: Path) -> None:
    verify_artifact(built)
    artifact = Artifact.open(built)
    rates = [level.rate for level in artifact.levels]
    assert len(rates) == 3
    for rate, wanted in zip(rates, (0.4, 0.2, 0.0), strict=True):
        assert wanted <= rate < wanted + 0.1
    assert all(level.perplexity and level.kl is not None for level in artifact.levels)
    report = json.loads((built.parent / "build.json").read_text())
    assert [row["perplexity"] for row in report["levels"]] == [level.perplexity for level in artifact.levels]
    assert report["sort_difference"]["float64"] <= 1e-9
    assert set(report["seconds"]) >= {"read", "calibrate", "allocate", "quantize", "evaluate"}
    evaluation = artifact.edge["evaluation"]
    assert evaluation["text"].startswith("sampled from the model")
    assert evaluation["kv_16"]["kl"] == pytest.approx(artifact.levels[-1].kl, rel=0.1)
    assert evaluation["kv_16"]["kl"] != artifact.levels[-1].kl


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_every_variant_compiles_to_what_its_source_computes(variant: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_tiny_llama(folder, initializer_range=0.06, **VARIANTS[variant])  # small weights: attention is not chaotic
    path = build_model(str(folder), tmp_path / "out", SMALL)
    opened = open_checkpoint(str(folder))
    source = Decoder.open(opened, load_model(opened))
    tokens = torch.randint(0, source.config.vocab_size, (1, 24), generator=torch.Generator().manual_seed(5))
    wanted = source.forward(tokens)[0].detach().numpy()
    stored = ReferenceModel(path, len(Artifact.open(path).levels) - 1, float_activations=True)
    for logits in (stored.logits(tokens[0].tolist()), load(path).logits(tokens[0].tolist())):
        # random weights lose 7 to 9 % of each product at 4 bits; a wrong order would lose 100 %
        assert np.linalg.norm(logits - wanted) < 0.2 * np.linalg.norm(wanted)


def test_engine_and_oracle_agree_to_the_bit_at_every_level(built: Path) -> None:
    tokens = list(range(3, 40))
    for level in range(3):
        engine = load(built, level=level).logits(tokens)
        assert np.array_equal(engine, ReferenceModel(built, level).logits(tokens))


def test_processes_make_the_same_bytes(
    built: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large models quantize blocks in processes of their own, small ones in the compiler's."""
    monkeypatch.setattr(tasks, "_SMALL_ELEMENTS", 0)
    monkeypatch.setattr(order, "_SMALL_BYTES", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(local, "one_thread", None)  # in this process
    again = build_model(str(checkpoint), tmp_path / "out", SMALL)
    assert again.read_bytes() == built.read_bytes()


def test_a_stopped_build_goes_on_and_makes_the_same_bytes(built: Path, checkpoint: Path, tmp_path: Path) -> None:
    steps: list[str] = []

    class Stopped(RuntimeError):
        pass

    def stop(step: str, done: int, total: int) -> None:
        if step == "quantize" and done == 2:
            raise Stopped

    with pytest.raises(Stopped):
        build_model(str(checkpoint), tmp_path, SMALL, progress=stop)
    assert not (tmp_path / "model.edge").exists()
    finished = list((tmp_path / "work").glob("codes-*/codes-*.safetensors"))
    assert finished
    stamps = {path: path.stat().st_mtime_ns for path in finished}
    again = build_model(str(checkpoint), tmp_path, SMALL, progress=lambda step, *_: steps.append(step))
    assert again.read_bytes() == built.read_bytes()
    assert {path: path.stat().st_mtime_ns for path in finished} == stamps
    assert list(dict.fromkeys(steps))[:2] == ["read", "sample"]


@pytest.mark.parametrize("method", list(ALLOCATE))
def test_every_allocation_method_makes_a_nested_ladder(method: str, checkpoint: Path, tmp_path: Path) -> None:
    config = replace(SMALL, allocate=replace(SMALL.allocate, method=method))
    artifact = Artifact.open(build_model(str(checkpoint), tmp_path, config))
    assert [level.rate >= wanted for level, wanted in zip(artifact.levels, (0.4, 0.2, 0.0), strict=True)] == [True] * 3


@pytest.mark.parametrize("axes", ["all", "width", "bits"])
def test_levels_give_up_what_the_axes_allow(axes: str, checkpoint: Path, tmp_path: Path) -> None:
    config = replace(SMALL, allocate=replace(SMALL.allocate, axes=axes, max_file_growth=2.0))
    path = build_model(str(checkpoint), tmp_path, config)
    artifact = Artifact.open(path)
    gave_up = artifact.levels[0].gave_up
    if axes != "all":
        assert (gave_up["width"] > 0) == (axes == "width")
        assert (gave_up["block bits"] > 0) == (axes == "bits")
    replaced = [run for run in artifact.runs if run.last_level < len(artifact.levels) - 1]
    panels = artifact.edge["panels"]
    in_replaced = [
        n for n, t in artifact.tensors.items() if n in panels and any(r.begin <= t.begin < r.end for r in replaced)
    ]
    assert bool(in_replaced) == (axes != "width")
    tokens = list(range(3, 40))
    for level in range(len(artifact.levels)):
        assert np.array_equal(load(path, level=level).logits(tokens), ReferenceModel(path, level).logits(tokens))


def test_losses_are_measured_once_for_ladders_of_other_settings(
    built: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("edgesdk.cloud.allocate.measured.LossMeter.start", fail)
    monkeypatch.setattr("edgesdk.cloud.build.bit_losses", fail)
    settings = replace(SMALL.allocate, max_file_growth=0.0, step=0.1)
    path = build_model(str(checkpoint), tmp_path, replace(SMALL, allocate=settings), work=built.parent / "work")
    assert len(Artifact.open(path).levels) > len(Artifact.open(built).levels)
    other = replace(settings, n_windows=1)
    with pytest.raises(AssertionError, match="measured again"):
        build_model(str(checkpoint), tmp_path, replace(SMALL, allocate=other), work=built.parent / "work")


def test_recovery_changes_only_what_smaller_levels_own(built: Path, checkpoint: Path, tmp_path: Path) -> None:
    config = replace(SMALL, recover=RecoverConfig(n_epochs=1, batch_windows=4))
    path = build_model(str(checkpoint), tmp_path, config, work=built.parent / "work")
    verify_artifact(path)
    plain, recovered = Artifact.open(built), Artifact.open(path)
    top = len(plain.levels) - 1
    for level in range(top + 1):
        engine = load(path, level=level).logits(list(range(3, 40)))
        assert np.array_equal(engine, ReferenceModel(path, level).logits(list(range(3, 40))))
        before = load(built, level=level).logits(list(range(3, 40)))
        assert np.array_equal(engine, before) == (level == top)
    assert [level.mapped_bytes for level in recovered.levels] == [level.mapped_bytes for level in plain.levels]
    assert recovered.levels[-1].kl == plain.levels[-1].kl
    with pytest.raises(UsageError, match="biases"):
        build_model(str(checkpoint), tmp_path, replace(config, repair_bias=False))


def test_six_bits_above_the_default(checkpoint: Path, tmp_path: Path) -> None:
    config = replace(SMALL, quantize=replace(SMALL.quantize, max_bits=6))
    artifact = Artifact.open(build_model(str(checkpoint), tmp_path, config))
    top = len(artifact.levels) - 1
    panels = artifact.edge["panels"]
    assert {panels[n][4] for n in artifact.used_names(top) if n.startswith("blk.") and n in panels} == {6}
    assert 4 in {panels[n][4] for n in artifact.used_names(0) if n.startswith("blk.") and n in panels}
    with pytest.raises(UsageError, match="max_bits is 5"):
        build_model(str(checkpoint), tmp_path, replace(SMALL, quantize=replace(SMALL.quantize, max_bits=5)))


def test_the_baseline_methods_build_too(checkpoint: Path, tmp_path: Path) -> None:
    config = replace(SMALL, rank=RankConfig("uniql"), quantize=QuantizeConfig("rtn", group=64))
    artifact = Artifact.open(build_model(str(checkpoint), tmp_path, config))
    assert artifact.edge["panels"]["blk.0.attn.q/0"][5] == 64


@pytest.mark.parametrize("variant", ["plain", "biases"])
def test_the_recipe_of_uniql_is_a_preset(variant: str, tmp_path: Path) -> None:
    write_tiny_llama(tmp_path / "model", intermediate_size=192, **VARIANTS[variant])
    config = preset("uniql", calibrate=SMALL.calibrate, evaluate=SMALL.evaluate)
    path = build_model(str(tmp_path / "model"), tmp_path, config)
    verify_artifact(path)
    artifact = Artifact.open(path)
    checkpoint = open_checkpoint(str(tmp_path / "model"))
    source = Decoder.open(checkpoint, load_model(checkpoint)).block_weights(0)
    bias = artifact.vector("blk.0.attn.bias", 0)  # the source's own, and nothing that stands in for cut elements
    assert len(bias) == (64 if variant == "biases" else 0)
    assert np.allclose(bias, source["bias"].numpy() if variant == "biases" else 0, rtol=1e-3, atol=1e-3)
    assert artifact.edge["panels"]["blk.0.attn.q/0"][4:6] == [4, 128]
    assert artifact.edge["panels"]["blk.0.mlp.down/0"][4:6] == [4, 32]
    assert artifact.levels[0].rate >= 0.35
    tokens = list(range(3, 30))
    assert np.array_equal(load(path, level=0).logits(tokens), ReferenceModel(path, 0).logits(tokens))


def test_calibration_and_evaluation_on_given_texts(checkpoint: Path, tmp_path: Path) -> None:
    calibration, evaluation = tmp_path / "calibration.jsonl", tmp_path / "held-back.txt"
    calibration.write_text("\n".join(json.dumps({"text": "one two three four " * 40}) for _ in range(20)))
    evaluation.write_text("five six seven eight nine ten " * 200)
    config = replace(
        SMALL,
        calibrate=replace(SMALL.calibrate, text=str(calibration)),
        evaluate=replace(SMALL.evaluate, text=str(evaluation)),
    )
    artifact = Artifact.open(build_model(str(checkpoint), tmp_path / "out", config))
    assert artifact.edge["evaluation"]["text"] == "held-back.txt"


@pytest.mark.parametrize("text", ["missing.txt", "short.txt", "broken.jsonl"])
def test_a_text_that_cannot_be_used_is_one_clear_error(text: str, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("one")
    (tmp_path / "broken.jsonl").write_text('{"words": 1}\n')
    config = replace(SMALL, calibrate=replace(SMALL.calibrate, text=str(tmp_path / text)))
    with pytest.raises(ModelError, match=text):
        build_model(str(checkpoint), tmp_path / "out", config)
    assert not (tmp_path / "out" / "model.edge").exists()


def test_an_unknown_method_is_named_with_those_that_exist(checkpoint: Path, tmp_path: Path) -> None:
    config = replace(SMALL, allocate=AllocateConfig(method="magic"))
    with pytest.raises(UsageError, match="measured, uniform, block-influence"):
        build_model(str(checkpoint), tmp_path / "out", config)
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_tiny_llama(folder, vocab_size=280)
    write_tokenizer(folder, 320)
    with pytest.raises(ModelError, match="320 tokens, the embedding 280 rows"):
        build_model(str(folder), tmp_path / "out", SMALL)


def test_weights_that_are_not_numbers_stop_the_build(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = np.nan
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ModelError, match=r"up_proj|not finite"):
        build_model(str(folder), tmp_path / "out", SMALL)
    assert not (tmp_path / "out" / "model.edge").exists()
