"""The ASGI application: what each address does, who may ask, and what is refused before anything is generated."""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgesdk import __version__
from edgesdk.device import Model
from edgesdk.errors import EdgeError
from edgesdk.serve.answers import Answer, ChatAnswer, CompletionAnswer
from edgesdk.serve.engine import Engine, Task
from edgesdk.serve.limits import Limits
from edgesdk.serve.refused import RefusedError
from edgesdk.serve.reply import Reply, timed_out
from edgesdk.serve.schema import ChatRequest, CompletionRequest, Request, parse

__all__ = ["Service", "create_app"]

_MOST_DISCARDED = 8  # times the largest body; a client that sends that much more is cut off
_AT_ONCE = 2  # requests that are turned into tokens at the same time


@dataclass(frozen=True)
class Service:
    """What an application serves.

    name: of the model, for clients; api_key: None asks for none
    hosts: names of this server that a request's Host header may have, None: any. It keeps web pages away that reach
    a loopback address under a name of their own.
    """

    model: Model
    engine: Engine
    limits: Limits
    name: str
    api_key: str | None = None
    hosts: frozenset[str] | None = None


def create_app(service: Service) -> Starlette:
    """The application; the engine is the caller's to close."""
    endpoints = _Endpoints(service)
    return Starlette(
        routes=[
            Route("/health", endpoints.health, methods=["GET"]),
            Route("/v1/models", endpoints.models, methods=["GET"]),
            Route("/v1/models/{name:path}", endpoints.model, methods=["GET"]),
            Route("/v1/chat/completions", endpoints.chat, methods=["POST"]),
            Route("/v1/completions", endpoints.completions, methods=["POST"]),
        ],
        exception_handlers={
            RefusedError: _refuse,
            EdgeError: _refuse,
            HTTPException: _refuse,
            ClientDisconnect: _refuse,
            Exception: _refuse,
        },
    )


class _Endpoints:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._began = int(time.time())
        self._preparing = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="edgesdk-tokens")

    async def health(self, request: HttpRequest) -> Response:
        self._check_host(request)
        counts = asdict(self._service.engine.counts())
        return JSONResponse({"status": "ok", "model": self._service.name, "level": self._service.model.level, **counts})

    async def models(self, request: HttpRequest) -> Response:
        self._check_caller(request)
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: HttpRequest) -> Response:
        self._check_caller(request)
        self._check_name(request.path_params["name"])
        return JSONResponse(self._model())

    async def chat(self, request: HttpRequest) -> Reply:
        return await self._reply(request, ChatRequest, ChatAnswer)

    async def completions(self, request: HttpRequest) -> Reply:
        return await self._reply(request, CompletionRequest, CompletionAnswer)

    async def _reply(self, request: HttpRequest, kind: type[Request], answer_kind: type[Answer]) -> Reply:
        service, timeout_s = self._service, self._service.limits.timeout_s
        deadline = anyio.current_time() + timeout_s
        self._check_caller(request)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            found = request.headers.get("content-type", "missing")
            raise RefusedError(415, f"the content type is {found}, expected application/json")
        try:
            with anyio.fail_after(timeout_s):
                asked = parse(kind, await _read(request, service.limits.max_body_bytes))
                self._check_name(asked.model)
                loop = asyncio.get_running_loop()
                task = await loop.run_in_executor(self._preparing, _prepare, service.model, asked)
        except TimeoutError as error:
            raise timed_out(timeout_s) from error
        scored = task.n_logprobs is not None
        backend = "-".join(dict.fromkeys((service.model.backend.name, service.model.backend.decode_name)))
        fingerprint = f"edgesdk-{__version__}-level-{service.model.level}" + f"-{backend}" * (backend != "cpu")
        answer = answer_kind(service.name, fingerprint, service.model.token_bytes, scored=scored)
        return Reply(service.engine, task, asked, answer, deadline=deadline, timeout_s=timeout_s)

    def _model(self) -> dict[str, Any]:
        model = self._service.model
        level = model.levels[model.level]
        meta: dict[str, Any] = {"level": level.index, "rate": level.rate, "mapped_bytes": level.mapped_bytes}
        meta |= {"context": model.context, "backend": model.backend.name}
        meta["decode_backend"] = model.backend.decode_name
        name = self._service.name
        return {"id": name, "object": "model", "created": self._began, "owned_by": "edgesdk", "meta": meta}

    def _check_name(self, name: str) -> None:
        if name != self._service.name:
            raise RefusedError(
                404,
                f"there is no model `{name}`, this server has `{self._service.name}`",
                param="model",
                code="model_not_found",
            )

    def _check_host(self, request: HttpRequest) -> None:
        hosts, given = self._service.hosts, request.headers.get("host", "")
        found = re.fullmatch(r"\[?([^\[\]]+?)\]?(?::\d+)?", given)
        if hosts is not None and (found is None or found[1].lower() not in hosts):
            raise RefusedError(
                403, f"the host is {given!r}, expected {' or '.join(sorted(hosts))}", code="unknown_host"
            )

    def _check_caller(self, request: HttpRequest) -> None:
        self._check_host(request)
        key = self._service.api_key
        if key is None:
            return
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode("latin-1"), f"Bearer {key}".encode()):
            what = "the API key is wrong" if given else "no API key was given"
            raise RefusedError(
                401,
                f"{what}, expected the header `Authorization: Bearer KEY`",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )


