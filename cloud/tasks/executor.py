"""What every executor offers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch

__all__ = ["Executor", "one_thread"]

R = TypeVar("R")


class Executor(Protocol):
    """Runs tasks, as many at once as it has room for."""

    def run(
        self, function: Callable[..., R], jobs: Sequence[tuple[Any, ...]], *, n_bytes: int, small: bool
    ) -> Iterator[tuple[int, R]]:
        """Calls function(*job) for every job; yields (position of the job, result) as they are done.

        n_bytes: memory that a job needs at most; small: all jobs together are less work than starting processes
        """
        ...


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums of floats depend on the number of threads: inside, torch uses one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
