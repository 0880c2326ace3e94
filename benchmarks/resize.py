"""Changing the level of a running session: how long it takes, and what it costs the text that follows.

    python benchmarks/resize.py [ARTIFACT]      # default: build/demo/smollm2.edge, which `make demo` leaves

Writes build/bench/resize.json. Times, with a warm file: of `set_level`, the first of a load with the hashes of what is
newly mapped, and from it to the logits of the next token; with the state computed again in the background, also until
it has caught up with a session that goes on, and how fast that is meanwhile. Quality: WikiText-2 test, windows of 640
tokens; the first 512 are read at one level, the last 128 at another, with the state that was cut or zero-extended, and
computed again. KL is to the full level that read everything.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from figures import BENCH, Figure, write_figures
from numpy.typing import NDArray
from rich.console import Console
from texts import evaluation_text

import edgesdk

COMMAND = "python benchmarks/resize.py"
CONTEXT, BEFORE, BEHIND = 2048, 512, 128
RUNS = 7
RATES = (0.05, 0.1, 0.2, 0.35)
TARGET_MS = 100.0
console = Console(highlight=False)


@dataclass(frozen=True)
class Quality:
    """Of the tokens behind a change: perplexity, and KL to the full level (nats per token), of the first 32 and all."""

    perplexity: float
    kl_32: float
    kl: float


def feed(session: Any, tokens: NDArray[np.int32]) -> NDArray[np.float32]:
    """Logits behind each token."""
    return session._native.feed(tokens, True, True)


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Logarithms of the probabilities, row by row."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))


def change_ms(path: Path, levels: tuple[int, int], n_tokens: int, recompute: bool) -> tuple[float, float, float]:
    """Milliseconds of the first `set_level` of a load, of later ones, and of those up to the next logits (medians)."""
    taken, to_next = [], []
    with edgesdk.load(path, level=levels[0], context=CONTEXT) as model:
        tokens = (np.arange(n_tokens + 1) * 7919 % model.vocab_size).astype(np.int32)
        session = model.session()
        for _ in range((1 if recompute else RUNS) + 1):
            model.set_level(levels[0])
            session.reset()
            session._native.feed(tokens[:-1], False, False)
            begin = time.perf_counter()
            model.set_level(levels[1], recompute=recompute)
            taken.append((time.perf_counter() - begin) * 1e3)
            session._native.feed(tokens[-1:], False, True)
            to_next.append((time.perf_counter() - begin) * 1e3)
    return taken[0], statistics.median(taken[1:]), statistics.median(to_next[1:])


@dataclass(frozen=True)
class Background:
    """Milliseconds: from `set_level` to two more tokens, to the end of catching up; a token meanwhile, and after."""

    to_next: float
    to_exact: float
    token_meanwhile: float
    token_after: float


def background_ms(path: Path, levels: tuple[int, int], n_tokens: int) -> Background:
    """A session that generates while what it read is computed again."""
    with edgesdk.load(path, level=levels[0], context=CONTEXT) as model:
        tokens = (np.arange(n_tokens) * 7919 % model.vocab_size).astype(np.int32)
        native = model.session()._native
        native.feed(tokens, False, False)
        begin = time.perf_counter()
        model.set_level(levels[1], recompute="background")
        times = [begin]
        while native.n_exact == 0 and native.position < CONTEXT - BEHIND:
            native.next()
            native.feed(tokens[:1], False, True)
            times.append(time.perf_counter())
        exact = times[-1]
        for _ in range(BEHIND // 4):
            native.next()
            native.feed(tokens[:1], False, True)
        after = (time.perf_counter() - exact) / (BEHIND // 2)
        n_meanwhile = 2 * (len(times) - 1)
        return Background(
            (times[1] - begin) * 1e3, (exact - begin) * 1e3, (exact - begin) / n_meanwhile * 1e3, after * 1e3
        )


def windows(path: Path, n: int) -> list[NDArray[np.int32]]:
    """Windows of the evaluation text, spread over it."""
    with edgesdk.load(path, level=0) as model:
        ids = np.array(model.tokenize(evaluation_text().read_text("utf-8")), np.int32)
    size = BEFORE + BEHIND
    return [ids[begin : begin + size] for begin in np.linspace(0, len(ids) - size, n).astype(int)]


def behind(model: edgesdk.Model, ids: NDArray[np.int32], levels: tuple[int, int], recompute: bool) -> NDArray[Any]:
    """Logarithms of probabilities behind a change of levels: (BEHIND, vocab_size)."""
    session = model.session()
    model.set_level(levels[0])
    session._native.feed(ids[:BEFORE], False, False)
    model.set_level(levels[1], recompute=recompute)
    return log_softmax(feed(session, ids[BEFORE:]))


def qualities(path: Path, texts: list[NDArray[np.int32]], ways: list[tuple[tuple[int, int], bool]]) -> list[Quality]:
    """How the tokens behind the change are predicted, for each way to change."""
    losses: list[list[float]] = [[] for _ in ways]
    divergences: list[list[NDArray[Any]]] = [[] for _ in ways]
    with edgesdk.load(path, context=BEFORE + BEHIND) as model:
        top = model.level
        for ids in texts:
            expected = behind(model, ids, (top, top), False)
            for i, (levels, recompute) in enumerate(ways):
                found = behind(model, ids, levels, recompute)
                losses[i].append(float(-found[np.arange(BEHIND - 1), ids[BEFORE + 1 :]].mean()))
                divergences[i].append((np.exp(expected) * (expected - found)).sum(axis=1))
    kl = [np.array(one) for one in divergences]
    return [
        Quality(float(np.exp(np.mean(loss))), float(one[:, :32].mean()), float(one.mean()))
        for loss, one in zip(losses, kl, strict=True)
    ]


def measure_times(path: Path, top: int) -> list[Figure]:
    """Changes between the smallest and the full level."""
    figures = []
    for name, levels in (("down", (top, 0)), ("up", (0, top))):
        for n_tokens in (512, 1024, CONTEXT - 2):
            times = {recompute: change_ms(path, levels, n_tokens, recompute) for recompute in (False, True)}
            for recompute, (first, taken, to_next) in times.items():
                what = f"{name}, {n_tokens} tokens, " + ("computed again" if recompute else "state taken along")
                console.print(
                    f"{what}: set_level {taken:.1f} ms (the first time {first:.1f}), next logits after {to_next:.1f} ms"
                )
                for when, ms in (("set_level", taken), ("set_level, the first", first), ("next logits", to_next)):
                    target = None if recompute else 1.0
                    figures.append(Figure(f"{what}: {when}", ms, TARGET_MS, TARGET_MS / ms, target, "ms", COMMAND))
            if n_tokens + BEHIND > CONTEXT:
                continue  # no room to go on
            what, took = (
                f"{name}, {n_tokens} tokens, computed again in the background",
                background_ms(path, levels, n_tokens),
            )
            console.print(f"{what}: {took}")
            for when, ms in (("two tokens", took.to_next), ("caught up", took.to_exact)):
                figures.append(Figure(f"{what}: {when}", ms, TARGET_MS, TARGET_MS / ms, None, "ms", COMMAND))
            slower = took.token_after / took.token_meanwhile
            figures.append(
                Figure(f"{what}: a token", took.token_meanwhile, took.token_after, slower, None, "ms", COMMAND)
            )
    return figures


def measure_quality(path: Path, n_windows: int, top: int, by_rate: list[tuple[float, int]]) -> list[Figure]:
    """The state taken along, and computed again; on the way up that is the full level all along."""
    ways, names = [((top, top), False)], ["full level all along"]
    for rate, level in by_rate:
        ways += [((top, level), False), ((top, level), True), ((level, level), False), ((level, top), False)]
        names += [
            f"down to rate {rate}, state taken along",
            f"down to rate {rate}, computed again",
            f"rate {rate} all along",
            f"up from rate {rate}, state taken along",
        ]
    figures = []
    found = qualities(path, windows(path, n_windows), ways)
    for name, one in zip(names, found, strict=True):
        console.print(f"{name}: perplexity {one.perplexity:.2f}, KL {one.kl:.4f} (first 32 tokens {one.kl_32:.4f})")
        ratio = found[0].perplexity / one.perplexity
        figures.append(Figure(f"{name}: perplexity", one.perplexity, found[0].perplexity, ratio, None, "", COMMAND))
        figures.append(Figure(f"{name}: KL", one.kl, 0.0, 0.0, None, "nats per token", COMMAND))
    return figures


def main() -> None:
    """Measures times, then quality at several rates."""
    parser = argparse.ArgumentParser(description="time and cost of changing the level of a session")
    parser.add_argument("artifact", type=Path, nargs="?", default=BENCH.parent / "demo" / "smollm2.edge")
    parser.add_argument("--windows", type=int, default=16, help="of text; 0 measures times only")
    arguments = parser.parse_args()
    with edgesdk.load(arguments.artifact) as model:
        top = model.level
        by_rate = [(rate, min(m.index for m in model.levels if m.rate <= rate)) for rate in RATES]
    figures = measure_times(arguments.artifact, top)
    if arguments.windows:
        figures += measure_quality(arguments.artifact, arguments.windows, top, by_rate)
    console.print(f"wrote {write_figures('resize', figures)}")


if __name__ == "__main__":
    main()
