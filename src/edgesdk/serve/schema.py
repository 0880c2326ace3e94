"""Requests of OpenAI's API: what is understood, what may only have its neutral value, and what is refused."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json

from edgesdk.device.session import Sampling
from edgesdk.serve.refused import RefusedError

__all__ = ["ChatRequest", "CompletionRequest", "Message", "Request", "parse"]

_MOST_LOGPROBS = 20
_MOST_STOPS = 16
_TINY_TOP_P = 1e-6  # only the likeliest token; 0 itself means "off" to the engine
_ENTIRE = 1 << 64
# Parameters that mean nothing here at these values, and are refused at any other.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (False, True),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
}
# Parameters that describe the caller and change no answer.
_ABOUT_THE_CALLER = {"metadata", "prompt_cache_key", "safety_identifier", "user"}


def _joined_text(content: object) -> object:
    """A message's text; parts of text are put together, other parts refused."""
    if not isinstance(content, list):
        return content
    texts = []
    for index, part in enumerate(content):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else part
            raise ValueError(f"part {index} is {kind!r}, only parts of text are understood")
        texts.append(part["text"])
    return "".join(texts)


def _one_prompt(prompt: object) -> object:
    """The prompt itself, when it is given as a list of one."""
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        if len(prompt) > 1:
            raise ValueError(f"there are {len(prompt)} prompts, a request takes one")
        return prompt[0]
    return prompt


def _stop_texts(stop: object) -> object:
    texts = [stop] if isinstance(stop, str) else stop
    if isinstance(texts, list) and any(isinstance(text, str) and (not text or "\0" in text) for text in texts):
        raise ValueError("a stop text is empty or has a NUL character")
    return texts


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Message(_Strict):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_joined_text)]
    name: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, given: Any) -> Any:
        """An answer of ours, sent back as it came, has fields that are null."""
        return {key: value for key, value in given.items() if value is not None} if isinstance(given, dict) else given

    def for_template(self) -> dict[str, str]:
        """As chat templates know it: what OpenAI calls a developer, they call the system."""
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": self.content, **({"name": self.name} if self.name is not None else {})}


class StreamOptions(_Strict):
    """include_obfuscation is understood, and nothing follows from it."""

    include_usage: bool = False
    include_obfuscation: bool = False


class Request(_Strict, ABC):
    """What chats and completions have in common. top_k, min_p and repetition_penalty are the engine's own.

    prompt_name: the parameter that holds what is to be continued
    """

    prompt_name: ClassVar[str]

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    stop: Annotated[list[str], BeforeValidator(_stop_texts), Field(max_length=_MOST_STOPS)] = []
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(ge=0, le=1)] = 1.0
    seed: int | None = None
    top_k: Annotated[int, Field(ge=0, lt=1 << 31)] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] = 1.0

    @model_validator(mode="after")
    def _check_stream_options(self) -> Request:
        if self.stream_options is not None and not self.stream:
            raise ValueError("`stream_options` is given, but `stream` is not true")
        return self

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self) -> Sampling:
        """How tokens are chosen; without a seed, by a random one."""
        seed = int.from_bytes(os.urandom(8), "little") if self.seed is None else self.seed % _ENTIRE
        top_p = max(self.top_p, _TINY_TOP_P)
        return Sampling(self.temperature, self.top_k, top_p, self.min_p, self.repetition_penalty, seed)

    @abstractmethod
    def limit(self) -> int | None:
        """Tokens to generate at most; None: as many as the context holds."""

    @abstractmethod
    def n_logprobs(self) -> int | None:
        """How many of the likeliest tokens are scored beside each token; None: nothing is scored."""


class ChatRequest(Request):
    """POST /v1/chat/completions."""

    prompt_name: ClassVar[str] = "messages"

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    logprobs: bool = False
    top_logprobs: Annotated[int | None, Field(ge=0, le=_MOST_LOGPROBS)] = None

    @model_validator(mode="after")
    def _check_logprobs(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("`top_logprobs` is given, but `logprobs` is not true")
        return self

    def limit(self) -> int | None:
        """The smaller of both names that OpenAI has for it."""
        return min((n for n in (self.max_tokens, self.max_completion_tokens) if n is not None), default=None)

    def n_logprobs(self) -> int | None:
        """`top_logprobs`, when there are to be any."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(Request):
    """POST /v1/completions: a prompt of text or of tokens."""

    prompt_name: ClassVar[str] = "prompt"

    prompt: Annotated[str | list[int], BeforeValidator(_one_prompt)]
    max_tokens: Annotated[int, Field(ge=1)] = 16
    logprobs: Annotated[int | None, Field(ge=0, le=_MOST_LOGPROBS)] = None

    def limit(self) -> int | None:
        """`max_tokens`; 16 as OpenAI has it."""
        return self.max_tokens

    def n_logprobs(self) -> int | None:
        """`logprobs`."""
        return self.logprobs


Asked = TypeVar("Asked", bound=Request)


def parse(kind: type[Asked], body: bytes) -> Asked:
    """A request from its JSON. Raises RefusedError, which names the first parameter that is not understood."""
    try:
        given = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise RefusedError(400, f"the body is no JSON: {error}", code="invalid_json") from error
    if not isinstance(given, dict):
        raise RefusedError(400, f"the body is a JSON {type(given).__name__}, expected an object", code="invalid_json")
    try:
        return kind.model_validate(_without_neutral(given))
    except ValidationError as error:
        raise _refused(error) from error


def _without_neutral(given: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in given.items() if value is not None and key not in _ABOUT_THE_CALLER}
    for name, values in _NEUTRAL.items():
        if name in kept and (value := kept.pop(name)) not in values:
            allowed = " or ".join(repr(one) for one in values)
            raise RefusedError(
                400,
                f"`{name}` is {_short(value)}, this server supports {allowed}",
                param=name,
                code="unsupported_value",
            )
    return kept


def _refused(error: ValidationError) -> RefusedError:
    first = error.errors(include_url=False)[0]
    place = first["loc"][:1] if "prompt" in first["loc"] else first["loc"]  # what follows names a type of the union
    param = ".".join(map(str, place))
    kind, text = first["type"], first["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        return RefusedError(400, f"unknown parameter `{param}`", param=param, code="unknown_parameter")
    if kind == "missing":
        return RefusedError(400, f"`{param}` is missing", param=param, code="missing_parameter")
    if not first["loc"]:
        return RefusedError(400, text, code="invalid_value")
    return RefusedError(400, f"`{param}` is {_short(first['input'])}: {text}", param=param, code="invalid_value")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
