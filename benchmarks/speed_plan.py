"""What the speed benchmark measures, and which figures it makes of the samples: one planner per case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from figures import Figure
from rounds import Samples
from shapes import RATES
from sides import Machine, OurModel, PeerModel, peak_rss_bytes, seconds_to_first_byte

__all__ = ["CASES", "COMMAND", "DEMO", "QUICK", "SHAPE", "Model", "Plan", "Settings", "make_plan"]

COMMAND = "python benchmarks/speed.py"
CASES = ("decode", "prefill", "rates", "long", "cold", "memory")
DEMO, SHAPE = "SmolLM2-135M", "1B shape"

DECODE_TARGET = {DEMO: 1.8, SHAPE: 1.15}
READ_SHARE_TARGET = {SHAPE: 0.8}
PREFILL_TARGET = 1.5
RATE_TARGET = 0.93  # of the ratio of bytes, at the largest rate
LONG_TARGET = {SHAPE: 0.5}
COLD_TARGET = 2.0
MEMORY_TARGET = 1 / 1.05


@dataclass(frozen=True)
class Model:
    """One model on both sides."""

    name: str
    ours: OurModel
    peer: PeerModel | None


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    rounds: int = 5
    tries: int = 3
    threads: tuple[int, ...] = (1, 2)
    decode_tokens: int = 128
    prompt_tokens: int = 512
    long_start: int = 7648  # with a prompt and 32 tokens behind it: 8192, what the demo model takes
    middle_start: int = 1536
    long_runs: int = 5


QUICK = Settings(1, 1, (1,), 4, 32, 64, 32, 1)


@dataclass
class Plan:
    """What to measure, by key, and the figures to make of the samples. `once`: in one round, slow to prepare."""

    settings: Settings
    machine: Machine
    measurements: dict[str, Callable[[], float]] = field(default_factory=dict)
    once: dict[str, Callable[[], float]] = field(default_factory=dict)
    makers: list[Callable[[dict[str, Samples]], list[Figure]]] = field(default_factory=list)

    def figure(
        self,
        name: str,
        ours: str,
        peer: str,
        target: float | None,
        unit: str,
        *,
        scale: tuple[float, float] = (1.0, 1.0),
        less_is_better: bool = False,
    ) -> None:
        """A figure of two measurements; scale: factors on both sides."""

        def make(samples: dict[str, Samples]) -> list[Figure]:
            if ours not in samples or peer not in samples:
                return []
            a, b = samples[ours].median * scale[0], samples[peer].median * scale[1]
            return [Figure(name, a, b, b / a if less_is_better else a / b, target, unit, COMMAND)]

        self.makers.append(make)


def plan_decode(plan: Plan, model: Model) -> None:
    """Tokens per second after a short prompt, and the share of the readable bandwidth that the weights make up."""
    n = plan.settings.decode_tokens
    for t in plan.settings.threads:
        key = f"decode {model.name} x{t}"
        n_bytes = model.ours.bytes_per_token()
        plan.measurements[f"{key} ours"] = partial(_decode, plan, model, model.ours.top, t)
        if model.peer:
            plan.measurements[f"{key} peer"] = partial(model.peer.bench, t, 0, n)
        plan.measurements[f"{key} read"] = partial(plan.machine.read_gb_per_s, n_bytes, t)
        where = f"{model.name}, full level, {_threads(t)}"
        plan.figure(f"decode, {where}", f"{key} ours", f"{key} peer", DECODE_TARGET.get(model.name), "tokens/s")
        for side, owner, target in (("ours", "", READ_SHARE_TARGET.get(model.name)), ("peer", "llama.cpp's ", None)):
            read_by = model.peer if side == "peer" and model.peer else model.ours
            n_bytes = read_by.bytes_per_token() / 1e9
            name = f"{owner}share of read bandwidth, {where}, {n_bytes * 1e3:.1f} MB a token"
            plan.figure(name, f"{key} {side}", f"{key} read", target, "GB/s", scale=(n_bytes, 1.0))


def plan_prefill(plan: Plan, model: Model) -> None:
    """Tokens per second of a prompt, and the share of the integer peak."""
    n = plan.settings.prompt_tokens
    for t in plan.settings.threads:
        key = f"prefill {model.name} x{t}"
        plan.measurements[f"{key} ours"] = partial(_prefill, plan, model, t)
        if model.peer:
            plan.measurements[f"{key} peer"] = partial(model.peer.bench, t, n, 0)
        plan.measurements[f"integer peak x{t}"] = partial(plan.machine.gmac_per_s, t)
        where = f"{model.name}, {n} tokens, {_threads(t)}"
        plan.figure(f"prefill, {where}", f"{key} ours", f"{key} peer", PREFILL_TARGET, "tokens/s")
        gmac = model.ours.macs(0, n) / n / 1e9
        for side, owner in (("ours", ""), ("peer", "llama.cpp's ")):
            name = f"{owner}share of integer peak, prefill, {where}"
            plan.figure(name, f"{key} {side}", f"integer peak x{t}", None, "GMAC/s", scale=(gmac, 1.0))


def plan_rates(plan: Plan, model: Model) -> None:
    """Decoding smaller levels: the speed they gain over the ratio of bytes they read."""
    full = model.ours.bytes_per_token()
    for t in plan.settings.threads:
        # Measured again beside the smaller levels: what memory gives changes within a round.
        whole = f"decode {model.name} rate 0 x{t} ours"
        plan.measurements[whole] = partial(_decode, plan, model, model.ours.top, t)
        for rate in sorted(RATES[:-1]):
            level = model.ours.artifact.level_at_rate(rate)
            key = f"decode {model.name} rate {rate} x{t} ours"
            plan.measurements[key] = partial(_decode, plan, model, level.index, t)
            bytes_ratio = full / model.ours.bytes_per_token(level.index)
            target = RATE_TARGET * bytes_ratio if rate == max(RATES) else None
            name = f"decode at rate {rate} over rate 0, {model.name}, {_threads(t)}, bytes ratio {bytes_ratio:.3f}"
            plan.figure(name, key, whole, target, "tokens/s")


def plan_long(plan: Plan, model: Model) -> None:
    """Prefill and decoding with a full cache, all threads; `runs` within one process, since filling takes long."""
    s, t = plan.settings, max(plan.settings.threads)
    full = s.long_start + s.prompt_tokens
    key = f"long {model.name} x{t}"
    rows: dict[int, dict[str, Any]] = {}

    def ours(start: int, field: str) -> float:
        if start not in rows:
            rows[start] = model.ours.bench(model.ours.top, t, s.prompt_tokens, 32, start, s.long_runs)
        return float(rows[start][f"{field}_tokens_per_s"])

    for start in (0, s.middle_start, s.long_start):
        for part in ("prefill", "decode"):
            plan.once[f"{key} {part} {start} ours"] = partial(ours, start, part)
            if model.peer:
                n_prompt, depth = (s.prompt_tokens, start) if part == "prefill" else (0, start + s.prompt_tokens)
                n_decode = 0 if part == "prefill" else 32
                plan.once[f"{key} {part} {start} peer"] = partial(
                    model.peer.bench, t, n_prompt, n_decode, depth, s.long_runs
                )
    where = f"{model.name}, {_threads(t)}"
    macs = [model.ours.macs(start, start + s.prompt_tokens) for start in (0, s.long_start)]
    for side, owner, target in (("ours", "", LONG_TARGET.get(model.name)), ("peer", "llama.cpp's ", None)):
        name = f"{owner}prefill at {full} over the first {s.prompt_tokens}, {where}, roofline {macs[0] / macs[1]:.3f}"
        plan.figure(name, f"{key} prefill {s.long_start} {side}", f"{key} prefill 0 {side}", target, "tokens/s")
        for start in (s.middle_start, s.long_start):
            name = f"{owner}decode at {start + s.prompt_tokens} over {s.prompt_tokens}, {where}"
            plan.figure(name, f"{key} decode {start} {side}", f"{key} decode 0 {side}", None, "tokens/s")
    for part, at in (("prefill", s.long_start), ("decode", s.middle_start), ("decode", s.long_start)):
        name = f"{part} at {at + s.prompt_tokens}, {where}"
        plan.figure(name, f"{key} {part} {at} ours", f"{key} {part} {at} peer", None, "tokens/s")


def plan_cold(plan: Plan, model: Model) -> None:
    """Process start, load, 16-token prompt, first text; the file is in the page cache, the peer's warm-up is off."""
    for t in plan.settings.threads:
        key = f"cold {model.name} x{t}"
        plan.measurements[f"{key} ours"] = partial(seconds_to_first_byte, model.ours.generate_command(t, 1))
        if model.peer:
            command = model.peer.generate_command(t, 1, warm_up=False)
            plan.measurements[f"{key} peer"] = partial(seconds_to_first_byte, command)
        name = f"cold start to first token, {model.name}, {_threads(t)}"
        plan.figure(name, f"{key} ours", f"{key} peer", COLD_TARGET, "ms", scale=(1e3, 1e3), less_is_better=True)


