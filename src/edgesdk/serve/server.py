"""Loads a level that fits with all its sessions, and runs the server until it is told to stop."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from edgesdk.device import Model, load, memory_budget
from edgesdk.device.model import BackendName, DecodeBackendName, Verify, parse_bytes
from edgesdk.errors import EngineError, MemoryBudgetError, MissingExtraError
from edgesdk.serve.limits import Limits

try:
    import uvicorn

    from edgesdk.serve.app import Service, create_app
    from edgesdk.serve.connection import IdleLimitedProtocol
    from edgesdk.serve.engine import Engine
except ModuleNotFoundError as missing:
    raise MissingExtraError(
        f"the server needs `{missing.name}`, which is not installed", hint="pip install 'edgesdk[serve]'"
    ) from missing

__all__ = ["Running", "is_loopback", "load_for_sessions", "needed_bytes", "serve"]

_GRACE_S = 5
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Running:
    """A server that takes requests: its address, its model and why that level, and the bytes that all sessions need."""

    url: str
    name: str
    model: Model
    reason: str
    total_bytes: int


def serve(
    load_model: Callable[[], tuple[Model, str]],
    limits: Limits,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
    api_key: str | None = None,
    ready: Callable[[Running], None],
) -> None:
    """Serves a model until SIGINT or SIGTERM; answers under way then get a few seconds.

    load_model: gives what `load_for_sessions` gives; it is called once the address is known to be free
    port: 0 takes a free one; name: of the model, for clients (default: its own); ready: called when requests are taken
    Raises EngineError when it cannot listen at the address.
    """
    listener = _listen(host, port)
    with ExitStack() as stack:
        stack.enter_context(listener)
        model, reason = load_model()
        stack.enter_context(model)
        served = name if name is not None else str(model.metadata["model"]["name"])
        engine = Engine(model, limits)
        try:
            hosts = frozenset({*_LOOPBACK_NAMES, host.lower()}) if is_loopback(host) else None
            app = create_app(Service(model, engine, limits, served, api_key, hosts))
            config = uvicorn.Config(
                app,
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                http=IdleLimitedProtocol,
                ws="none",
                lifespan="off",
                timeout_keep_alive=limits.connection_idle_s,
                timeout_graceful_shutdown=_GRACE_S,
                limit_concurrency=2 * (limits.max_concurrent + limits.max_waiting) + 16,
            )
            shown = f"[{host}]" if ":" in host else host
            url = f"http://{shown}:{listener.getsockname()[1]}"
            ready(Running(url, served, model, reason, needed_bytes(model, model.level, limits.max_concurrent)))
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            engine.close()


def load_for_sessions(
    path: str | os.PathLike[str],
    n_sessions: int,
    *,
    rate: float | None = None,
    budget: int | str | None = None,
    level: int | None = None,
    context: int | None = None,
    threads: int | None = None,
    verify: Verify = "lazy",
    kv_bits: int = 8,
    lock: bool = False,
    adaptive: bool = False,
    backend: BackendName = "cpu",
    decode_backend: DecodeBackendName | None = None,
) -> tuple[Model, str]:
    """As `edgesdk.load`, but the budget, or the measured memory, is for so many sessions instead of one.

    The measured memory is this machine's: a GPU that has its own wants a budget.
    Returns the model, and in one line why it has this level.
    Raises MemoryBudgetError when the smallest level does not fit with all of them.
    """
    reason = ""
    if rate is None and level is None and n_sessions > 1:
        granted, why = memory_budget() if budget is None else (parse_bytes(budget), "the budget as given")
        how: dict[str, Any] = {"threads": threads, "verify": "off", "kv_bits": kv_bits}
        how |= {"backend": "cpu" if adaptive and backend == "auto" else backend, "decode_backend": decode_backend}
        with load(path, level=0, context=context, **how) as smallest:
            needed = {
                one.index: needed_bytes(smallest, one.index, n_sessions) for one in smallest.levels if one.available
            }
            fitting = [index for index, n_bytes in needed.items() if n_bytes <= granted]
            if not fitting:
                raise MemoryBudgetError(
                    f"the smallest level with {n_sessions} sessions of {smallest.context} tokens needs {needed[0]} "
                    f"bytes, {granted} are granted ({why})",
                    hint="lower --max-concurrent or --context",
                )
        budget, level = None, max(fitting)
        reason = (
            f"level {level} of 0..{len(needed) - 1}: the largest that fits with {n_sessions} sessions, "
            f"{needed[level]} of {granted} bytes ({why})"
        )
    model = load(
        path,
        rate=rate,
        budget=budget,
        level=level,
        context=context,
        threads=threads,
        verify=verify,
        kv_bits=kv_bits,
        lock=lock,
        adaptive=adaptive,
        backend=backend,
        decode_backend=decode_backend,
    )
    return model, reason or model.reason


def needed_bytes(model: Model, level: int, n_sessions: int) -> int:
    """What a level needs with so many sessions. Tables that they share are counted for each, so it is a bound."""
    one = model.estimate(level)
    return one.total_bytes + (n_sessions - 1) * (one.kv_bytes + one.workspace_bytes)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise EngineError(
            f"cannot listen at {host} port {port}: {error}", hint="give another --port (0 takes a free one) or --host"
        ) from error
