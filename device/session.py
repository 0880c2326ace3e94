"""One conversation with a loaded model."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from edgesdk.device import _native
from edgesdk.errors import CancelledError, UsageError

if TYPE_CHECKING:
    from edgesdk.device.model import Model

__all__ = ["Sampling", "Session", "integer", "stop_list"]

_INT32_MAX = (1 << 31) - 1


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; the meaning and order of the fields are those of Model.generate."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    seed: int


class Session:
    """One conversation's cache, for one thread at a time; sessions of one model share its weights.

    Each call begins from an empty context, but what its tokens share with the call before is taken from the cache.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._native = _native.Session(model._native)
        self._cached: list[int] = []

    def cancel(self) -> None:
        """Ends the call that runs in another thread, or else the next one that computes: it raises CancelledError."""
        self._native.cancel()

    def reset(self) -> None:
        """Empties the cache, and forgets a cancel that met no call."""
        self._cached = []
        self._native.reset()

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Logits after each token, from an empty context: (n_tokens, vocab_size) float32."""
        self._keep(0)
        ids = _token_array(tokens)
        if not len(ids):
            return np.zeros((0, self._model.vocab_size), np.float32)
        return cast("NDArray[np.float32]", self._native.feed(ids, True, True))

    def generate(
        self,
        prompt: str,
        *,
        max_tokens: int = 128,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        stop: Sequence[str] | str = (),
    ) -> str:
        """Continues a plain text, as Model.generate does."""
        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed)
        return "".join(self.pieces(self._model.tokenize(prompt), max_tokens, sampling, stop))

    def pieces(self, tokens: list[int], max_tokens: int, sampling: Sampling, stop: Sequence[str] | str) -> list[str]:
        """Runs a generation to its end and returns the pieces of its text."""
        found: list[str] = []

        def take(text: str) -> bool:
            found.append(text)
            return True

        prompt = self._begin(tokens, sampling)
        self._native.generate(prompt, integer("max_tokens", max_tokens), stop_list(stop), take)
        self._cached = tokens
        return found

    def stream(
        self, tokens: list[int], max_tokens: int, sampling: Sampling, stop: Sequence[str] | str
    ) -> Iterator[str]:
        """Yields the pieces of a generation that runs in a thread of its own; closing the iterator ends it."""
        queue: SimpleQueue[str | None] = SimpleQueue()
        closed = threading.Event()

        def take(text: str) -> bool:
            queue.put(text)
            return not closed.is_set()

        prompt = self._begin(tokens, sampling)
        with ThreadPoolExecutor(1, thread_name_prefix="edgesdk-stream") as executor:
            running = executor.submit(
                self._native.generate, prompt, integer("max_tokens", max_tokens), stop_list(stop), take
            )
            running.add_done_callback(lambda _: queue.put(None))
            try:
                while (piece := queue.get()) is not None:
                    yield piece
                running.result()
                self._cached = tokens
            finally:
                closed.set()
                if not running.done():
                    self._native.cancel()
                    if not isinstance(running.exception(), CancelledError):
                        self.reset()  # the generation was over before the cancel met it

    def n_shared(self, tokens: Sequence[int]) -> int:
        """How many tokens at the beginning of a prompt are in the cache already, made by the model's level alone."""
        limit = min(len(self._cached), len(tokens) - 1, self._native.n_exact)
        return next((i for i in range(limit) if self._cached[i] != tokens[i]), max(limit, 0))

    def _begin(self, tokens: list[int], sampling: Sampling) -> NDArray[np.int32]:
        """Sets the sampling, drops what the cache does not share with `tokens`, and returns what is left to feed."""
        s = sampling
        seed = integer("seed", s.seed, high=(1 << 64) - 1)
        top_k = integer("top_k", s.top_k)
        numbers = [_float32(name, getattr(s, name)) for name in ("temperature", "top_p", "min_p", "repetition_penalty")]
        self._native.set_sampling(numbers[0], top_k, numbers[1], numbers[2], numbers[3], seed)
        shared = self.n_shared(tokens)
        self._keep(shared)
        return _token_array(tokens[shared:])

    def _keep(self, n_tokens: int) -> None:
        self._cached = []
        self._native.rewind(n_tokens)


def stop_list(stop: Sequence[str] | str) -> list[str]:
    """One stop text or several, as a list."""
    return [stop] if isinstance(stop, str) else list(stop)


def _token_array(tokens: Sequence[int]) -> NDArray[np.int32]:
    ids = np.asarray(tokens, dtype=np.int64) if len(tokens) else np.zeros(0, np.int64)
    if ids.ndim != 1:
        raise UsageError(f"tokens have shape {ids.shape}", hint="give a flat list of token ids")
    if ids.size and (ids.min() < 0 or ids.max() > _INT32_MAX):
        raise UsageError(f"tokens hold {int(ids.min())} to {int(ids.max())}, which are no token ids")
    return ids.astype(np.int32)


def integer(name: str, value: int, low: int = 0, high: int = _INT32_MAX) -> int:
    """The value, or UsageError when it is no integer within the limits."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise UsageError(f"{name} is {value!r}", hint=f"it is an integer from {low} to {high}")
    return int(value)


def _float32(name: str, value: float) -> float:
    if not isinstance(value, (int, float, np.floating)) or not abs(value) < 3e38:
        raise UsageError(f"{name} is {value!r}", hint="it is a finite number")
    return float(value)
