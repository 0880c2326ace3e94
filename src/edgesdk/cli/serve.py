"""`edgesdk serve`: an HTTP server for one artifact, with OpenAI's API."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from edgesdk.cli.console import print_json, say, say_backend, size
from edgesdk.cli.options import (
    Adaptive,
    Artifact,
    Backend,
    Budget,
    Context,
    DecodeBackend,
    Json,
    KvBits,
    Level,
    Lock,
    Rate,
    Threads,
    Verify,
    examples,
)
from edgesdk.serve.limits import Limits

if TYPE_CHECKING:
    from edgesdk.serve.server import Running

__all__ = ["EXAMPLES", "serve"]

EXAMPLES = examples(
    "edgesdk serve model.edge",
    "edgesdk serve model.edge --budget 200MB --max-concurrent 4 --port 9000",
    "EDGE_API_KEY=secret edgesdk serve model.edge --host 0.0.0.0",
)
_DEFAULT = Limits()


def serve(
    path: Artifact,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen at; 127.0.0.1 can be reached from this machine only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8000,
    rate: Rate = None,
    budget: Budget = None,
    level: Level = None,
    context: Context = None,
    threads: Threads = None,
    verify: Verify = "lazy",
    kv_bits: KvBits = 8,
    lock: Lock = False,
    adaptive: Adaptive = False,
    backend: Backend = "cpu",
    decode_backend: DecodeBackend = None,
    max_concurrent: Annotated[
        int, typer.Option("--max-concurrent", min=1, help="Answers at a time; each has a key/value cache of its own.")
    ] = _DEFAULT.max_concurrent,
    max_waiting: Annotated[
        int, typer.Option("--max-waiting", min=0, help="Requests that may wait; more get status 429.")
    ] = _DEFAULT.max_waiting,
    max_body: Annotated[str, typer.Option("--max-body", help="Bytes of a request, such as 1MiB.")] = "1MiB",
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.001, help="Seconds for a request, waiting included.")
    ] = _DEFAULT.timeout_s,
    idle_s: Annotated[
        float, typer.Option("--idle", min=0.0, help="Seconds after which an unused session gives its memory back.")
    ] = _DEFAULT.idle_s,
    connection_idle_s: Annotated[
        int,
        typer.Option("--connection-idle", min=1, help="Seconds after which a connection without a request is closed."),
    ] = _DEFAULT.connection_idle_s,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            envvar="EDGE_API_KEY",
            help="Key that clients must send. Other users can read options; the variable is safer.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the model. Default: its own.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Serve a level over HTTP with OpenAI's API: chat completions, completions, models. Ctrl-C stops it.

    Budget and measured memory are for as many sessions as there may be answers at a time. The measured memory is this
    machine's: a GPU with memory of its own wants a --budget.
    With --json: one line on stdout when requests are taken.
    """
    from edgesdk.device.model import parse_bytes
    from edgesdk.serve.server import is_loopback, load_for_sessions
    from edgesdk.serve.server import serve as serve_model

    limits = Limits(max_concurrent, max_waiting, parse_bytes(max_body), timeout_s, idle_s, connection_idle_s)
    load_model = partial(
        load_for_sessions,
        path,
        max_concurrent,
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
    if not is_loopback(host):
        _warn(host, has_key=bool(api_key))
    serve_model(
        load_model,
        limits,
        host=host,
        port=port,
        name=name,
        api_key=api_key or None,
        ready=partial(_announce, limits=limits, as_json=as_json),
    )


def _warn(host: str, *, has_key: bool) -> None:
    if has_key:
        say(f"{host} can be reached over the network: requests, answers and the API key travel unencrypted")
    else:
        say(f"{host} can be reached over the network: anyone there can use this server")
        say("hint: ask for a key (`--api-key`), or listen at 127.0.0.1")


def _announce(running: Running, *, limits: Limits, as_json: bool) -> None:
    model = running.model
    say(running.reason)
    say_backend(model.backend)
    say(f"{limits.max_concurrent} answers at a time need {size(running.total_bytes)} with their weights")
    say(f"`{running.name}` at {running.url}/v1")
    if as_json:
        report = {"url": running.url, "model": running.name, "level": model.level, "rate": model.rate}
        report |= {"context": model.context, "backend": model.backend.name, "total_bytes": running.total_bytes}
        print_json(report, one_line=True)
