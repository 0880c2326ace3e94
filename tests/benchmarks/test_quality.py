"""The quality benchmark: scorers agree, verdicts follow from sizes and scores, exports say what was trained."""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from reference_model import ReferenceModel
from tiny_llama import TEXT, VARIANTS, write_tiny_llama

from edgesdk.cloud.build import build_model
from edgesdk.cloud.checkpoint import open_checkpoint
from edgesdk.cloud.config import AllocateConfig, BuildConfig, CalibrateConfig, EvaluateConfig, TuneConfig
from edgesdk.cloud.evaluate import evaluate_levels
from edgesdk.cloud.export import level_decoder
from edgesdk.cloud.families import load_model
from edgesdk.cloud.tokenizer import import_tokenizer, to_tokenizers
from edgesdk.formats import Artifact

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = BuildConfig(
    calibrate=CalibrateConfig(n_windows=8, window_tokens=64),
    allocate=AllocateConfig(method="uniform", max_rate=0.4, step=0.2),
    tune=TuneConfig(wide_share=0.0, n_epochs=0),
    evaluate=EvaluateConfig(n_windows=1, window_tokens=32),
)


@pytest.fixture(scope="module")
def module():
    """Imports a module of benchmarks/ by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module


@pytest.fixture(scope="module", params=["plain", "biases"])
def built(request, tmp_path_factory) -> tuple[Path, Path]:
    """A checkpoint's folder, and its artifact."""
    folder = tmp_path_factory.mktemp("quality")
    write_tiny_llama(folder / "model", initializer_range=0.06, intermediate_size=192, **VARIANTS[request.param])
    return folder / "model", build_model(str(folder / "model"), folder, SMALL)


