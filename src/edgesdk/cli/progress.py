"""A bar for each step of a build, on stderr, with the time that is left."""

from __future__ import annotations

from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from edgesdk.cli.console import stderr_console

__all__ = ["StepProgress"]


class StepProgress:
    """Called with (step, done, total) as work goes on; a step's bar appears with its first call.

    Without a terminal, one line is written when a step begins.
    """

    def __init__(self) -> None:
        console = stderr_console()
        self._console = console
        self._tasks: dict[str, TaskID] = {}
        self._bars = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> StepProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, step: str, done: int, total: int) -> None:
        """Shows that `done` of `total` units of a step are finished."""
        if step not in self._tasks:
            self._tasks[step] = self._bars.add_task(step, total=total)
            if not self._console.is_terminal:
                self._console.print(step, markup=False)
        self._bars.update(self._tasks[step], completed=done, total=total)
