"""The one thread that computes: it owns the sessions and lets a bounded number of answers take turns.

A session computes with all threads of the model, so two that compute at once would only take the cores from each other.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edgesdk.device import Generation, Model, Session
from edgesdk.device.generation import Finish, Step
from edgesdk.device.session import Sampling
from edgesdk.errors import CancelledError, EdgeError, EngineError
from edgesdk.serve.limits import Limits

__all__ = ["BusyError", "Counts", "End", "Engine", "Event", "Job", "Task"]

_TURN_S = 0.02


class BusyError(EdgeError):
    """As many requests wait as may wait."""


@dataclass(frozen=True)
class Task:
    """What to generate: the prompt's tokens and the arguments of `Generation`."""

    tokens: list[int]
    max_tokens: int
    sampling: Sampling
    stops: list[str]
    n_logprobs: int | None


@dataclass(frozen=True)
class End:
    """The end of an answer, in tokens; n_cached of the prompt's were not computed again."""

    finish: Finish
    n_prompt: int
    n_cached: int
    n_generated: int


@dataclass(frozen=True)
class Counts:
    """Answers that take turns now, requests that wait, sessions that are open, and answers by how they ended."""

    active: int
    waiting: int
    sessions: int
    finished: int
    cancelled: int
    failed: int


Event = Step | End | EdgeError
"""What an answer tells: steps, then an end or an error. One that was cancelled tells nothing more."""


class Job:
    """One answer: `emit`, which must not raise, gets its events in the engine's thread. Made by `Engine.submit`."""

    def __init__(self, task: Task, emit: Callable[[Event], None]) -> None:
        self.task = task
        self.emit = emit
        self.cancelled = False
        self.session: Session | None = None
        self.generation: Generation | None = None


class Engine:
    """Generates answers with the sessions of one model. Its methods may be called from any thread."""

    def __init__(self, model: Model, limits: Limits) -> None:
        self._model = model
        self._limits = limits
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._active: deque[Job] = deque()
        self._idle: deque[tuple[float, Session]] = deque()  # since when; changed by the engine's thread only
        self._ended = {"finished": 0, "cancelled": 0, "failed": 0}
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="edgesdk-engine", daemon=True)
        self._thread.start()

    def submit(self, task: Task, emit: Callable[[Event], None]) -> Job:
        """Queues a task. Raises BusyError when too many wait, EngineError after `close`."""
        job = Job(task, emit)
        with self._changed:
            if self._closed:
                raise _stopping()
            if len(self._waiting) + len(self._active) >= self._limits.max_concurrent + self._limits.max_waiting:
                raise BusyError(
                    f"{len(self._active)} answers are being generated and {len(self._waiting)} requests wait",
                    hint="try again later",
                )
            self._waiting.append(job)
            self._changed.notify()
        return job

    def cancel(self, job: Job) -> None:
        """Ends a job wherever it is; one that has ended stays as it is."""
        with self._changed:
            job.cancelled = True
            if job.session is not None:
                job.session.cancel()
            elif job in self._waiting:
                self._waiting.remove(job)
                self._ended["cancelled"] += 1

    def counts(self) -> Counts:
        """What goes on now, and what has been."""
        with self._changed:
            n_sessions = len(self._idle) + sum(job.session is not None for job in self._active)
            return Counts(len(self._active), len(self._waiting), n_sessions, **self._ended)

    def close(self) -> None:
        """Ends everything, and closes the sessions."""
        with self._changed:
            self._closed = True
            for job in self._active:
                job.cancelled = True
                if job.session is not None:
                    job.session.cancel()
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            self._take_turn(job)
        for job in (*self._active, *self._waiting):
            job.session = job.generation = None
            job.emit(_stopping())
        self._active.clear()
        self._waiting.clear()
        self._idle.clear()

    def _next(self) -> Job | None:
        """Waits for a job whose turn it is; None after `close`."""
        with self._changed:
            self._expire()
            while not (self._closed or self._waiting or self._active):
                self._changed.wait(self._idle[0][0] + self._limits.idle_s - time.monotonic() if self._idle else None)
                self._expire()
            if self._closed:
                return None
            if self._waiting and len(self._active) < self._limits.max_concurrent:
                self._active.append(self._waiting.popleft())
            self._active.rotate(-1)
            return self._active[-1]

    def _expire(self) -> None:
        while self._idle and time.monotonic() - self._idle[0][0] >= self._limits.idle_s:
            self._idle.popleft()

    def _take_turn(self, job: Job) -> None:
        try:
            last = self._go_on(job)
        except CancelledError:
            self._end(job, "cancelled")
        except EdgeError as error:
            self._end(job, "failed", error)
        except Exception as error:  # noqa: BLE001  a defect ends one answer, not the server
            self._end(job, "failed", EngineError(f"this is a defect in edgesdk: {type(error).__name__}: {error}"))
        else:
            if last is not None:
                self._end(job, "finished", last)

    def _go_on(self, job: Job) -> End | None:
        """Takes steps for a while; at the end of the answer returns it."""
        turn_end = time.monotonic() + _TURN_S
        generation = job.generation or self._begin(job)
        while generation.finish is None and time.monotonic() < turn_end:
            step = generation.step()
            if step.text or step.tokens:
                job.emit(step)
        if generation.finish is None:
            return None
        return End(generation.finish, len(job.task.tokens), generation.n_cached, generation.n_generated)

    def _begin(self, job: Job) -> Generation:
        """Takes the idle session whose cache has most of the prompt; of equals, the one that was idle for longest."""
        best = max(self._idle, key=lambda idle: idle[1].n_shared(job.task.tokens), default=None)
        session = self._model.session() if best is None else best[1]
        with self._changed:
            if best is not None:
                self._idle.remove(best)
            job.session = session
            if job.cancelled:
                raise CancelledError("cancelled before it began")
        task = job.task
        job.generation = Generation(
            session, task.tokens, task.max_tokens, task.sampling, task.stops, n_logprobs=task.n_logprobs
        )
        return job.generation

    def _end(self, job: Job, how: str, last: End | EdgeError | None = None) -> None:
        """Takes a job off its session, which is kept unless it failed."""
        with self._changed:
            session, job.session, job.generation = job.session, None, None
            if session is not None and how != "failed":
                if job.cancelled:
                    session.reset()  # a cancel that came too late would end the next answer
                self._idle.append((time.monotonic(), session))
            self._active.remove(job)
            self._ended[how] += 1
        if last is not None:
            job.emit(last)


def _stopping() -> EngineError:
    return EngineError("the server is stopping")
