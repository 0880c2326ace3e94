"""Tasks on this machine: in this process, or in as many others as there are cores and memory for."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from edgesdk.cloud.memory import available_bytes
from edgesdk.cloud.tasks.executor import Executor, one_thread
from edgesdk.errors import EdgeError

__all__ = ["LocalExecutor", "connected"]

R = TypeVar("R")


@contextmanager
def connected(address: str | None) -> Iterator[Executor]:
    """The executor of this machine, which has no address."""
    yield LocalExecutor()


class LocalExecutor:
    """See `Executor`."""

    def run(
        self, function: Callable[..., R], jobs: Sequence[tuple[Any, ...]], *, n_bytes: int, small: bool
    ) -> Iterator[tuple[int, R]]:
        """Processes of their own are worth starting where two or more have room and work."""
        n_workers = min(len(jobs), len(os.sched_getaffinity(0)), available_bytes() // max(n_bytes, 1))
        if small or n_workers < 2:
            for position, job in enumerate(jobs):
                with one_thread():
                    result = function(*job)
                yield position, result
                del result
        else:
            yield from _run_elsewhere(function, jobs, n_workers)


def _run_elsewhere(
    function: Callable[..., R], jobs: Sequence[tuple[Any, ...]], n_workers: int
) -> Iterator[tuple[int, R]]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n_workers, context, initializer=_begin_worker) as pool:
        waiting = {pool.submit(function, *job): position for position, job in enumerate(jobs)}
        try:
            for done in as_completed(list(waiting)):
                yield waiting.pop(done), done.result()
                del done
        except BrokenProcessPool as error:
            raise EdgeError(
                "a process of the build was ended from outside",
                hint="memory may have run out; what was finished is kept: start the build again, on fewer cores "
                "(`taskset -c 0`) if this happens again",
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin_worker() -> None:
    """One thread computes; another one ends the process when the build was killed, which would leave it waiting."""
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
