"""Hugging Face folders: transformers computes what the oracle does at each level, in batches and with a cache."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from export_models import FULL, KINDS, LEVELS, VOCAB_SIZE, export_request, oracle, run_check, write_export_model

from edgesdk.formats.exports import find_format


@pytest.fixture(scope="module", params=KINDS)
def artifact(request, tmp_path_factory) -> Path:
    return write_export_model(tmp_path_factory.mktemp("hf") / "tiny.edge", request.param)


def loaded(folder: Path):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32).eval()


@pytest.mark.parametrize("level", LEVELS)
def test_transformers_computes_the_level(artifact, level, tmp_path):
    found = run_check(artifact, level, "hf", "float", tmp_path / "out")
    assert found.max_error < 1e-5 * found.max_logit
    assert found.ours == found.theirs
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["model_type"] == ("llama" if level == FULL else "edge_level")
    assert (tmp_path / "out" / "modeling_edge_level.py").exists() == (level != FULL)


@pytest.mark.parametrize("level", LEVELS)
def test_padded_batches_generate_what_single_texts_do(artifact, level, tmp_path):
    """transformers pads at the left; tokens of the padding must not be seen, and positions begin behind them."""
    find_format("hf")[0].write(export_request(artifact, level, "float"), tmp_path)
    model = loaded(tmp_path)
    texts = [np.random.default_rng(i).integers(3, VOCAB_SIZE, n).tolist() for i, n in enumerate((5, 9))]
    padded = torch.tensor([[0] * (9 - len(text)) + text for text in texts])
    mask = torch.tensor([[0] * (9 - len(text)) + [1] * len(text) for text in texts])
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    both = model.generate(padded, attention_mask=mask, **options)[:, 9:].tolist()
    for text, together in zip(texts, both, strict=True):
        alone = model.generate(torch.tensor([text]), attention_mask=torch.ones(1, len(text)).long(), **options)
        assert alone[0, len(text) :].tolist() == together
    logits, wanted = oracle(artifact, level), list(texts[1])
    for _ in range(6):
        wanted.append(int(logits(wanted)[-1].argmax()))
    assert both[1] == wanted[len(texts[1]) :]


def test_it_can_be_saved_and_loaded_again(artifact, tmp_path):
    find_format("hf")[0].write(export_request(artifact, 0, "float"), tmp_path)
    model = loaded(tmp_path)
    model.save_pretrained(tmp_path / "again")
    tokens = torch.arange(8)[None]
    assert torch.equal(loaded(tmp_path / "again")(tokens).logits, model(tokens).logits)


def test_the_tokenizer_comes_along(artifact, tmp_path):
    from edgesdk.cloud.export import level_tokenizer
    from edgesdk.cloud.tokenizer import to_tokenizers
    from edgesdk.formats import Artifact

    own = level_tokenizer(Artifact.open(artifact))
    assert own is not None
    text = to_tokenizers(own).to_str()
    request = export_request(artifact, FULL, "float", tokenizer=text, chat_template=own.chat_template)
    find_format("hf")[0].write(request, tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    sample = 'Numbers such as 3, 14 and "quotes" 🙂'
    assert tokenizer(sample)["input_ids"] == to_tokenizers(own).encode(sample).ids
    assert tokenizer.eos_token_id == 2
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert chat == "<|im_start|>user\nHi<|im_end|>\n"
