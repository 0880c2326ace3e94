"""Levels on their way to other runtimes: the modules that exporters trace, folders that appear whole, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from export_models import FULL, KINDS, LEVELS, VOCAB_SIZE, oracle, write_export_model
from tiny_model import nested_ladder, tiny_config, tiny_ssm_config, write_random_artifact

from edgesdk.cloud.export import export_level, level_decoder, level_texts, reference_logits
from edgesdk.cloud.export_module import BufferedDecoder, FunctionalDecoder
from edgesdk.errors import EdgeError, MissingExtraError, UsageError
from edgesdk.formats import Artifact
from edgesdk.formats.exports import FORMATS, check, hf, open_level_model
from edgesdk.formats.exports.level_model import geometric_theta, pair_places

TOKENS = np.random.default_rng(3).integers(0, VOCAB_SIZE, 20).tolist()


@pytest.fixture(scope="module", params=KINDS)
def artifact(request, tmp_path_factory) -> Path:
    return write_export_model(tmp_path_factory.mktemp("export") / "tiny.edge", request.param)


@pytest.fixture(scope="module")
def tied(tmp_path_factory) -> Path:
    return write_export_model(tmp_path_factory.mktemp("export") / "tiny.edge", "tied")


@pytest.mark.parametrize("level", LEVELS)
def test_the_decoders_compute_the_level(artifact, level):
    wanted = oracle(artifact, level)(TOKENS)
    near = {"rtol": 0, "atol": 1e-5 * float(np.abs(wanted).max())}
    opened = Artifact.open(artifact)
    assert np.allclose(reference_logits(opened, level)(TOKENS), wanted, **near)
    model = open_level_model(opened, level)
    with torch.inference_mode():
        for parts in ([20], [1] * 20, [7, 1, 1, 11], [19, 1]):
            buffered, functional = BufferedDecoder(model, 32), FunctionalDecoder(model, 32)
            caches, begin = functional.empty_caches(), 0
            for size in parts:
                tokens = torch.tensor([TOKENS[begin : begin + size]])
                begin += size
                places = torch.arange(begin - size, begin)
                own = buffered(tokens, places)
                assert np.allclose(own[0, 0].numpy(), wanted[begin - 1], **near)
                returned = functional(tokens, places, caches)
                caches = returned["kv_cache"]
                assert ("logits" in returned) == (size == 1)
                if size == 1:
                    assert np.allclose(returned["logits"][0, 0].numpy(), wanted[begin - 1], **near)


def test_a_text_that_begins_anew_does_not_see_the_one_before(artifact):
    model = open_level_model(Artifact.open(artifact), FULL)
    decoder = BufferedDecoder(model, 32)
    with torch.inference_mode():
        first = decoder(torch.tensor([TOKENS[:5]]), torch.arange(5)).clone()
        decoder(torch.tensor([TOKENS]), torch.arange(20))
        assert torch.equal(decoder(torch.tensor([TOKENS[:5]]), torch.arange(5)), first)


def test_pairs_find_their_places_and_equal_ones_do_not_share_them():
    natural = np.array([1, 0.5, 0.5, 0.25, 0, 0], np.float32)
    assert pair_places(np.array([0.5, 0, 0.5, 1, 0], np.float32), natural).tolist() == [1, 4, 2, 0, 5]
    with pytest.raises(UsageError, match="rotary frequencies"):
        pair_places(np.array([0.3], np.float32), natural)
    with pytest.raises(UsageError, match="rotary frequencies"):
        pair_places(np.array([0, 0, 0], np.float32), natural)


def test_theta_is_found_where_frequencies_follow_one():
    for theta in (10000.0, 500000.0, 1234.5):
        frequencies = (theta ** (-np.arange(32) / 32)).astype(np.float32)
        assert geometric_theta(frequencies) == pytest.approx(theta, rel=1e-4)
    assert geometric_theta((100000.0 ** (-np.arange(32) / 32)).astype(np.float32)) == 100000.0
    frequencies[20:] /= 8
    assert geometric_theta(frequencies) is None


def test_an_export_with_a_check(artifact, tmp_path):
    done = export_level(artifact, 1, "hf", tmp_path / "out", check=True)
    assert done.agreement is not None
    assert done.agreement.max_error < 1e-5 * done.agreement.max_logit
    assert len(done.agreement.ours) == 32
    assert done.agreement.ours == done.agreement.theirs
    assert done.agreement.n_tokens == 512 or done.agreement.n_tokens > 100
    assert done.n_bytes == sum(file.stat().st_size for file in (tmp_path / "out").iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert all(json.loads(text) for text in level_texts(artifact, done.agreement.ours))


def test_what_compare_finds():
    """Against figures by hand: a runtime that adds 1 to one logit."""
    wanted = np.log(np.array([[0.5, 0.25, 0.25]], np.float32))

    class Off:
        name = "off"

        def step(self, tokens, position):
            return wanted[0] + np.array([0, 1, 0], np.float32)

    found = check.compare(lambda tokens: np.repeat(wanted, len(tokens), 0), Off(), [0, 1], [0], 3)
    total = 0.5 + 0.25 * np.e + 0.25
    kl = 0.5 * np.log(total) + 0.25 * np.log(total / np.e) + 0.25 * np.log(total)
    assert found.kl == pytest.approx(kl, rel=1e-6)
    assert found.max_error == pytest.approx(1)
    assert found.top1 == 0
    assert (found.ours, found.theirs) == ([0, 0, 0], [1, 1, 1])


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"to": "coreml"}, "no export is called `coreml`", "executorch"),
        ({"weights": "int3"}, "hf stores no weights as `int3`", "float"),
        ({"level": 3}, "level 3 does not exist", "levels are 0..2"),
        ({"context": 9999}, "a context of 9999 tokens", "1 to 512"),
        ({"context": 8, "check": True}, "too short for the check", "--context"),
    ],
)
def test_what_cannot_be_is_refused(tied, options, message, hint, tmp_path):
    options = {"level": 0, "to": "hf", **options}
    with pytest.raises(UsageError, match=message) as caught:
        export_level(tied, options.pop("level"), options.pop("to"), tmp_path / "out", **options)
    assert hint in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(tied, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        export_level(tied, 0, "hf", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_error(tied, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(EdgeError, match="could not write"):
        export_level(tied, 0, "hf", tmp_path / "file" / "out")


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_half_written_stays(tied, failure, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(hf, "write_tokenizer", fail)
    with pytest.raises((EdgeError, KeyboardInterrupt)) as caught:
        export_level(tied, 0, "hf", tmp_path / "out")
    assert isinstance(failure, KeyboardInterrupt) or "No space left" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_check_that_cannot_be_made_is_refused_before_anything_is_written(tied, tmp_path, monkeypatch):
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.setattr("edgesdk.formats.exports.gguf.write", lambda *_: pytest.fail("it was written"))
    with pytest.raises(EdgeError, match="checking a GGUF file needs a built"):
        export_level(tied, 0, "gguf", tmp_path / "out", check=True)


@pytest.mark.parametrize("name", [one.name for one in FORMATS])
def test_a_missing_extra_is_named(tied, name, tmp_path, monkeypatch):
    def absent(module: str) -> object:
        raise ModuleNotFoundError(f"No module named '{module}'", name=module.split(".")[0])

    monkeypatch.setattr("edgesdk.formats.exports.output.importlib.import_module", absent)
    with pytest.raises(MissingExtraError, match=f"exporting to {name} needs") as caught:
        export_level(tied, 0, name, tmp_path / "out")
    assert caught.value.hint == f"pip install 'edgesdk[{name}]'"
    assert list(tmp_path.iterdir()) == []


def test_every_format_has_an_extra():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
    for one in FORMATS:
        assert f'\n{one.name} = ["edgesdk[cloud]"' in text


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (tiny_config(norms=("qk_norm", "post_norm")), "qk_norm, post_norm"),
        (tiny_config(windows=(16, None), softcap=20.0), "window, softcap"),
        (tiny_config(activation="gelu_tanh", logit_softcap=30.0), "gated by silu, logit_softcap"),
        (tiny_ssm_config(), "ssm blocks"),
    ],
)
def test_models_that_exporters_do_not_know_are_refused(config, found, tmp_path):
    write_random_artifact(tmp_path / "tiny.edge", config, nested_ladder(config))
    with pytest.raises(UsageError, match=found) as caught:
        export_level(tmp_path / "tiny.edge", 0, "gguf", tmp_path / "out")
    assert "llama-like decoders" in caught.value.hint


def test_the_reference_takes_all_attention_models(tmp_path):
    """Not only what exporters know: benchmarks score any family with it."""
    config = tiny_config(norms=("qk_norm", "post_norm"), windows=(8, None), logit_softcap=30.0)
    write_random_artifact(tmp_path / "tiny.edge", config, nested_ladder(config))
    for level in range(3):
        with torch.inference_mode():
            found = level_decoder(Artifact.open(tmp_path / "tiny.edge"), level).forward(
                torch.tensor([TOKENS[:16]]) % 300
            )
        wanted = oracle(tmp_path / "tiny.edge", level)([token % 300 for token in TOKENS[:16]])
        assert np.allclose(found[0].numpy(), wanted, atol=1e-4 * np.abs(wanted).max())