def plan_memory(plan: Plan, model: Model) -> None:
    """Peak resident bytes of 32 tokens after a short prompt, against what was announced and against the peer."""
    t, key = max(plan.settings.threads), f"memory {model.name}"
    plan.measurements[f"{key} ours"] = partial(peak_rss_bytes, model.ours.generate_command(t, 32))
    plan.measurements[f"{key} announced"] = model.ours.announced_bytes
    if model.peer:
        command = model.peer.generate_command(t, 32, warm_up=True)
        plan.measurements[f"{key} peer"] = partial(peak_rss_bytes, command)
    name = f"peak RSS, {model.name}"
    announced = f"{name}, against mapped bytes, cache and workspace"
    plan.figure(
        announced, f"{key} ours", f"{key} announced", MEMORY_TARGET, "MB", scale=(1e-6, 1e-6), less_is_better=True
    )
    plan.figure(name, f"{key} ours", f"{key} peer", 1.0, "MB", scale=(1e-6, 1e-6), less_is_better=True)


def make_plan(cases: list[str], models: list[Model], settings: Settings, machine: Machine) -> Plan:
    """The plan of these cases; `rates` and `memory` are about the 1B shape, `cold` is about the demo model."""
    plan = Plan(settings, machine)
    planners = {"decode": plan_decode, "prefill": plan_prefill, "rates": plan_rates}
    planners |= {"long": plan_long, "cold": plan_cold, "memory": plan_memory}
    about = {"rates": models[-1:], "memory": models[-1:], "cold": models[:1]}
    for case in CASES:
        for model in about.get(case, models) if case in cases else ():
            planners[case](plan, model)
    return plan


def _decode(plan: Plan, model: Model, level: int, n_threads: int) -> float:
    return float(model.ours.bench(level, n_threads, 1, plan.settings.decode_tokens)["decode_tokens_per_s"])


def _prefill(plan: Plan, model: Model, n_threads: int) -> float:
    row = model.ours.bench(model.ours.top, n_threads, plan.settings.prompt_tokens, 1)
    return float(row["prefill_tokens_per_s"])


def _threads(n: int) -> str:
    return "1 thread" if n == 1 else f"{n} threads"
