"""Trains a small Mamba-2 and a small hybrid (Bamba: mixers, one attention, MLPs) on the text of train_model.py.

    python benchmarks/train_state_models.py [--model mamba2|bamba] [--steps 600]

No weights of these families can be had in a few megabytes, and random ones say nothing about quality. Writes
build/state-models/NAME: the Hugging Face folder `hf`, test.txt, calibration.txt and model.json. About half an hour of
one core each; finished models are kept. `make train-state-models` runs it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from debian_text import read_debian_text
from figures import BENCH
from train_model import Training, train, write_tokenizer
from transformers import BambaConfig, BambaForCausalLM, Mamba2Config, Mamba2ForCausalLM, PreTrainedModel

__all__ = ["FOLDER", "MODELS"]

FOLDER = BENCH.parent / "state-models"
_CALIBRATION_CHARACTERS = 300_000
_HEADS, _HEAD_DIM, _STATE = 8, 64, 64
_STEPS = (0.001, 0.1)  # of a mixer at the start of training, as in the paper
_TRAINING_STEPS = 600  # a thousand take longer than half an hour of one core without the GPU's scan


def _mamba2(settings: Training) -> PreTrainedModel:
    return Mamba2ForCausalLM(
        Mamba2Config(
            vocab_size=settings.vocab_size,
            hidden_size=settings.d_model,
            num_hidden_layers=settings.n_layers,
            num_heads=_HEADS,
            head_dim=_HEAD_DIM,
            state_size=_STATE,
            n_groups=1,
            chunk_size=64,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=None,
            initializer_range=0.02,
        )
    )


def _bamba(settings: Training) -> PreTrainedModel:
    model = BambaForCausalLM(
        BambaConfig(
            vocab_size=settings.vocab_size,
            hidden_size=settings.d_model,
            intermediate_size=settings.width,
            num_hidden_layers=settings.n_layers,
            attn_layer_indices=[settings.n_layers // 2],
            num_attention_heads=settings.d_model // settings.head_dim,
            num_key_value_heads=settings.n_kv_heads,
            mamba_n_heads=_HEADS,
            mamba_d_head=_HEAD_DIM,
            mamba_d_state=_STATE,
            mamba_n_groups=1,
            mamba_chunk_size=64,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=None,
        )
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("dt_bias"):
                low, high = map(math.log, _STEPS)
                step = torch.exp(torch.rand(len(parameter)) * (high - low) + low)
                parameter.copy_(step + torch.log(-torch.expm1(-step)))
    return model


MODELS: dict[str, tuple[Callable[[Training], PreTrainedModel], Training]] = {
    "mamba2": (_mamba2, Training(n_layers=6, vocab_size=4096, context=256, steps=_TRAINING_STEPS)),
    "bamba": (_bamba, Training(n_layers=4, width=512, vocab_size=4096, context=256, steps=_TRAINING_STEPS)),
}


def train_state_model(name: str, steps: int, folder: Path, report: Callable[[str], None]) -> dict[str, object]:
    """Trains one model, writes everything into `folder` and returns what model.json says."""
    make, settings = MODELS[name]
    settings = replace(settings, steps=steps)
    text = read_debian_text(FOLDER)
    hf = folder / "hf"
    hf.mkdir(parents=True, exist_ok=True)
    tokens = write_tokenizer(text.training, settings.vocab_size, hf)
    begin = time.perf_counter()
    torch.set_num_threads(1)  # sums of floats depend on the number of threads
    torch.manual_seed(settings.seed)
    model = make(settings)
    loss = train(model, tokens, settings, report)
    model.save_pretrained(hf)
    (folder / "test.txt").write_text(text.held_out, "utf-8")
    (folder / "calibration.txt").write_text(text.training[:_CALIBRATION_CHARACTERS], "utf-8")
    details: dict[str, object] = {
        **asdict(settings),
        "parameters": sum(p.numel() for p in model.parameters()),
        "text": {"debian_package": text.package, "version": text.version, "sha256": text.sha256},
        "tokens_seen": settings.steps * settings.batch * settings.context,
        "training_loss": round(loss, 4),
        "seconds": round(time.perf_counter() - begin),
    }
    (folder / "model.json").write_text(json.dumps(details, indent=1) + "\n", "utf-8")
    return details


def main() -> None:
    """Trains what is not there yet."""
    parser = argparse.ArgumentParser(description="train a small Mamba-2 and a small hybrid")
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--steps", type=int, default=_TRAINING_STEPS)
    arguments = parser.parse_args()
    report: Callable[[str], None] = print
    for name in arguments.model or MODELS:
        if (FOLDER / name / "model.json").is_file():
            print(f"{FOLDER / name} has a finished model; remove it to train another")
            continue
        print(json.dumps(train_state_model(name, arguments.steps, FOLDER / name, report)))


if __name__ == "__main__":
    main()
