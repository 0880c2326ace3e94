"""The engine's thread by itself: turns, order, cancels that come at any time, errors of one answer."""

from __future__ import annotations

import queue
import threading
import time

import pytest
from device_artifacts import write_tiny

import edgesdk
from edgesdk.device.generation import Step
from edgesdk.device.session import Sampling
from edgesdk.serve.engine import BusyError, End, Engine, Task
from edgesdk.serve.limits import Limits

GREEDY = Sampling(0.0, 0, 1.0, 0.0, 1.0, 0)
PROMPTS = [f"prompt {i}" for i in range(8)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = write_tiny(tmp_path_factory.mktemp("engine") / "tiny.edge", max_context=4096, tied_head=False)
    with edgesdk.load(path, context=4096) as model:
        yield model


@pytest.fixture
def start(model):
    """Makes engines; closes them in the end."""
    engines = []

    def make(**limits):
        engines.append(Engine(model, Limits(**limits)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def task(model, prompt, max_tokens=12):
    return Task(model.tokenize(prompt), max_tokens, GREEDY, [], None)


def result(events):
    """(text, last event) of an answer."""
    text = ""
    while isinstance(event := events.get(timeout=60), Step):
        text += event.text
    return text, event


def submit(engine, given):
    events = queue.SimpleQueue()
    return engine.submit(given, events.put), events


def submit_slow(engine, given):
    """An answer whose first event takes longer than a turn: others begin before it ends."""
    events, delays = queue.SimpleQueue(), [0.1]

    def emit(event):
        events.put(event)
        time.sleep(delays.pop() if delays else 0)

    engine.submit(given, emit)
    return events


def wait_until(held):
    deadline = time.monotonic() + 60
    while not held():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def blocked(engine, model):
    """Holds the engine's thread in an answer's first step until the returned event is set."""
    go_on = threading.Event()
    job = engine.submit(task(model, "abc", 5), lambda _: go_on.wait(60))
    wait_until(lambda: engine.counts().active == 1)
    return job, go_on


@pytest.mark.parametrize("max_concurrent", [1, 3, 8])
def test_answers_by_turns_are_those_of_the_library(model, start, max_concurrent):
    engine = start(max_concurrent=max_concurrent)
    running = [submit(engine, task(model, prompt, 40))[1] for prompt in PROMPTS * 3]
    for prompt, events in zip(PROMPTS * 3, running, strict=True):
        text, end = result(events)
        assert text == model.generate(prompt, max_tokens=40)
        assert isinstance(end, End)
    counts = engine.counts()
    assert (counts.finished, counts.active, counts.waiting) == (24, 0, 0)
    assert counts.sessions <= max_concurrent


def test_first_come_first_served(model, start):
    engine = start(max_concurrent=1)
    _, go_on = blocked(engine, model)
    order = []
    running = []
    for index in range(5):
        events = queue.SimpleQueue()

        def emit(event, index=index, events=events):
            order.append(index)
            events.put(event)

        engine.submit(task(model, PROMPTS[index], 2), emit)
        running.append(events)
    go_on.set()
    for events in running:
        result(events)
    assert order == sorted(order)
    assert set(order) == set(range(5))


def test_too_many_are_refused(model, start):
    engine = start(max_concurrent=1, max_waiting=2)
    _, go_on = blocked(engine, model)
    for _ in range(2):
        submit(engine, task(model, "abc"))
    with pytest.raises(BusyError, match="2 requests wait"):
        submit(engine, task(model, "abc"))
    go_on.set()
    wait_until(lambda: engine.counts().finished == 3)
    submit(engine, task(model, "abc"))


def test_a_cancel_while_waiting_and_while_running(model, start):
    engine = start(max_concurrent=1)
    first, go_on = blocked(engine, model)
    waiting, events = submit(engine, task(model, "abc"))
    engine.cancel(waiting)
    engine.cancel(waiting)
    assert (engine.counts().waiting, engine.counts().cancelled) == (0, 1)
    engine.cancel(first)
    go_on.set()
    wait_until(lambda: engine.counts().active == 0)
    assert events.empty()
    assert result(submit(engine, task(model, "abc"))[1])[0] == model.generate("abc", max_tokens=12)


def test_a_cancel_that_comes_too_late_does_not_end_the_next_answer(model, start):
    engine = start(max_concurrent=1)
    submitted = threading.Event()
    jobs = []

    def cancel(event):
        submitted.wait(60)
        engine.cancel(jobs[0])  # the only token is there, and the session not yet given back

    jobs.append(engine.submit(task(model, "abc", 1), cancel))
    submitted.set()
    wait_until(lambda: engine.counts().finished == 1)
    text, end = result(submit(engine, task(model, "abc"))[1])
    assert isinstance(end, End)
    assert text == model.generate("abc", max_tokens=12)


@pytest.mark.parametrize("seed", range(4))
def test_cancels_at_any_time_hit_nobody_else(model, start, seed):
    """Every second answer is cancelled at a moment of its own; the others are whole."""
    engine = start(max_concurrent=2)
    running = []
    for index in range(60):
        prompt = PROMPTS[index % len(PROMPTS)]
        job, events = submit(engine, task(model, prompt, 30))
        running.append((prompt, events))
        if index % 2:
            time.sleep(((index * 7 + seed * 3) % 11) * 0.0005)
            engine.cancel(job)
    for index, (prompt, events) in enumerate(running):
        if index % 2 == 0:
            text, end = result(events)
            assert isinstance(end, End)
            assert text == model.generate(prompt, max_tokens=30)
    wait_until(lambda: engine.counts().active == engine.counts().waiting == 0)
    counts = engine.counts()
    assert counts.finished + counts.cancelled == 60
    assert counts.failed == 0


def test_an_error_ends_one_answer(model, start):
    engine = start(max_concurrent=2)
    wrong = submit(engine, Task([1, 5000], 4, GREEDY, [], None))[1]
    defect = submit(engine, Task([1], 4, "no sampling", [], None))[1]
    assert isinstance(result(wrong)[1], edgesdk.UsageError)
    error = result(defect)[1]
    assert isinstance(error, edgesdk.EngineError)
    assert "defect" in error.message
    assert result(submit(engine, task(model, "abc"))[1])[0] == model.generate("abc", max_tokens=12)
    assert engine.counts().failed == 2


def test_what_a_prompt_shares_is_taken_from_the_session_that_has_it(model, start):
    engine = start(max_concurrent=2)
    long = "one long beginning that two conversations have in common "
    running = [submit_slow(engine, task(model, prompt, 3000)) for prompt in (long, "another", long + "!")]
    for events in running:
        result(events)
    assert engine.counts().sessions == 2
    submit(engine, task(model, "a third"))
    end = result(submit(engine, task(model, long + "and this"))[1])[1]
    assert end.n_cached >= len(model.tokenize(long))


def test_idle_sessions_give_their_memory_back(model, start):
    engine = start(max_concurrent=2, idle_s=0.05)
    result(submit(engine, task(model, "abc"))[1])
    wait_until(lambda: engine.counts().sessions == 0)
    result(submit(engine, task(model, "abc"))[1])


def test_close_ends_what_runs_and_what_waits(model, start):
    engine = start(max_concurrent=1)
    _, go_on = blocked(engine, model)
    _, waiting = submit(engine, task(model, "abc"))
    closing = threading.Thread(target=engine.close)
    closing.start()
    go_on.set()
    closing.join(60)
    assert not closing.is_alive()
    error = result(waiting)[1]
    assert isinstance(error, edgesdk.EngineError)
    assert "stopping" in error.message
    with pytest.raises(edgesdk.EngineError, match="stopping"):
        submit(engine, task(model, "abc"))
