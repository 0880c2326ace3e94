"""Where work on single weights and blocks is done: on this machine, or on a Ray cluster. One file each, one line here.

A task is a function of a module and its arguments. It reads no file but the checkpoint's and those that it is given as
`StoredFile`, writes none, and computes on one thread: its result is the same wherever it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from edgesdk.cloud.tasks import local, ray_cluster
from edgesdk.cloud.tasks.executor import Executor, one_thread
from edgesdk.cloud.tasks.inputs import ModelFiles, StoredFile

__all__ = ["EXECUTORS", "Executor", "ModelFiles", "StoredFile", "one_thread", "open_executor"]

EXECUTORS: dict[str, Callable[[str | None], AbstractContextManager[Executor]]] = {
    "local": local.connected,  # this process, or others of this machine
    "ray": ray_cluster.connected,  # workers of a Ray cluster, by its address
}


def open_executor(ray: str | None = None) -> AbstractContextManager[Executor]:
    """What runs tasks until the context ends. ray: address of a cluster, `auto` for the one of this machine.

    Raises MissingExtraError without the package ray, EdgeError when the cluster cannot be reached.
    """
    return EXECUTORS["local" if ray is None else "ray"](ray)
