"""Answers step by step: the library's own text, why they end, and log probabilities that are those of the logits."""

from __future__ import annotations

import numpy as np
import pytest
from device_artifacts import write_tiny

import edgesdk
from edgesdk.device import Generation
from edgesdk.device.session import Sampling

SPECIAL = (256, 257)  # which have no text
GREEDY = Sampling(0.0, 0, 1.0, 0.0, 1.0, 0)
HOT = Sampling(30.0, 80, 0.9, 0.01, 1.2, 11)
HOT_OPTIONS = {
    "temperature": 30.0,
    "top_k": 80,
    "top_p": 0.9,
    "min_p": 0.01,
    "repetition_penalty": 1.2,
    "seed": 11,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = write_tiny(tmp_path_factory.mktemp("generation") / "tiny.edge", max_context=4096, tied_head=False)
    with edgesdk.load(path) as model:
        yield model


def run(generation):
    """(text, scored tokens) of the whole answer."""
    text, tokens = "", []
    while generation.finish is None:
        step = generation.step()
        text += step.text
        tokens += step.tokens
    return text, tokens


@pytest.mark.parametrize("prompt", ["Hello", "x" * 300])
@pytest.mark.parametrize(("sampling", "options"), [(GREEDY, {}), (HOT, HOT_OPTIONS)])
@pytest.mark.parametrize("n_logprobs", [None, 0, 5])
def test_the_text_is_the_library_s(model, prompt, sampling, options, n_logprobs):
    tokens = model.tokenize(prompt)
    generation = Generation(model.session(), tokens, 60, sampling, n_logprobs=n_logprobs)
    text, scored = run(generation)
    assert text == model.generate(prompt, max_tokens=60, **options)
    assert len(scored) == (0 if n_logprobs is None else generation.n_generated)
    assert all(len(token.top) == n_logprobs for token in scored)


def test_logprobs_are_those_of_the_logits(model):
    tokens = model.tokenize("Hello")
    scored = run(Generation(model.session(), tokens, 30, HOT, n_logprobs=model.vocab_size))[1]
    generated = [one.token for one in scored]
    logits = model.logits(tokens + generated)[len(tokens) - 1 : -1].astype(np.float64)
    expected = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
    expected -= logits.max(-1, keepdims=True)
    for one, row in zip(scored, expected, strict=True):
        assert one.logprob == pytest.approx(row[one.token], abs=1e-5)
        assert [token for token, _ in one.top] == np.argsort(-row, kind="stable").tolist()
        assert sum(np.exp(logprob) for _, logprob in one.top) == pytest.approx(1, abs=1e-5)
        assert dict(one.top)[one.token] == one.logprob


def test_why_it_ends(model):
    tokens = model.tokenize("Hello")
    whole = model.generate("Hello", max_tokens=60, **HOT_OPTIONS)
    generation = Generation(model.session(), tokens, 60, HOT, whole[20:23])
    assert run(generation)[0] == whole[: whole.index(whole[20:23])]
    assert generation.finish == "stop"
    generation = Generation(model.session(), tokens, 3, HOT)
    run(generation)
    assert (generation.finish, generation.n_generated) == ("length", 3)
    with pytest.raises(edgesdk.UsageError, match="has ended"):
        generation.step()
    found = set()
    for seed in range(200):
        generation = Generation(model.session(), tokens, 400, Sampling(30.0, 0, 1.0, 0.0, 1.0, seed))
        text, _ = run(generation)
        found.add(generation.finish)
        assert text == model.generate("Hello", max_tokens=400, temperature=30.0, seed=seed)
        if "end" in found:
            break
    assert "end" in found


def test_the_end_of_the_context(model, tmp_path):
    path = write_tiny(tmp_path / "short.edge", max_context=4096)
    with edgesdk.load(path, context=20) as short:
        generation = Generation(short.session(), short.tokenize("x" * 15), 100, HOT)
        text, _ = run(generation)
        assert generation.finish in ("context", "end")
        assert text == short.generate("x" * 15, max_tokens=100, **HOT_OPTIONS)
        with pytest.raises(edgesdk.UsageError, match="20 tokens, and the context of 20"):
            Generation(short.session(), short.tokenize("x" * 20), 1, HOT)


def test_tokens_of_a_stop_text_never_come(model):
    """All others do: together they begin with the text, cut at most inside the last one."""
    tokens = model.tokenize("Hello")
    whole = model.generate("Hello", max_tokens=60, **HOT_OPTIONS)
    for begin in range(0, 40, 3):
        stop = whole[begin : begin + 3]
        text, scored = run(Generation(model.session(), tokens, 60, HOT, stop, n_logprobs=0))
        raw = b"".join(model.token_bytes(one.token) for one in scored if one.token not in SPECIAL)
        assert raw.decode("utf-8", "replace").startswith(text)
        kept = b"".join(model.token_bytes(one.token) for one in scored[:-1] if one.token not in SPECIAL)
        assert len(kept.decode("utf-8", "ignore")) <= len(text)


def test_a_session_goes_on_with_what_it_has(model):
    session = model.session()
    first = Generation(session, model.tokenize("One two"), 8, GREEDY)
    text, _ = run(first)
    assert first.n_cached == 0
    longer = model.tokenize("One two three")
    assert session.n_shared(longer) >= len(model.tokenize("One two"))
    second = Generation(session, longer, 8, GREEDY)
    assert second.n_cached >= len(model.tokenize("One two"))
    assert run(second)[0] == model.generate("One two three", max_tokens=8)
    assert run(Generation(session, model.tokenize("One two"), 8, GREEDY))[0] == text


def test_a_cancel_ends_it_and_the_session_can_go_on(model):
    session = model.session()
    generation = Generation(session, model.tokenize("Hello"), 50, GREEDY)
    generation.step()
    session.cancel()
    with pytest.raises(edgesdk.CancelledError):
        run(generation)
    session.reset()
    assert run(Generation(session, model.tokenize("Hello"), 8, GREEDY))[0] == model.generate("Hello", max_tokens=8)


@pytest.mark.parametrize(
    ("tokens", "max_tokens", "n_logprobs", "message"),
    [
        ([], 5, None, "the prompt is empty"),
        ([1], 0, None, "max_tokens is 0"),
        ([1], 5, 301, "n_logprobs is 301"),
        ([1], 5, -1, "n_logprobs is -1"),
    ],
)
def test_wrong_arguments(model, tokens, max_tokens, n_logprobs, message):
    with pytest.raises(edgesdk.UsageError, match=message):
        Generation(model.session(), tokens, max_tokens, GREEDY, n_logprobs=n_logprobs)


def test_logprobs_need_a_sampled_token(model):
    session = model.session()._native
    with pytest.raises(edgesdk.UsageError, match="no token was sampled"):
        session.logprobs(1)
    session.feed(np.array([1, 2], np.int32), False, False)
    with pytest.raises(edgesdk.UsageError, match="no token was sampled"):
        session.logprobs(1)
    token = session.next()
    assert [one for one, _ in session.logprobs(0)] == [token]
    with pytest.raises(edgesdk.UsageError, match="n_top is 301"):
        session.logprobs(301)
    session.rewind(1)
    with pytest.raises(edgesdk.UsageError, match="no token was sampled"):
        session.logprobs(1)


def test_bytes_of_tokens(model):
    assert [model.token_bytes(token) for token in (65, 32, 200, 257)] == [b"A", b" ", b"\xc8", b"<eos>"]
