"""What a client gets: answers of OpenAI's API as Python values, whole or in the chunks of a stream."""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from edgesdk.device.generation import ScoredToken, Step
from edgesdk.serve.engine import End

__all__ = ["Answer", "ChatAnswer", "CompletionAnswer"]

_LOWEST_LOGPROB = -9999.0  # stands for minus infinity, which JSON does not have
_FINISH_REASONS = {"end": "stop", "stop": "stop", "length": "length", "context": "length"}


class Answer(ABC):
    """One answer's identity, and how its text, tokens and end are written.

    model: the name that clients know; fingerprint: equal ones give equal texts for equal seeds
    token_bytes: the bytes of a token; scored: whether tokens come with log probabilities
    """

    kind: ClassVar[str]
    chunk_kind: ClassVar[str]
    prefix: ClassVar[str]

    def __init__(self, model: str, fingerprint: str, token_bytes: Callable[[int], bytes], *, scored: bool) -> None:
        self._token_bytes = token_bytes
        self._scored = scored
        self._head = {
            "id": f"{self.prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
        }

    def whole(self, text: str, tokens: Sequence[ScoredToken], end: End) -> dict[str, Any]:
        """The answer as one value."""
        choice = {**self._text(text), **self._rest(tokens, _FINISH_REASONS[end.finish])}
        return {**self._head, "object": self.kind, "choices": [choice], "usage": usage(end)}

    def chunks(self, event: Step | End, *, include_usage: bool) -> list[dict[str, Any]]:
        """What a stream says at an event."""
        nothing = {"usage": None} if include_usage else {}
        if isinstance(event, Step):
            return [self._chunk({**self._piece(event.text), **self._rest(event.tokens, None)}, nothing)]
        last = self._chunk({**self._no_piece(), **self._rest(None, _FINISH_REASONS[event.finish])}, nothing)
        if not include_usage:
            return [last]
        return [last, {**self._head, "object": self.chunk_kind, "choices": [], "usage": usage(event)}]

    def opening(self, *, include_usage: bool) -> list[dict[str, Any]]:
        """What a stream says before there is text."""
        first = self._first()
        return [] if first is None else [self._chunk(first, {"usage": None} if include_usage else {})]

    def _chunk(self, choice: dict[str, Any], nothing: dict[str, None]) -> dict[str, Any]:
        return {**self._head, "object": self.chunk_kind, "choices": [choice], **nothing}

    def _rest(self, tokens: Sequence[ScoredToken] | None, finish_reason: str | None) -> dict[str, Any]:
        scores = self._scores(tokens) if self._scored and tokens is not None else None
        return {"index": 0, "logprobs": scores, "finish_reason": finish_reason}

    def _name(self, token: int) -> str:
        return self._token_bytes(token).decode("utf-8", "replace")

    def _first(self) -> dict[str, Any] | None:
        return None

    @abstractmethod
    def _text(self, text: str) -> dict[str, Any]: ...

    @abstractmethod
    def _piece(self, text: str) -> dict[str, Any]: ...

    @abstractmethod
    def _no_piece(self) -> dict[str, Any]: ...

    @abstractmethod
    def _scores(self, tokens: Sequence[ScoredToken]) -> dict[str, Any]: ...


class ChatAnswer(Answer):
    """Of POST /v1/chat/completions."""

    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"
    prefix = "chatcmpl"

    def _first(self) -> dict[str, Any]:
        return {"delta": {"role": "assistant", "content": ""}, "index": 0, "logprobs": None, "finish_reason": None}

    def _text(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def _piece(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text}}

    def _no_piece(self) -> dict[str, Any]:
        return {"delta": {}}

    def _scores(self, tokens: Sequence[ScoredToken]) -> dict[str, Any]:
        content = [
            {**self._score(one.token, one.logprob), "top_logprobs": [self._score(*pair) for pair in one.top]}
            for one in tokens
        ]
        return {"content": content, "refusal": None}

    def _score(self, token: int, logprob: float) -> dict[str, Any]:
        return {"token": self._name(token), "logprob": _finite(logprob), "bytes": list(self._token_bytes(token))}


class CompletionAnswer(Answer):
    """Of POST /v1/completions. text_offset counts characters of tokens from the beginning of the answer."""

    kind = "text_completion"
    chunk_kind = "text_completion"
    prefix = "cmpl"

    def __init__(self, model: str, fingerprint: str, token_bytes: Callable[[int], bytes], *, scored: bool) -> None:
        super().__init__(model, fingerprint, token_bytes, scored=scored)
        self._n_characters = 0

    def _text(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def _piece(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def _no_piece(self) -> dict[str, Any]:
        return {"text": ""}

    def _scores(self, tokens: Sequence[ScoredToken]) -> dict[str, Any]:
        scores: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for one in tokens:
            name = self._name(one.token)
            best: dict[str, float] = {}
            for token, logprob in (*one.top, (one.token, one.logprob)):
                best.setdefault(self._name(token), _finite(logprob))  # of tokens that read alike, the likelier
            scores["tokens"].append(name)
            scores["token_logprobs"].append(_finite(one.logprob))
            scores["top_logprobs"].append(best)
            scores["text_offset"].append(self._n_characters)
            self._n_characters += len(name)
        return scores


def usage(end: End) -> dict[str, Any]:
    """Tokens of the prompt, of the answer (an end token not counted), and both."""
    return {
        "prompt_tokens": end.n_prompt,
        "completion_tokens": end.n_generated,
        "total_tokens": end.n_prompt + end.n_generated,
        "prompt_tokens_details": {"cached_tokens": end.n_cached},
    }


def _finite(logprob: float) -> float:
    return max(logprob, _LOWEST_LOGPROB)
