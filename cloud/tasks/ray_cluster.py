"""Tasks on a Ray cluster. Inputs and results travel as objects; Ray starts a task anew when its worker is lost."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, TypeVar
from urllib.parse import urlsplit

from edgesdk.cloud.tasks.executor import Executor, one_thread
from edgesdk.cloud.tasks.inputs import StoredFile
from edgesdk.errors import EdgeError, MissingExtraError, UsageError

__all__ = ["AUTO", "RayExecutor", "connected"]

AUTO = "auto"
"""The address of the cluster that runs on this machine, or that RAY_ADDRESS names."""

_REACH_SECONDS = 5.0
_RETRIES = 3  # of a task whose worker or node is lost
_WAITING = 1  # tasks beyond those that run: their inputs lie in Ray's object store already

R = TypeVar("R")


@contextmanager
def connected(address: str | None) -> Iterator[Executor]:
    """A connection to a running cluster. address: HOST:PORT, ray://HOST:PORT, or `auto`.

    Raises MissingExtraError without the package ray, EdgeError when there is no cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError(
            "a build on a Ray cluster needs the package ray", hint="pip install 'edgesdk[ray]'"
        ) from error
    address = address or AUTO
    if address != AUTO:
        _check_reachable(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:  # ConnectionError is an OSError
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise EdgeError(
            f"no Ray cluster at `{address}`: {reason}",
            hint="start one with `ray start --head` and give the HOST:PORT that it prints, or build without --ray",
        ) from error
    try:
        yield RayExecutor(ray)
    finally:
        ray.shutdown()


class RayExecutor:
    """See `Executor`; ray: the connected package."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def run(
        self, function: Callable[..., R], jobs: Sequence[tuple[Any, ...]], *, n_bytes: int, small: bool
    ) -> Iterator[tuple[int, R]]:
        """Every job is a task with one core and n_bytes of memory on any node, be they small or not."""
        ray = self._ray
        self._check_room(n_bytes)
        perform = ray.remote(num_cpus=1, memory=n_bytes, max_retries=_RETRIES)(_perform)
        at_once = max(1, int(ray.cluster_resources().get("CPU", 1))) + _WAITING
        left = iter(enumerate(jobs))
        running: dict[Any, int] = {}
        while True:
            for position, job in left:
                given = tuple(part.sent() if isinstance(part, StoredFile) else part for part in job)
                running[perform.remote(_versions(), function, given)] = position
                del given
                if len(running) >= at_once:
                    break
            if not running:
                return
            (done,), _ = ray.wait(list(running), num_returns=1)
            yield running.pop(done), self._result(done)

    def _result(self, done: Any) -> Any:
        try:
            return self._ray.get(done)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, EdgeError):
                cause = error.cause
                raise type(cause)(f"on a node of the Ray cluster: {cause.message}", hint=cause.hint) from error
            raise EdgeError(
                f"a task failed on a node of the Ray cluster: {error.cause!r}",
                hint="every node needs the same edgesdk[cloud] as this machine; what was finished is kept",
            ) from error
        except self._ray.exceptions.RayError as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise EdgeError(
                f"a task was lost on the Ray cluster {_RETRIES + 1} times: {reason}",
                hint="its nodes may lack memory; what was finished is kept: start the build again",
            ) from error

    def _check_room(self, n_bytes: int) -> None:
        """Ray would wait for ever for a node that is large enough."""
        most = max((node["Resources"].get("memory", 0) for node in self._ray.nodes() if node["Alive"]), default=0)
        if most < n_bytes:
            raise EdgeError(
                f"a task needs {n_bytes / 1e9:.1f} GB of memory, the largest node of the Ray cluster has "
                f"{most / 1e9:.1f}",
                hint="add a larger node, or start it with a larger `ray start --memory`",
            )


def _perform(versions: dict[str, str], function: Callable[..., R], job: tuple[Any, ...]) -> R:
    """On a node. Other versions could make other bits."""
    if versions != _versions():
        raise UsageError(
            f"this node has {_listed(_versions())}, the build began with {_listed(versions)}",
            hint="install the same versions on every node",
        )
    with one_thread():
        return function(*job)


def _versions() -> dict[str, str]:
    import edgesdk

    return {"edgesdk": edgesdk.__version__, "torch": version("torch")}


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def _check_reachable(address: str) -> None:
    """Raises EdgeError now where Ray would try for minutes."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise UsageError(f"`{address}` is no address of a Ray cluster", hint="it is HOST:PORT, ray://HOST:PORT or auto")
    try:
        socket.create_connection((host, port), timeout=_REACH_SECONDS).close()
    except OSError as error:
        raise EdgeError(
            f"no Ray cluster at `{address}`: {error.strerror or error}",
            hint="start one with `ray start --head` and give the HOST:PORT that it prints, or build without --ray",
        ) from error
