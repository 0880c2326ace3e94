"""`edgesdk eval`: its figures are those that transformers and the engine's logits give by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_llama import TEXT, write_tiny_llama

import edgesdk
from edgesdk.cli import main
from edgesdk.cloud import evaluate
from edgesdk.cloud.build import build_model
from edgesdk.cloud.config import AllocateConfig, BuildConfig, CalibrateConfig, EvaluateConfig, TuneConfig

WINDOWS, TOKENS = 3, 32


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path, torch.nn.Module]:
    """A built artifact, its source folder, a text of three windows, and the source in transformers."""
    folder = tmp_path_factory.mktemp("eval")
    source = write_tiny_llama(folder / "model", initializer_range=0.06)  # small weights: attention is not chaotic
    config = BuildConfig(
        calibrate=CalibrateConfig(n_windows=8, window_tokens=64),
        allocate=AllocateConfig(method="uniform", max_rate=0.3, step=0.3),
        tune=TuneConfig(wide_share=0.0),
        evaluate=EvaluateConfig(n_windows=1, window_tokens=32),
    )
    path = build_model(str(folder / "model"), folder / "out", config)
    text = folder / "text.txt"
    tokenizer = edgesdk.load(path)
    words = TEXT
    while len(tokenizer.tokenize(words)) < WINDOWS * TOKENS:
        words += TEXT
    text.write_text(tokenizer.detokenize(tokenizer.tokenize(words)[: WINDOWS * TOKENS]))
    return path, folder / "model", text, source


def by_hand(path: Path, level: int, source: torch.nn.Module, text: Path) -> tuple[float, float, float]:
    """Perplexity, KL and top-1 agreement of one level."""
    engine = edgesdk.load(path, level=level)
    tokens = torch.tensor(engine.tokenize(text.read_text())[: WINDOWS * TOKENS]).reshape(WINDOWS, TOKENS)
    own = source(tokens).logits.double().log_softmax(-1)[:, :-1]
    logits = np.stack([engine.logits(window) for window in tokens.tolist()])
    level_log = torch.from_numpy(logits).double().log_softmax(-1)[:, :-1]
    loss = -level_log.gather(-1, tokens[:, 1:, None]).mean()
    kl = (own.exp() * (own - level_log)).sum(-1).mean()
    same = (own.argmax(-1) == level_log.argmax(-1)).double().mean()
    return float(loss.exp()), float(kl), float(same)


@torch.inference_mode()
def test_json_has_the_figures_computed_by_hand(model, capsys):
    path, folder, text, source = model
    arguments = ["eval", str(path), "--text", str(text), "--source", str(folder)]
    assert main([*arguments, "--windows", str(WINDOWS), "--window-tokens", str(TOKENS), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["n_tokens"] == WINDOWS * TOKENS
    assert [row["index"] for row in report["levels"]] == [0, 1]
    for row in report["levels"]:
        perplexity, kl, top1 = by_hand(path, row["index"], source, text)
        assert row["ppl"] == pytest.approx(perplexity, rel=1e-5)
        assert row["kl"] == pytest.approx(kl, rel=1e-3)
        assert row["top1"] == pytest.approx(top1)
        assert 0.05 < row["top1"] < 1
        assert row["file_bytes"] > row["mapped_bytes"]


def test_the_table_shows_agreement_as_a_share(model, capsys):
    path, folder, text, _ = model
    arguments = ["eval", str(path), "--text", str(text), "--windows", str(WINDOWS), "--window-tokens", str(TOKENS)]
    assert main([*arguments, "--source", str(folder), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["levels"]
    assert main([*arguments, "--source", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[-1] == "top-1"
    assert [line.split()[-1] for line in lines[2:]] == [f"{row['top1']:.1%}" for row in rows]


def test_without_a_source_there_is_no_agreement(model, capsys):
    path, _, text, _ = model
    arguments = ["eval", str(path), "--text", str(text), "--windows", "1", "--window-tokens", "32"]
    assert main([*arguments, "--json"]) == 0
    assert [(row["kl"], row["top1"]) for row in json.loads(capsys.readouterr().out)["levels"]] == [(None, None)] * 2
    assert main(arguments) == 0
    assert [line.split()[-2:] for line in capsys.readouterr().out.splitlines()[2:]] == [["-", "-"]] * 2


def test_the_stated_figures_come_out_again(model, capsys):
    """On the tokens that the build kept, what the header states is what is measured."""
    path, folder, _, _ = model
    arguments = ["eval", str(path), "--text", str(path.parent / "evaluation.json"), "--source", str(folder)]
    assert main([*arguments, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["levels"]
    assert len(rows) == 2
    for row in rows:
        assert row["ppl"] == pytest.approx(row["stated_ppl"], rel=1e-9)
        assert row["kl"] == pytest.approx(row["stated_kl"], rel=1e-6)
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[-4:] == ["stated", "ppl", "stated", "kl"]
    assert lines[2].split()[4] == lines[2].split()[-2]


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"windows": [[1, 2], [3]]}', "no JSON file of token windows"), ('{"windows": [[1, 99999]]}', "ids below")],
)
def test_windows_that_are_none_are_refused(model, tmp_path, capsys, text, message):
    path, *_ = model
    windows = tmp_path / "windows.json"
    windows.write_text(text)
    assert main(["eval", str(path), "--text", str(windows)]) in (1, 2)
    assert message in capsys.readouterr().err


def test_a_model_that_predicts_nothing_has_a_perplexity_that_a_header_can_hold() -> None:
    assert evaluate._perplexity(2.0) == pytest.approx(math.exp(2.0))
    assert math.isfinite(evaluate._perplexity(5000.0))
