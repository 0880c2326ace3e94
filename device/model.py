"""The Python API of the engine: load an artifact, generate text, chat, read logits."""

from __future__ import annotations

import json
import math
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, cast, overload

import numpy as np
from numpy.typing import NDArray

from edgesdk.device import _native
from edgesdk.device.chat_template import render_chat
from edgesdk.device.session import Sampling, Session, integer
from edgesdk.errors import UsageError

__all__ = ["Backend", "Level", "Memory", "Model", "isa", "load", "memory_budget", "parse_bytes"]

Verify = Literal["lazy", "eager", "off"]
BackendName = Literal["auto", "cpu", "opencl", "cuda"]
DecodeBackendName = Literal["cpu", "opencl", "cuda"]
_BACKENDS = {"cpu": 0, "auto": 1, "opencl": 2, "cuda": 3}
_DECODE_BACKENDS = {None: 0, "cpu": 1, "opencl": 2, "cuda": 3}
_VERIFY = {"lazy": 0, "eager": 1, "off": 2}
_RECOMPUTE = {False: 0, True: 1, "background": 2}
_TRIM = ("none", "moderate", "low", "critical")
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


@dataclass(frozen=True)
class Level:
    """One size of the ladder. perplexity and kl (nats per token) are None where they were not measured.

    available: False when the file was cut before this level.
    """

    index: int
    rate: float
    mapped_bytes: int
    file_bytes: int
    perplexity: float | None
    kl: float | None
    available: bool


@dataclass(frozen=True)
class Memory:
    """What a level needs, in bytes: mapped weights, one session's key/value cache, everything else, and the sum."""

    mapped_bytes: int
    kv_bytes: int
    workspace_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Backend:
    """What a model runs on.

    name: cpu, opencl or cuda: what computes prompts; decode_name: the same of tokens that come one at a time
    device, driver: of the GPU that takes part, as its driver calls them; "" where none does
    reason: why `auto` did not take a GPU
    device_bytes: what this process holds on the device, all models and sessions together; a device that shares memory
        with the host reads weights in the mapped file, which are not held
    compiled: programs that were compiled from source since the device was opened; 0 when they came from the cache
    """

    name: str
    device: str
    driver: str
    reason: str
    device_bytes: int
    compiled: int
    decode_name: str


def load(
    path: str | os.PathLike[str],
    *,
    rate: float | None = None,
    budget: int | str | None = None,
    level: int | None = None,
    context: int | None = None,
    threads: int | None = None,
    verify: Verify = "lazy",
    kv_bits: int = 8,
    lock: bool = False,
    prefault: bool = False,
    huge_pages: bool = False,
    pin: bool = False,
    chunk: int | None = None,
    adaptive: bool = False,
    min_level: int = 0,
    backend: BackendName = "cpu",
    decode_backend: DecodeBackendName | None = None,
) -> Model:
    """Loads one level of an artifact.

    rate: the largest level that gives up at least this share of the block weights (0: the full model)
    budget: bytes for everything, a number or text such as "80MB" (80e6) or "80MiB"; the largest level that fits
    level: this level, 0 is the smallest. Without any of the three: the largest level that fits the free memory.
    context: tokens that a session holds (default: 2048, or less if the model takes less)
    threads: default one per physical core; verify: when hashes are checked, in the background by default;
    kv_bits: 8 or 16 bits of the key/value cache; lock: keep the weights in memory (mlock)
    prefault: every page of the weights is in memory when this returns; huge_pages: they are copied to memory of their
    own with 2 MiB pages, where the system gives them; pin: each worker thread stays on a core of its own
    chunk: tokens of a prompt that go through the layers together (default: 128)
    adaptive: levels are given up while memory is short, before the system ends processes, and come back when it is not:
    never above the level that was loaded or set
    min_level: a file that was cut below this level is refused, whichever level is run
    backend: what computes: cpu; opencl or cuda, which are refused where there is no such device or it fails its
    self-test; or auto: a GPU that can be used, else the CPU (docs/gpu.md)
    decode_backend: what computes tokens that come one at a time, where that is not `backend`, which then computes
    prompts: one of the two is the CPU, and both hold weights and a cache
    Raises MemoryBudgetError, UsageError, ArtifactError (HashError, TruncatedError) and EngineError.

    Example:
        with edgesdk.load("model.edge", budget="80MB") as model:
            print(model.generate("Once upon a time", max_tokens=32))
    """
    given = {"rate": rate, "budget": budget, "level": level}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise UsageError(f"{' and '.join(names)} were given together", hint="give one of rate, budget, level")
    if verify not in _VERIFY:
        raise UsageError(f"verify is {verify!r}", hint="it is one of 'lazy', 'eager', 'off'")
    if backend not in _BACKENDS:
        raise UsageError(f"backend is {backend!r}", hint="it is one of 'auto', 'cpu', 'opencl', 'cuda'")
    if decode_backend not in _DECODE_BACKENDS:
        raise UsageError(f"decode_backend is {decode_backend!r}", hint="it is one of 'cpu', 'opencl', 'cuda', or None")
    native = _native.Model(
        os.fspath(path),
        {"rate": 1, "budget": 2, "level": 3}[names[0]] if names else 0,
        0.0 if rate is None else float(rate),
        0 if budget is None else parse_bytes(budget),
        0 if level is None else integer("level", level),
        0 if context is None else integer("context", context, low=1),
        integer("kv_bits", kv_bits, low=1),
        0 if threads is None else integer("threads", threads, low=1),
        _VERIFY[verify],
        lock,
        0 if chunk is None else integer("chunk", chunk, low=1),
        prefault,
        huge_pages,
        pin,
        adaptive,
        integer("min_level", min_level),
        _BACKENDS[backend],
        _DECODE_BACKENDS[decode_backend],
    )
    return Model(native)


