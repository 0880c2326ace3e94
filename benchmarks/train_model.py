"""Trains the second model of the quality benchmark: a small llama whose columns are all multiples of 256.

    python benchmarks/train_model.py [--steps 2500]

The demo model's 576 columns keep llama.cpp from its formats below 4 bits; this model has them all. Its text is the
prose of a Debian package (debian_text.py), whose held-out files are the test text. Writes build/bench-model: the
Hugging Face folder `hf`, model-f32.gguf, test.txt, calibration.txt (training text, for the peer's importance matrix)
and model.json. Half an hour of two cores; a finished model is kept. `make train-bench-model` runs it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from debian_text import DebianText, read_debian_text
from f32_gguf import write_f32_gguf
from figures import BENCH
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

__all__ = ["Training", "train", "train_bench_model", "write_tokenizer"]

FOLDER = BENCH.parent / "bench-model"
_END = "<|endoftext|>"
_CALIBRATION_CHARACTERS = 300_000
_REPORT_STEPS = 50


@dataclass(frozen=True)
class Training:
    """Shape of the model and course of its training. context: tokens of a sequence, in training and in tests."""

    d_model: int = 256
    width: int = 768
    n_layers: int = 6
    head_dim: int = 64
    n_kv_heads: int = 2
    vocab_size: int = 6144
    context: int = 512
    batch: int = 4
    steps: int = 2500
    rate: float = 2e-3
    seed: int = 0


def train_bench_model(
    text: DebianText, settings: Training, folder: Path, report: Callable[[str], None]
) -> dict[str, object]:
    """Trains, writes everything into `folder` and returns what model.json says."""
    hf = folder / "hf"
    hf.mkdir(parents=True, exist_ok=True)
    tokens = write_tokenizer(text.training, settings.vocab_size, hf)
    begin = time.perf_counter()
    torch.manual_seed(settings.seed)
    model = LlamaForCausalLM(_llama(settings))
    loss = train(model, tokens, settings, report)
    model.save_pretrained(hf)
    write_f32_gguf(hf, folder / "model-f32.gguf")
    (folder / "test.txt").write_text(text.held_out, "utf-8")
    (folder / "calibration.txt").write_text(text.training[:_CALIBRATION_CHARACTERS], "utf-8")
    details: dict[str, object] = {
        **asdict(settings),
        "parameters": sum(p.numel() for p in model.parameters()),
        "text": {"debian_package": text.package, "version": text.version, "sha256": text.sha256},
        "training_tokens": len(tokens),
        "tokens_seen": settings.steps * settings.batch * settings.context,
        "training_loss": round(loss, 4),
        "seconds": round(time.perf_counter() - begin),
    }
    (folder / "model.json").write_text(json.dumps(details, indent=1) + "\n", "utf-8")
    return details


def write_tokenizer(text: str, vocab_size: int, folder: Path) -> torch.Tensor:
    """Trains a byte-level BPE, as llama.cpp calls gpt-2, writes its files and returns the text's tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[_END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(text.split("\n\n"), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": _END, "eos_token": _END}
    (folder / "tokenizer_config.json").write_text(json.dumps(names), "utf-8")
    return torch.tensor(tokenizer.encode(text).ids)


def _llama(settings: Training) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=settings.vocab_size,
        hidden_size=settings.d_model,
        intermediate_size=settings.width,
        num_hidden_layers=settings.n_layers,
        num_attention_heads=settings.d_model // settings.head_dim,
        num_key_value_heads=settings.n_kv_heads,
        head_dim=settings.head_dim,
        max_position_embeddings=settings.context,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )


def train(model: PreTrainedModel, tokens: torch.Tensor, settings: Training, report: Callable[[str], None]) -> float:
    """AdamW with warm-up and a cosine; sequences begin anywhere. Returns the mean loss of the last steps."""
    model.train()
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim != 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=settings.rate, betas=(0.9, 0.95))
    warm_up = max(1, settings.steps // 20)

    def factor(step: int) -> float:
        share = min(1.0, step / settings.steps)
        return min((step + 1) / warm_up, 0.05 + 0.95 * (1 + math.cos(math.pi * share)) / 2)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    generator = torch.Generator().manual_seed(settings.seed)
    begin, losses = time.perf_counter(), []
    for step in range(1, settings.steps + 1):
        starts = torch.randint(len(tokens) - settings.context, (settings.batch,), generator=generator)
        batch = torch.stack([tokens[start : start + settings.context] for start in starts.tolist()])
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        losses = [*losses[-_REPORT_STEPS + 1 :], float(loss.detach())]
        if step % _REPORT_STEPS == 0:
            mean, seconds = sum(losses) / len(losses), time.perf_counter() - begin
            report(f"step {step}/{settings.steps}: loss {mean:.3f}, {seconds:.0f} s")
    model.eval()
    return sum(losses) / len(losses)


def main() -> None:
    """Trains the model once."""
    parser = argparse.ArgumentParser(description="train the small llama of the quality benchmark")
    parser.add_argument("--steps", type=int, default=Training.steps)
    arguments = parser.parse_args()
    settings = Training(steps=arguments.steps)
    finished = FOLDER / "model.json"
    if finished.is_file() and asdict(settings).items() <= json.loads(finished.read_text("utf-8")).items():
        print(f"{FOLDER} has this model")
        return
    text = read_debian_text(FOLDER)
    report: Callable[[str], None] = print
    print(json.dumps(train_bench_model(text, settings, FOLDER, report)))


if __name__ == "__main__":
    main()
