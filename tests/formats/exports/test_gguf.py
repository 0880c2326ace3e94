"""GGUF: the values that the file holds are the level's, by llama.cpp's graphs in NumPy and by llama.cpp where it is."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import gguf
import numpy as np
import pytest
import sentencepiece
from export_models import FULL, KINDS, LEVELS, VOCAB_SIZE, export_request, oracle, run_check, write_export_model
from gguf_model import GgufModel
from tiny_llama import TEXT
from tiny_model import tiny_config, write_random_artifact

from edgesdk.cloud.export import level_tokenizer
from edgesdk.cloud.tokenizer import import_tokenizer, to_tokenizers
from edgesdk.errors import EdgeError
from edgesdk.formats import Artifact
from edgesdk.formats.exports import find_format
from edgesdk.formats.exports.gguf import FILE
from edgesdk.formats.exports.llama_cpp import VARIABLE, find_llama_cpp

TOKENS = np.random.default_rng(2).integers(0, VOCAB_SIZE, 20).tolist()


@pytest.fixture(scope="module", params=KINDS)
def artifact(request, tmp_path_factory) -> Path:
    return write_export_model(tmp_path_factory.mktemp("gguf") / "tiny.edge", request.param)


def written(artifact: Path, level: int, weights: str, folder: Path) -> tuple[GgufModel, list[str]]:
    folder.mkdir()
    remarks = find_format("gguf")[0].write(export_request(artifact, level, weights), folder)
    return GgufModel(folder / FILE), remarks


@pytest.mark.parametrize("level", LEVELS)
def test_the_file_holds_the_level(artifact, level, tmp_path):
    model, _ = written(artifact, level, "float", tmp_path / "out")
    wanted = oracle(artifact, level)(TOKENS)
    assert np.abs(model.logits(TOKENS) - wanted).max() < 1e-4 * np.abs(wanted).max()
    assert set(model.types.values()) == {"F32"}
    assert model.architecture == ("llama" if level == FULL else "deci")


def test_it_says_which_axes_were_kept_full_and_why(artifact, tmp_path):
    model, remarks = written(artifact, 0, "float", tmp_path / "small")
    assert [model.of_layer("feed_forward_length", i) for i in range(3)] == [64, 32, 32]
    assert [model.of_layer("attention.head_count", i) for i in range(3)] == [4, 1, 4]
    assert len(remarks) == 4
    assert "axis qk was kept full (32 per head, zeros where cut) in 2 of 3 layers" in remarks[0]
    assert "one head size for all layers" in remarks[0]
    assert "axis vo was kept full" in remarks[1]
    assert "1 dropped attentions" in remarks[2]
    assert "1 dropped MLPs" in remarks[3]
    assert written(artifact, FULL, "float", tmp_path / "full")[1] == []


@pytest.mark.parametrize(
    ("weights", "blocks", "embedding"),
    [("iq4_nl", "IQ4_NL", "Q8_0"), ("q4_0", "Q4_0", "Q8_0"), ("q8_0", "Q8_0", "Q8_0")],
)
def test_matrices_are_quantized_and_vectors_are_not(artifact, weights, blocks, embedding, tmp_path):
    model, _ = written(artifact, 1, weights, tmp_path / "out")
    matrices = {name: kind for name, kind in model.types.items() if model.tensors[name].ndim == 2}
    assert matrices.pop("token_embd.weight") == embedding
    assert matrices.pop("output.weight", embedding) == embedding
    assert set(matrices.values()) == {blocks}
    assert {kind for name, kind in model.types.items() if model.tensors[name].ndim == 1} == {"F32"}
    exact, _ = written(artifact, 1, "float", tmp_path / "float")
    name = "blk.0.ffn_down.weight"
    error = np.abs(model.tensors[name] - exact.tensors[name]).max()
    assert 0 < error < 0.15 * np.abs(exact.tensors[name]).max()


def test_a_table_of_values_loses_less_than_even_steps(artifact, tmp_path):
    """Random weights of the artifact lie on a grid whose points are further apart at its ends, as IQ4_NL's are."""
    models = {name: written(artifact, FULL, name, tmp_path / name)[0] for name in ("float", "iq4_nl", "q4_0")}
    errors = {
        name: sum(
            float(np.square(model.tensors[key] - exact).sum())
            for key, exact in models["float"].tensors.items()
            if key.startswith("blk.") and exact.ndim == 2
        )
        for name, model in models.items()
    }
    assert 0 < errors["iq4_nl"] < 0.7 * errors["q4_0"]