@pytest.fixture(scope="module")
def windows() -> torch.Tensor:
    return torch.randint(3, 320, (3, 40), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("level", [0, 2])
def test_a_stored_level_is_the_model_that_the_artifact_means(module, built, windows, level) -> None:
    _, path = built
    decoder = level_decoder(Artifact.open(path), level)
    wanted = ReferenceModel(path, level, float_activations=True).logits(windows[0].tolist())
    with torch.inference_mode():
        assert np.allclose(decoder.forward(windows[:1])[0].numpy(), wanted, rtol=1e-3, atol=1e-4)


def test_both_scorers_agree_on_the_source_and_on_a_level(module, built, windows, tmp_path) -> None:
    folder, path = built
    scores = module("scores")
    source = scores.StoredSource.compute(folder, windows, tmp_path, str)
    decoder = scores.open_decoder(folder)
    (level,), by_engine = evaluate_levels(path, [1], windows, source)
    own = scores.score_decoder(decoder, source)
    assert own.perplexity == pytest.approx(by_engine, rel=1e-5) == pytest.approx(source.perplexity, rel=1e-5)
    assert own.kl < 1e-6
    assert own.top1 == 1
    float_level = scores.score_decoder(level_decoder(Artifact.open(path), 1), source)
    assert float_level.perplexity == pytest.approx(level.perplexity, rel=0.01)  # the engine's activations are integers
    assert float_level.kl == pytest.approx(level.kl, rel=0.1)
    assert float_level.top1 == pytest.approx(level.top1, abs=0.1)
    assert float_level.kl > 1e-4


def test_the_source_is_run_once_and_found_again(module, built, windows, tmp_path) -> None:
    folder, _ = built
    scores = module("scores")
    said: list[str] = []
    first = scores.StoredSource.compute(folder, windows, tmp_path, said.append)
    again = scores.StoredSource.compute(folder, windows, tmp_path, said.append)
    assert len(said) == 1
    assert torch.equal(first.log_probabilities, again.log_probabilities)
    assert torch.equal(first.final_states(windows[2:], 1), first.log_probabilities[2:])
    with pytest.raises(ValueError, match="another order"):
        first.final_states(windows.flip(0), 1)
    scores.StoredSource.compute(folder, windows[:2], tmp_path, said.append)
    assert len(said) == 2


def point(module, ladder: str, name: str, size: int, perplexity: float, kl: float):
    return module("verdicts").Point(ladder, name, size, size + 100, module("scores").Score(perplexity, kl, 0.5))


def test_a_verdict_takes_the_best_level_that_maps_no_more(module) -> None:
    verdicts = module("verdicts")
    ladder = [
        point(module, "ours", "level 0", 50, 40.0, 0.5),
        point(module, "ours", "level 1", 80, 30.0, 0.2),
        point(module, "ours", "level 2", 81, 29.0, 0.3),  # bigger, and further from the source
        point(module, "ours", "level 3", 100, 25.0, 0.1),
    ]
    peers = [
        point(module, "peer", size_name, size, perplexity, 0.2)
        for size_name, size, perplexity in (
            ("big", 200, 24.0),
            ("equal", 100, 25.0),
            ("between", 99, 30.5),
            ("small", 50, 39.0),
            ("tiny", 49, 90.0),
        )
    ]
    judged = {verdict.peer.name: verdict for verdict in verdicts.judge(peers, ladder)}
    assert {name: v.level and v.level.name for name, v in judged.items()} == {
        "big": "level 3",
        "equal": "level 3",
        "between": "level 1",
        "small": "level 0",
        "tiny": None,
    }
    passed = {name: v.passed for name, v in judged.items()}
    assert passed == {"big": False, "equal": True, "between": True, "small": False, "tiny": None}
    assert judged["tiny"].line().endswith("no level of ours is that small")
    assert judged["big"].line().endswith("FAIL")
    assert judged["equal"].line().endswith("pass")
    figures = module("quality").figures(list(judged.values()), "command")
    assert [figure.ratio >= figure.target for figure in figures] == [False, True, True, False]
    assert [p.name for p in verdicts.sizes_without_rival(peers[:3], ladder)] == ["level 0", "level 1", "level 2"]


def test_our_kl_is_set_against_uniqls_recipe_at_equal_bytes(module) -> None:
    recipe = [
        replace(point(module, "uniql", f"level {i}", 50 + i, 40.0, 0.9 - 0.1 * i), rate=0.4 - 0.05 * i)
        for i in range(9)
    ]
    ours = [point(module, "default", f"level {i}", 49 + 2 * i, 30.0, 0.3 - 0.05 * i) for i in range(6)]
    figures = module("quality").uniql_figures([ours, recipe], "command")
    # Rates 0.05, 0.15, 0.25, 0.35 are levels 7, 5, 3, 1 of 57, 55, 53, 51 bytes: levels 4, 3, 2, 1 of ours fit.
    assert [(round(f.ours, 3), round(f.peer, 3)) for f in figures] == [(0.1, 0.2), (0.15, 0.4), (0.2, 0.6), (0.25, 0.8)]
    assert [f.ratio >= f.target for f in figures] == [True] * 4
    assert module("quality").uniql_figures([ours], "command") == []


def test_a_gap_is_measured_at_equal_bytes(module) -> None:
    growth = module("growth")
    free = [
        point(module, "free", f"level {i}", size, perplexity, 0.1)
        for i, (size, perplexity) in enumerate(((50, 40.0), (100, 10.0)))
    ]
    assert module("verdicts").perplexity_at(free, 75) == pytest.approx(20)
    assert module("verdicts").perplexity_at(free, 10) == 40
    limited = [
        replace(point(module, "limited", "level 0", 75, 22.0, 0.1), rate=0.5),
        point(module, "limited", "level 1", 100, 10.0, 0.1),
    ]
    figures = growth.compare({0.6: limited, 0.3: limited, growth.UNLIMITED: free})
    assert [f.ratio for f in figures] == [pytest.approx(r) for r in (20 / 22, 1.0, 20 / 22, 1.0)]
    assert [f.target for f in figures] == [growth.TARGET, growth.FULL_TARGET, None, None]


def test_a_peers_file_says_where_its_blocks_do_not_fit(module, tmp_path) -> None:
    path = tmp_path / "Q4_K_M.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    kinds = gguf.GGMLQuantizationType
    for name, columns, kind in (("blk.0.attn_q", 64, kinds.Q5_0), ("blk.0.ffn_down", 256, kinds.Q4_0)):
        values = np.random.default_rng(0).normal(size=(16, columns)).astype(np.float32)
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.add_tensor("output_norm.weight", np.ones(64, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = module("peer_quants").PeerFile("Q4_K_M", path)
    assert file.types == {"Q5_0": 1, "Q4_0": 1}
    assert file.fallbacks == {"Q5_0": 1}
    assert file.tensor_bytes == 16 * 64 // 32 * 22 + 16 * 256 // 32 * 18 + 64 * 4
    assert file.file_bytes == path.stat().st_size > file.tensor_bytes
    assert module("peer_quants").PeerFile("Q4_0", path).fallbacks == {}


def test_the_picture_is_written(module, tmp_path) -> None:
    ladder = [point(module, "ours", f"level {i}", 50_000_000 + 10_000_000 * i, 40.0 - 5 * i, 0.1) for i in range(3)]
    peers = [point(module, "peer", f"Q{i}", 60_000_000 + 100_000 * i, 35.0 + i, 0.1) for i in range(4)]
    module("quality_plot").draw(tmp_path / "quality.png", peers, [ladder], 24.0, "a title")
    assert (tmp_path / "quality.png").read_bytes().startswith(b"\x89PNG")


def test_the_whole_report_of_a_small_model(module, built, windows, tmp_path, monkeypatch) -> None:
    folder, path = built
    quality, scores = module("quality"), module("scores")
    monkeypatch.setattr(module("figures"), "BENCH", tmp_path)
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    subject = quality.Subject("tiny", folder, text, text, windows.shape[1], {"from": "a test"})
    source = scores.StoredSource.compute(folder, windows, tmp_path, str)
    ladder = quality.our_points("ours", path, source)
    sizes = [level.mapped_bytes for level in Artifact.open(path).levels]
    assert [level.mapped_bytes for level in ladder] == sizes
    peers = [replace(point(module, "llama.cpp", "Q4_0", sizes[1], 1e9, 0.2), types={"Q4_0": 15})]
    check = quality.cross_check(path, ladder[-1], subject, source)
    assert check["engine over dequantized, perplexity"] == pytest.approx(1, abs=0.02)
    quality.report(subject, tmp_path, peers, [ladder], source, check)
    (figure,) = json.loads((tmp_path / "quality-tiny.json").read_text())
    assert (figure["ours"], figure["peer"]) == (min(ladder[:2], key=lambda p: p.score.kl).score.perplexity, 1e9)
    points = json.loads((tmp_path / "points.json").read_text())
    assert [p["name"] for p in points["points"]] == ["Q4_0", "level 0", "level 1", "level 2"]
    assert "levels of ours that are smaller than anything of the peer: 1, down to" in points["verdicts"][-1]
    assert (tmp_path / "quality.png").is_file()


@pytest.fixture(scope="module")
def trained(module, tmp_path_factory) -> tuple[Path, dict]:
    """A model of two steps on a short text."""
    train, text = module("train_model"), module("debian_text").DebianText
    settings = train.Training(64, 96, 2, 16, 2, 300, 32, 2, steps=2)
    folder = tmp_path_factory.mktemp("trained")
    said: list[str] = []
    details = train.train_bench_model(text("a-package", "1.0", "0" * 64, TEXT * 5, TEXT), settings, folder, said.append)
    return folder, details


def test_the_trained_model_and_its_gguf_are_the_same_checkpoint(trained) -> None:
    folder, details = trained
    hf, exported = open_checkpoint(str(folder / "hf")), open_checkpoint(str(folder / "model-f32.gguf"))
    assert load_model(hf).blocks == load_model(exported).blocks
    eps = load_model(hf).norm_eps
    assert load_model(exported).norm_eps == pytest.approx(eps, rel=1e-6)  # GGUF has it in float32
    assert replace(load_model(hf), name="") == replace(load_model(exported), name="", norm_eps=eps)
    assert set(exported.names) <= set(hf.names)
    for name in exported.names:
        assert torch.equal(hf.tensor(name), exported.tensor(name)), name
    ours, theirs = (
        to_tokenizers(import_tokenizer(checkpoint.tokenizer_files, chat_template=None)) for checkpoint in (hf, exported)
    )
    assert ours.encode(TEXT).ids == theirs.encode(TEXT).ids
    assert ours.decode(theirs.encode(TEXT).ids) == TEXT
    assert details["text"] == {"debian_package": "a-package", "version": "1.0", "sha256": "0" * 64}
    assert 0 < details["training_loss"] < math.log(300) + 1


def test_the_trained_models_gguf_compiles(trained, tmp_path) -> None:
    folder, _ = trained
    path = build_model(str(folder / "model-f32.gguf"), tmp_path, SMALL)
    assert Artifact.open(path).edge["model"]["vocab_size"] == 300


def test_a_debian_package_is_split_by_files(module, tmp_path, monkeypatch) -> None:
    debian = module("debian_text")

    def unpack(command, check):
        for i in range(25):
            data = f"# Page {i}\n\nWords with a [link](http://example.org/{i}) on\ntwo lines.\n"
            (Path(command[3]) / f"page{i:02d}.md.gz").write_bytes(debian.gzip.compress(data.encode()))

    (tmp_path / "some_1.2-3_all.deb").write_bytes(b"a package")
    monkeypatch.setattr(debian.subprocess, "run", unpack)
    text = debian.read_debian_text(tmp_path, "some")
    assert text.version == "1.2-3"
    assert text.held_out == "# Page 10\n\nWords with a link on two lines."
    assert "# Page 11\n\nWords with a link on two lines." in text.training
    assert "Page 10" not in text.training
