"""The reply to one request, whole or as server-sent events; it is given up when its client goes or time is over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from edgesdk.device.generation import ScoredToken, Step
from edgesdk.errors import EdgeError
from edgesdk.serve.answers import Answer
from edgesdk.serve.engine import End, Engine, Event, Job, Task
from edgesdk.serve.refused import RefusedError
from edgesdk.serve.schema import Request

__all__ = ["Reply", "timed_out"]

_LAST_WORDS_S = 5.0  # for telling a client why its stream ends


class Reply:
    """Generates an answer and sends it: an ASGI application for one request.

    deadline: on the event loop's clock (`anyio.current_time`); timeout_s: what it was made of, for the message
    """

    def __init__(
        self, engine: Engine, task: Task, asked: Request, answer: Answer, *, deadline: float, timeout_s: float
    ) -> None:
        self._engine = engine
        self._task = task
        self._asked = asked
        self._answer = answer
        self._deadline = deadline
        self._timeout_s = timeout_s
        self._begun = False  # the headers of a stream are sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the answer; ends its generation with it, whatever happens."""
        events: asyncio.Queue[Event] = asyncio.Queue()
        job = self._engine.submit(self._task, _into(events))
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(_until_gone, receive, group.cancel_scope)
                await self._send(job, events, scope, receive, send)
                group.cancel_scope.cancel()
        finally:
            self._engine.cancel(job)

    async def _send(self, job: Job, events: asyncio.Queue[Event], scope: Scope, receive: Receive, send: Send) -> None:
        sending = self._stream(events, send) if self._asked.stream else self._whole(events, scope, receive, send)
        refused = None
        try:
            with anyio.fail_after(self._deadline - anyio.current_time()):
                await sending
        except TimeoutError:
            refused = timed_out(self._timeout_s)
        except EdgeError as error:
            refused = RefusedError.of(error)
        if refused is None:
            return
        self._engine.cancel(job)
        with anyio.move_on_after(_LAST_WORDS_S):
            if self._begun:
                await send(_body(_event(refused.body), more=False))
            else:
                await refused.response()(scope, receive, send)

    async def _whole(self, events: asyncio.Queue[Event], scope: Scope, receive: Receive, send: Send) -> None:
        texts: list[str] = []
        tokens: list[ScoredToken] = []
        while isinstance(event := await _next(events), Step):
            texts.append(event.text)
            tokens += event.tokens
        await JSONResponse(self._answer.whole("".join(texts), tokens, event))(scope, receive, send)

    async def _stream(self, events: asyncio.Queue[Event], send: Send) -> None:
        include_usage = self._asked.include_usage
        event = await _next(events)  # an error before it is an error of HTTP still
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        self._begun = True
        await send(_body("".join(map(_event, self._answer.opening(include_usage=include_usage)))))
        while True:
            await send(_body("".join(map(_event, self._answer.chunks(event, include_usage=include_usage)))))
            if isinstance(event, End):
                break
            event = await _next(events)
        await send(_body("data: [DONE]\n\n", more=False))


def timed_out(timeout_s: float) -> RefusedError:
    """What a client gets when its time is over. Its library is told not to try the same again."""
    return RefusedError(
        504,
        f"the answer was not ready {timeout_s:g} s after the request",
        kind="server_error",
        code="timeout",
        headers={"x-should-retry": "false"},
    )


def _into(events: asyncio.Queue[Event]) -> Callable[[Event], None]:
    """Puts events into a queue of this event loop, from any thread."""
    loop = asyncio.get_running_loop()

    def emit(event: Event) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it who waited
            loop.call_soon_threadsafe(events.put_nowait, event)

    return emit


async def _next(events: asyncio.Queue[Event]) -> Step | End:
    event = await events.get()
    if isinstance(event, EdgeError):
        raise event
    return event


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    """Waits until the client has gone, and then cancels."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(',', ':'))}\n\n"


def _body(text: str, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": text.encode(), "more_body": more}