def test_frequencies_that_follow_no_theta_are_written_one_by_one(tmp_path):
    config = tiny_config(n_layers=1)
    attention = config.blocks[0]
    scaled = tuple(f / (4 if i > 8 else 1) for i, f in enumerate(attention.inv_freq))
    blocks = (type(attention)(**{**vars(attention), "inv_freq": scaled}), config.blocks[1])
    config = type(config)(**{**vars(config), "blocks": blocks})
    path = tmp_path / "tiny.edge"
    write_random_artifact(path, config, [((16, 16), (96,)), ((32, 32), (160,))])
    for level in (0, 1):
        model, _ = written(path, level, "float", tmp_path / f"out{level}")
        assert model.tensors["rope_freqs.weight"].max() > 3.9
        tokens = [token % config.vocab_size for token in TOKENS]
        wanted = oracle(path, level)(tokens)
        assert np.abs(model.logits(tokens) - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_the_tokenizer_is_the_artifacts(artifact, tmp_path):
    model, _ = written(artifact, FULL, "float", tmp_path / "out")
    tokens = model.fields["tokenizer.ggml.tokens"]
    assert len(tokens) == len(model.fields["tokenizer.ggml.token_type"]) == VOCAB_SIZE
    assert tokens[:3] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert tokens[-1] == f"[PAD{VOCAB_SIZE - 1}]"
    assert model.fields["tokenizer.ggml.model"] == "gpt2"
    assert model.fields["tokenizer.ggml.pre"] == "gpt-2"
    assert model.fields["tokenizer.ggml.eos_token_id"] == 2
    assert len(set(tokens)) == len(tokens)
    left, right = model.fields["tokenizer.ggml.merges"][0].split(" ")
    assert left + right in tokens


SAMPLES = [
    "Numbers such as 3, 14 and 159 occur.",
    'so do "quotes",  two  spaces, (brackets)',
    "naïve words, emoji: 🙂🚀",
]


def test_the_tokenizer_can_be_read_again(artifact, tmp_path):
    written(artifact, FULL, "float", tmp_path / "out")
    own, again = level_tokenizer(Artifact.open(artifact)), import_tokenizer(tmp_path / "out" / FILE)
    assert own is not None
    assert {name: again.header[name] for name in ("model", "pre_tokenizer", "bos_id", "eos_ids", "add_bos")} == {
        name: own.header[name] for name in ("model", "pre_tokenizer", "bos_id", "eos_ids", "add_bos")
    }
    assert np.array_equal(
        again.tensors["tokenizer.merges"][:, [0, 1, 3]], own.tensors["tokenizer.merges"][:, [0, 1, 3]]
    )
    assert again.chat_template is None  # this request had none
    for sample in SAMPLES:
        assert to_tokenizers(again).encode(sample).ids == to_tokenizers(own).encode(sample).ids


def test_sentencepiece_scores_merge_in_the_same_order(tmp_path):
    (tmp_path / "text").write_text(TEXT * 20, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "sp"), vocab_size=400, model_type="bpe",
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=3,
    )  # fmt: skip
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "sp.model"))
    ids = range(theirs.get_piece_size())
    kinds = [2 if theirs.is_unknown(i) else 3 if theirs.is_control(i) else 6 if theirs.is_byte(i) else 1 for i in ids]
    writer = gguf.GGUFWriter(str(tmp_path / "sp.gguf"), "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([theirs.id_to_piece(i) for i in ids])
    writer.add_token_scores([theirs.get_score(i) for i in ids])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    imported = import_tokenizer(tmp_path / "sp.gguf")
    config = tiny_config(n_layers=1, vocab_size=410)
    tokenizer = (dict(imported.header), dict(imported.tensors))
    write_random_artifact(tmp_path / "tiny.edge", config, [((32, 32), (160,))], tokenizer=tokenizer)
    model, _ = written(tmp_path / "tiny.edge", 0, "float", tmp_path / "out")
    assert model.fields["tokenizer.ggml.model"] == "llama"
    assert model.fields["tokenizer.ggml.tokens"][:400] == [theirs.id_to_piece(i) for i in ids]
    again = to_tokenizers(import_tokenizer(tmp_path / "out" / FILE))
    for sample in SAMPLES:
        assert again.encode(sample).ids == [1, *theirs.encode(sample)]


def llama_cpp() -> Path:
    """The tree that LLAMA_CPP names, or the one that the benchmarks build."""
    built = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "peer.py"))["peer_folder"]
    return Path(os.environ.get(VARIABLE) or built())


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("weights", ["float", "q8_0", "iq4_nl"])
def test_llama_cpp_runs_it(artifact, level, weights, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(llama_cpp()))
    if find_llama_cpp() is None:
        pytest.skip("no built llama.cpp: set LLAMA_CPP, or run benchmarks/peer.py")
    found = run_check(artifact, level, "gguf", weights, tmp_path / "out")
    if weights == "float":
        assert found.max_error < 1e-4 * found.max_logit
        assert found.ours == found.theirs
    else:
        assert found.max_error < {"q8_0": 0.1, "iq4_nl": 0.35}[weights] * found.max_logit
    assert found.tokens_per_s > 0


def test_without_llama_cpp_the_check_says_how_to_get_it(artifact, tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(EdgeError, match="LLAMA_CPP is not set") as caught:
        run_check(artifact, 0, "gguf", "float", tmp_path / "out")
    assert "cmake --build build" in caught.value.hint
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(EdgeError, match="has none"):
        run_check(artifact, 0, "gguf", "float", tmp_path / "again")