def parse_bytes(size: int | str) -> int:
    """Bytes of a number or of text: "80MB" is 80 000 000, "80MiB" 83 886 080. Raises UsageError.

    >>> parse_bytes("1.5KiB")
    1536
    """
    if isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 1 << 63:
        return size
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", size) if isinstance(size, str) else None
    if match is None or match[2].upper() not in _UNITS:
        raise UsageError(f"{size!r} is no number of bytes", hint='write for example 80_000_000, "80MB" or "76MiB"')
    value = float(match[1]) * _UNITS[match[2].upper()]
    if value >= 1 << 63:
        raise UsageError(f"{size!r} is more than any memory holds")
    return int(value)


def memory_budget() -> tuple[int, str]:
    """Bytes that automatic selection would grant now, and one line that says why."""
    return _native.memory_budget()


def isa() -> str:
    """The kernel set in use, for example "avx512vnni"; the environment variable EDGE_ISA forces one."""
    return _native.isa()


class Model:
    """An artifact, mapped at one level; `set_level` changes it. Made by `load`.

    Its methods may be called from several threads: each running call has a session of its own (a key/value cache of
    `estimate(level, context).kv_bytes`). A finished call leaves its session for the next one.
    """

    def __init__(self, native: _native.Model) -> None:
        self._native = native
        self._idle: list[Session] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return "<Model closed>" if self._native.closed else f"<Model level {self.level}, rate {self.rate:.4f}>"

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the memory back once running calls have ended. A closed model raises UsageError."""
        with self._lock:
            self._idle.clear()
            self._native.close()

    @property
    def levels(self) -> tuple[Level, ...]:
        """The whole ladder, smallest first."""
        return tuple(self._level(index) for index in range(self._native.n_levels))

    @property
    def level(self) -> int:
        """Index of the level in use."""
        return self._native.level

    @property
    def rate(self) -> float:
        """Pruning rate of the level in use."""
        return self._level(self.level).rate

    @property
    def reason(self) -> str:
        """Why this level was chosen, in one line."""
        return self._native.reason

    @property
    def context(self) -> int:
        """Tokens that a session holds."""
        return self._native.context

    @property
    def vocab_size(self) -> int:
        """Length of a row of logits."""
        return self._native.vocab_size

    @property
    def bytes_per_token(self) -> int:
        """Bytes of weights that one token reads at this level, key/value cache apart."""
        return self._native.bytes_per_token

    @property
    def threads(self) -> int:
        """Threads that each session runs on."""
        return self._native.threads

    @property
    def backend(self) -> Backend:
        """What the model runs on."""
        return Backend(*self._native.backend())

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The artifact's header (SPEC.md sections 3 to 8), parsed anew at each access."""
        return cast("Mapping[str, Any]", json.loads(self._native.metadata()))

    def set_level(self, level: int, *, recompute: bool | Literal["background"] = False) -> None:
        """Changes the level while generations run: each goes on, and its next step is at the new level.

        Of what a running generation remembers, what both levels keep is taken along. recompute: its tokens are computed
        again at the new level instead, in its next step; "background": beside it, while it goes on with what was taken
        along, in the memory of one more session (where there is none, it stays as it is). What begins later is as if
        the model had been loaded at this level. The new level is mapped, and its hashes checked, before it takes
        effect; the memory of the level before is free once no step uses it. Raises UsageError, TruncatedError,
        HashError and MemoryBudgetError; the level then stays.
        """
        if recompute not in _RECOMPUTE:
            raise UsageError(f"recompute is {recompute!r}", hint="it is one of False, True, 'background'")
        self._native.set_level(integer("level", level), _RECOMPUTE[recompute])

    def trim(self, severity: Literal["none", "moderate", "low", "critical"]) -> None:
        """Gives a level up because somebody told that memory is short, as Android's onTrimMemory does.

        moderate: frees an eighth of what the level needs; low: half of what can be freed; critical: all of it;
        none: back to the level that was loaded or set.
        """
        if severity not in _TRIM:
            raise UsageError(f"severity is {severity!r}", hint=f"it is one of {', '.join(_TRIM)}")
        self._native.trim(_TRIM.index(severity))

    def estimate(self, level: int, context: int | None = None, *, kv_bits: int | None = None) -> Memory:
        """What a level needs with one session of `context` tokens (default: this model's)."""
        given = 0 if context is None else integer("context", context, low=1)
        bits = 0 if kv_bits is None else integer("kv_bits", kv_bits, low=1)
        return Memory(*self._native.estimate(integer("level", level), given, bits))

    def verify(self) -> None:
        """Checks the SHA-256 of every mapped run, or waits for the check that runs. Raises HashError."""
        self._native.verify()

    def tokenize(self, text: str, *, special: bool = False, add_bos: bool = True) -> list[int]:
        """Token ids of a text. special: it may name special tokens, such as "<|im_end|>"."""
        return self._native.tokenize(text.encode("utf-8", "replace"), special, add_bos)

    def detokenize(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """Text of tokens; bytes that are no UTF-8 become U+FFFD. special: with special tokens."""
        return self._native.detokenize([int(token) for token in tokens], special).decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """Bytes of one token inside a text, a special one by its name. They may be a part of a character."""
        twice = self._native.detokenize([token, token], True)  # some tokenizers take a space from the first one
        return twice[len(twice) // 2 :]

    def session(self) -> Session:
        """A session of its own, for one thread at a time; it goes on to live when the model is closed."""
        return Session(self)

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Logits after each token, from an empty context: (n_tokens, vocab_size) float32."""
        with self._borrowed() as session:
            return session.logits(tokens)

    @overload
    def generate(
        self,
        prompt: str,
        *,
        max_tokens: int = ...,
        stream: Literal[False] = ...,
        temperature: float = ...,
        top_k: int = ...,
        top_p: float = ...,
        min_p: float = ...,
        repetition_penalty: float = ...,
        seed: int = ...,
        stop: Sequence[str] | str = ...,
    ) -> str: ...
    @overload
    def generate(
        self,
        prompt: str,
        *,
        max_tokens: int = ...,
        stream: Literal[True],
        temperature: float = ...,
        top_k: int = ...,
        top_p: float = ...,
        min_p: float = ...,
        repetition_penalty: float = ...,
        seed: int = ...,
        stop: Sequence[str] | str = ...,
    ) -> Iterator[str]: ...
    def generate(
        self,
        prompt: str,
        *,
        max_tokens: int = 128,
        stream: bool = False,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        stop: Sequence[str] | str = (),
    ) -> str | Iterator[str]:
        """Continues a plain text (the chat template is not used) until an end token, a stop text or max_tokens.

        stream: an iterator of pieces instead of the whole text; closing it ends the generation
        temperature: 0 takes the likeliest token. Applied in this order: repetition_penalty (1: off), temperature,
        top_k (0: off), top_p (1: off), min_p (0: off). The same seed gives the same text on every machine.
        stop: text before which generation ends; it is never part of the result. The end of the context ends it too.
        Raises UsageError when the prompt does not fit the context.
        """
        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed)
        return self._run(self.tokenize(prompt), max_tokens, stream, sampling, stop)

    @overload
    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        max_tokens: int = ...,
        stream: Literal[False] = ...,
        temperature: float = ...,
        top_k: int = ...,
        top_p: float = ...,
        min_p: float = ...,
        repetition_penalty: float = ...,
        seed: int = ...,
        stop: Sequence[str] | str = ...,
        variables: Mapping[str, Any] | None = ...,
    ) -> str: ...
    @overload
    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        max_tokens: int = ...,
        stream: Literal[True],
        temperature: float = ...,
        top_k: int = ...,
        top_p: float = ...,
        min_p: float = ...,
        repetition_penalty: float = ...,
        seed: int = ...,
        stop: Sequence[str] | str = ...,
        variables: Mapping[str, Any] | None = ...,
    ) -> Iterator[str]: ...
    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        max_tokens: int = 512,
        stream: bool = False,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        stop: Sequence[str] | str = (),
        variables: Mapping[str, Any] | None = None,
    ) -> str | Iterator[str]:
        """Answers a conversation, a list of {"role": ..., "content": ...}, through the artifact's chat template.

        variables: further names for the template. The rest is as in `generate`. What a conversation shares with the one
        before is not computed again. Raises UsageError when the artifact has no template or the template refuses.
        """
        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed)
        tokens = self.tokenize(self.render(messages, variables=variables), special=True, add_bos=False)
        return self._run(tokens, max_tokens, stream, sampling, stop)

    def render(self, messages: Sequence[Mapping[str, Any]], *, variables: Mapping[str, Any] | None = None) -> str:
        """The text that `chat` continues: the conversation written by the artifact's chat template."""
        template = self._native.chat_template()
        if template is None:
            raise UsageError("this artifact has no chat template", hint="use generate() with a prompt of your own")
        tokenizer = self.metadata["tokenizer"]
        bos, ends = tokenizer.get("bos_id"), tokenizer.get("eos_ids") or []
        return render_chat(
            template.decode("utf-8", "replace"),
            messages,
            bos="" if bos is None else self.detokenize([bos], special=True),
            eos=self.detokenize(ends[:1], special=True),
            variables=variables,
        )

    def _level(self, index: int) -> Level:
        rate, mapped_bytes, file_bytes, perplexity, kl, available = self._native.level_info(index)
        measured = [None if math.isnan(value) else value for value in (perplexity, kl)]
        return Level(index, rate, mapped_bytes, file_bytes, measured[0], measured[1], available)

    def _run(
        self, tokens: list[int], max_tokens: int, stream: bool, sampling: Sampling, stop: Sequence[str] | str
    ) -> str | Iterator[str]:
        if stream:
            return self._stream(tokens, max_tokens, sampling, stop)
        with self._borrowed() as session:
            return "".join(session.pieces(tokens, max_tokens, sampling, stop))

    def _stream(
        self, tokens: list[int], max_tokens: int, sampling: Sampling, stop: Sequence[str] | str
    ) -> Iterator[str]:
        with self._borrowed() as session:
            yield from session.stream(tokens, max_tokens, sampling, stop)

    @contextmanager
    def _borrowed(self) -> Iterator[Session]:
        """An idle session, or a new one; it is kept for later if it did not fail."""
        with self._lock:
            session = self._idle.pop() if self._idle else None
        session = session or Session(self)
        yield session
        with self._lock:
            if not self._native.closed:
                self._idle.append(session)