def _prepare(model: Model, asked: Request) -> Task:
    """Turns a request into tokens. Raises RefusedError when they leave no room in the context."""
    if isinstance(asked, ChatRequest):
        text = model.render([message.for_template() for message in asked.messages])
        tokens = model.tokenize(text, special=True, add_bos=False)
    elif isinstance(asked, CompletionRequest):
        tokens = model.tokenize(asked.prompt) if isinstance(asked.prompt, str) else list(asked.prompt)
    else:
        raise TypeError(f"no kind of request: {type(asked).__name__}")
    _check_tokens(tokens, model, asked.prompt_name)
    room = model.context - len(tokens)
    limit = asked.limit()
    return Task(tokens, room if limit is None else min(limit, room), asked.sampling(), asked.stop, asked.n_logprobs())


def _check_tokens(tokens: Sequence[int], model: Model, name: str) -> None:
    if not tokens:
        raise RefusedError(400, f"`{name}` is empty, there is nothing to continue", param=name, code="invalid_value")
    if len(tokens) >= model.context:
        raise RefusedError(
            400,
            f"`{name}` has {len(tokens)} tokens, which leave no room for an answer in the context of {model.context}",
            param=name,
            code="context_length_exceeded",
        )
    wrong = next((token for token in tokens if not 0 <= token < model.vocab_size), None)
    if wrong is not None:
        last = model.vocab_size - 1
        raise RefusedError(400, f"`{name}` has token {wrong}, expected 0 to {last}", param=name, code="invalid_value")


async def _read(request: HttpRequest, max_bytes: int) -> bytes:
    """The body. One that is too large is read on for a while, or its sender would never read the refusal."""
    parts: list[bytes] = []
    n_bytes = 0
    async for part in request.stream():
        n_bytes += len(part)
        if n_bytes <= max_bytes:
            parts.append(part)
        elif n_bytes > _MOST_DISCARDED * max_bytes:
            break
    if n_bytes > max_bytes:
        raise RefusedError(413, f"the body has more than {max_bytes} bytes", code="request_too_large")
    return b"".join(parts)


async def _refuse(request: HttpRequest, error: Exception) -> Response:
    """Every error as OpenAI's API writes it."""
    if isinstance(error, RefusedError):
        return error.response()
    if isinstance(error, EdgeError):
        return RefusedError.of(error).response()
    if isinstance(error, HTTPException):
        text = f"{request.method} {request.url.path}: {error.detail}"
        return RefusedError(error.status_code, text, headers=error.headers).response()
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)  # nobody is there to read it
    return RefusedError(500, "this is a defect in edgesdk; the server's log says more", kind="server_error").response()
