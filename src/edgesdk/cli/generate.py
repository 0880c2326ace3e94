"""`edgesdk run` and `edgesdk chat`: text from a level of an artifact."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import edgesdk
from edgesdk.cli.console import print_json, say, say_backend
from edgesdk.cli.options import (
    Adaptive,
    Artifact,
    Backend,
    Budget,
    Context,
    DecodeBackend,
    Json,
    KvBits,
    Level,
    Lock,
    Rate,
    Threads,
    Verify,
    examples,
)
from edgesdk.cli.remote import run_remotely

if TYPE_CHECKING:
    from edgesdk.device import Model

__all__ = ["CHAT_EXAMPLES", "RUN_EXAMPLES", "chat", "run"]

RUN_EXAMPLES = examples(
    "edgesdk run model.edge 'Once upon a time'",
    "edgesdk run model.edge --budget 80MB --json '2 + 2 ='",
    "edgesdk run model.edge - < prompt.txt",
    "edgesdk run out/android --device R5CT20ABCDE 'Once upon a time'",
)
CHAT_EXAMPLES = examples(
    "edgesdk chat model.edge",
    "edgesdk chat model.edge --rate 0.25 --system 'Answer in one sentence.'",
    "echo Hello | edgesdk chat model.edge --json",
    "edgesdk chat out/jetson --device orin",
)

MaxTokens = Annotated[int, typer.Option("--max-tokens", "-n", min=1, help="Tokens to generate at most.")]
Temperature = Annotated[float, typer.Option("--temperature", min=0.0, help="0 always takes the likeliest token.")]
TopK = Annotated[int, typer.Option("--top-k", min=0, help="Sample from the k likeliest tokens; 0: off.")]
TopP = Annotated[
    float, typer.Option("--top-p", min=0.0, max=1.0, help="Sample from this share of probability; 1: off.")
]
MinP = Annotated[
    float, typer.Option("--min-p", min=0.0, max=1.0, help="Drop tokens below this share of the likeliest; 0: off.")
]
Penalty = Annotated[float, typer.Option("--repetition-penalty", min=0.0, help="Above 1 repeats less; 1: off.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the sampler.")]
Stop = Annotated[
    list[str] | None, typer.Option("--stop", help="End before this text; may be given again.", show_default=False)
]
OnDevice = Annotated[
    str | None,
    typer.Option(
        "--device",
        "-d",
        metavar="NAME",
        help="Run there what was deployed; FILE is then a bundle, an .edge file or a deployment's name.",
        show_default=False,
    ),
]


def run(
    path: Artifact,
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="Text to continue; - reads it from stdin.", show_default=False)
    ],
    rate: Rate = None,
    budget: Budget = None,
    level: Level = None,
    context: Context = None,
    threads: Threads = None,
    verify: Verify = "lazy",
    kv_bits: KvBits = 8,
    lock: Lock = False,
    adaptive: Adaptive = False,
    backend: Backend = "cpu",
    decode_backend: DecodeBackend = None,
    max_tokens: MaxTokens = 128,
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    repetition_penalty: Penalty = 1.0,
    seed: Seed = 0,
    stop: Stop = None,
    device: OnDevice = None,
    as_json: Json = False,
) -> None:
    """Continue a text with the largest level that fits."""
    text = sys.stdin.read() if prompt == "-" else prompt
    if device is not None:
        where = _where(rate, budget, level, context, threads, verify, kv_bits, lock, adaptive, backend, decode_backend)
        how = _how(max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed)
        options = {**where, **how, "--stop": stop, "--json": as_json, "--prompt": "-"}
        run_remotely(device, path, "generate", options, feed=[text.encode()])
        return
    how_loaded: dict[str, Any] = {"threads": threads, "verify": verify, "kv_bits": kv_bits, "lock": lock}
    how_loaded |= {"adaptive": adaptive, "backend": backend, "decode_backend": decode_backend}
    model = _load(path, rate, budget, level, context=context, **how_loaded)
    start = time.perf_counter()
    pieces = model.generate(
        text,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=stop or [],
        stream=True,
    )
    if as_json:
        answer = "".join(pieces)
        print_json({"prompt": text, "text": answer, "seconds": time.perf_counter() - start, **_served(model)})
    else:
        _write(pieces)


def chat(
    path: Artifact,
    rate: Rate = None,
    budget: Budget = None,
    level: Level = None,
    context: Context = None,
    threads: Threads = None,
    verify: Verify = "lazy",
    kv_bits: KvBits = 8,
    lock: Lock = False,
    adaptive: Adaptive = False,
    backend: Backend = "cpu",
    decode_backend: DecodeBackend = None,
    system: Annotated[str, typer.Option("--system", help="A system message to begin with.")] = "",
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.7,
    top_k: TopK = 0,
    top_p: TopP = 0.95,
    min_p: MinP = 0.0,
    repetition_penalty: Penalty = 1.0,
    seed: Seed = 0,
    device: OnDevice = None,
    as_json: Json = False,
) -> None:
    """Talk with the model: one message a line, an empty line or the end of input leaves.

    With --json: one object per answer, each on a line of its own.
    """
    if device is not None:
        where = _where(rate, budget, level, context, threads, verify, kv_bits, lock, adaptive, backend, decode_backend)
        how = _how(max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed)
        options = {**where, **how, "--system": system or None, "--json": as_json}
        run_remotely(device, path, "chat", options, feed=sys.stdin.fileno())
        return
    how_loaded: dict[str, Any] = {"threads": threads, "verify": verify, "kv_bits": kv_bits, "lock": lock}
    how_loaded |= {"adaptive": adaptive, "backend": backend, "decode_backend": decode_backend}
    model = _load(path, rate, budget, level, context=context, **how_loaded)
    messages = [{"role": "system", "content": system}] if system else []
    for line in _lines(show_sign=not as_json and sys.stdin.isatty()):
        messages.append({"role": "user", "content": line})
        pieces = model.chat(
            messages,
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
            stream=True,
        )
        answer = "".join(pieces) if as_json else _write(pieces)
        if as_json:
            print_json({"role": "assistant", "content": answer, **_served(model)}, one_line=True)
        messages.append({"role": "assistant", "content": answer})


def _where(
    rate: float | None,
    budget: str | None,
    level: int | None,
    context: int | None,
    threads: int | None,
    verify: str,
    kv_bits: int,
    lock: bool,
    adaptive: bool,
    backend: str,
    decode_backend: str | None,
) -> dict[str, object]:
    """edge-run's options of which level to run, and how."""
    from edgesdk.device.model import parse_bytes

    return {
        "--rate": rate,
        "--budget": None if budget is None else parse_bytes(budget),
        "--level": level,
        "--context": context,
        "--threads": threads,
        "--verify": verify,
        "--kv-bits": kv_bits,
        "--lock": lock,
        "--adaptive": adaptive,
        "--backend": None if backend == "cpu" else backend,  # which engines that were deployed before do not know
        "--decode-backend": decode_backend,
    }


def _how(
    max_tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    repetition_penalty: float,
    seed: int,
) -> dict[str, object]:
    """edge-run's options of sampling."""
    return {
        "--max-tokens": max_tokens,
        "--temperature": temperature,
        "--top-k": top_k,
        "--top-p": top_p,
        "--min-p": min_p,
        "--repetition-penalty": repetition_penalty,
        "--seed": seed,
    }


def _load(
    path: Path,
    rate: float | None,
    budget: str | None,
    level: int | None,
    **how: Any,
) -> Model:
    model = edgesdk.load(path, rate=rate, budget=budget, level=level, **how)
    say(model.reason)
    say_backend(model.backend)
    return model


def _served(model: Model) -> dict[str, Any]:
    return {"level": model.level, "rate": model.rate, "mapped_bytes": model.levels[model.level].mapped_bytes}


def _write(pieces: Iterator[str]) -> str:
    """Writes each piece as it comes, and returns the whole text."""
    text = ""
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
        text += piece
    sys.stdout.write("\n")
    return text


def _lines(*, show_sign: bool) -> Iterator[str]:
    while True:
        if show_sign:
            sys.stderr.write("> ")
            sys.stderr.flush()
        line = sys.stdin.readline().strip()
        if not line:
            return
        yield line
