"""A generation that goes on by one step at a time: its text, why it ended, and log probabilities of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgesdk.device import _native
from edgesdk.device.session import Sampling, Session, integer, stop_list
from edgesdk.errors import UsageError

__all__ = ["Finish", "Generation", "ScoredToken", "Step"]

Finish = Literal["end", "stop", "length", "context"]
"""Why a generation ended: an end token, a stop text, max_tokens, or the end of the context."""
_CHUNK_TOKENS = 128  # of a prompt, in one step


@dataclass(frozen=True)
class ScoredToken:
    """A generated token with the logarithm of its probability, and the likeliest tokens of its place with theirs.

    Probabilities are the softmax of the model's logits, before repetition penalty and temperature.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Step:
    """What one step of a generation brought: text to show, and the tokens whose text begins in what was shown so far.

    Tokens come only when log probabilities were asked for; those of a stop text never come.
    """

    text: str
    tokens: tuple[ScoredToken, ...]


_NOTHING = Step("", ())


class Generation:
    """One answer, step by step, for callers that share threads between answers or score tokens.

    Its text is that of `Model.generate`. Nothing else may use the session before it has ended or was given up.

    tokens: the prompt; what it shares with the session's cache is not computed again
    n_logprobs: score each token, and this many of the likeliest in its place; None: do not
    finish: why it ended, None while it goes on
    n_generated: tokens so far, an end token not counted; n_cached: tokens of the prompt that were taken from the cache
    Raises UsageError for a prompt that leaves no room in the context, and for arguments out of range.
    """

    def __init__(
        self,
        session: Session,
        tokens: Sequence[int],
        max_tokens: int,
        sampling: Sampling,
        stop: Sequence[str] | str = (),
        *,
        n_logprobs: int | None = None,
    ) -> None:
        model = session._model
        self.finish: Finish | None = None
        self.n_generated = 0
        self._session = session
        self._tokens = list(tokens)
        self._max_tokens = integer("max_tokens", max_tokens, low=1)
        self._n_logprobs = None if n_logprobs is None else integer("n_logprobs", n_logprobs, high=model.vocab_size)
        self._text = _native.Text(model._native, stop_list(stop))
        self._n_shown = self._n_decoded = 0  # bytes of text; decoded: held back or shown
        self._unseen: list[tuple[int, ScoredToken]] = []  # tokens by where their text begins
        if not tokens:
            raise UsageError("the prompt is empty", hint="give at least one token to continue")
        if len(tokens) >= model.context:
            raise UsageError(
                f"the prompt has {len(tokens)} tokens, and the context of {model.context} leaves no room for an answer",
                hint="load with a larger context, or shorten the text",
            )
        self._rest = session._begin(self._tokens, sampling)
        self.n_cached = len(tokens) - self._rest.size

    def step(self) -> Step:
        """Feeds a part of the prompt, or samples one token. Raises CancelledError after `Session.cancel`."""
        if self.finish is not None:
            raise UsageError(f"this generation has ended ({self.finish})")
        native = self._session._native
        if self._rest.size:
            native.feed(self._rest[:_CHUNK_TOKENS], False, False)
            self._rest = self._rest[_CHUNK_TOKENS:]
            return _NOTHING
        token = native.next()
        self._tokens.append(token)
        if self._session._model._native.is_end_token(token):
            return self._end("end")
        self.n_generated += 1
        if self._n_logprobs is not None:
            own, *top = native.logprobs(self._n_logprobs)
            self._unseen.append((self._n_decoded, ScoredToken(*own, tuple(top))))
        text, n_held, stopped = self._text.push(token)
        self._n_shown += len(text.encode())
        self._n_decoded = self._n_shown + n_held
        if stopped:
            return self._end("stop", text)
        if self.n_generated == self._max_tokens:
            return self._end("length", text)
        if len(self._tokens) == self._session._model.context:
            return self._end("context", text)
        return Step(text, self._seen())

    def _end(self, finish: Finish, text: str = "") -> Step:
        self.finish = finish
        self._session._cached = self._tokens
        if finish == "stop":
            return Step(text, self._seen())
        text += self._text.finish()
        tokens = tuple(token for _, token in self._unseen)
        self._unseen = []
        return Step(text, tokens)

    def _seen(self) -> tuple[ScoredToken, ...]:
        """Takes the tokens whose text begins in what was shown."""
        n_seen = next((i for i, (begin, _) in enumerate(self._unseen) if begin >= self._n_shown), len(self._unseen))
        seen = tuple(token for _, token in self._unseen[:n_seen])
        self._unseen = self._unseen[n_seen:]
        return seen
