"""What the official client gets from a server: the same texts as from the library, whole and streamed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from device_artifacts import write_tiny
from served import Served

import edgesdk

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("served") / "tiny.edge", chat=True, tied_head=False)


@pytest.fixture(scope="module")
def server(path):
    with Served(path, "--level", 1, "--threads", 2) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def model(path):
    return edgesdk.load(path, level=1)


@pytest.fixture(scope="module")
def prompt(model):
    """One whose greedy answer has 24 tokens before an end token."""
    return next(p for p in (f"Hello {i}" for i in range(100)) if len(answer_tokens(model, p, 24)) == 24)


def answer_tokens(model, prompt, n):
    """The greedy answer, from logits alone."""
    tokens = model.tokenize(prompt)
    answer: list[int] = []
    while len(answer) < n:
        token = int(model.logits(tokens + answer)[-1].argmax())
        if token == 257:
            break
        answer.append(token)
    return answer


def test_it_says_what_it_serves(server, client, model):
    assert server.report["level"] == model.level
    assert [one.id for one in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").meta["level"] == model.level
    assert {"status": "ok", "model": "tiny"}.items() <= server.health().items()


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_completion_is_the_library_s_text(client, model, prompt, temperature):
    options = {"max_tokens": 24, "temperature": temperature, "seed": 5, "top_p": 0.9}
    answer = client.completions.create(model="tiny", prompt=prompt, **options)
    assert answer.choices[0].text == model.generate(prompt, **options)
    again = client.completions.create(model="tiny", prompt=model.tokenize(prompt), **options)
    assert again.choices[0].text == answer.choices[0].text
    assert again.system_fingerprint == answer.system_fingerprint


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_chat_is_the_library_s_text(client, model, temperature):
    options = {"max_tokens": 24, "temperature": temperature, "seed": 5}
    answer = client.chat.completions.create(model="tiny", messages=MESSAGES, **options)
    assert answer.choices[0].message.content == model.chat(MESSAGES, **options)
    assert answer.choices[0].message.role == "assistant"


def test_the_engine_s_own_options(client, model, prompt):
    options = {"top_k": 40, "min_p": 0.01, "repetition_penalty": 1.3}
    shared = {"max_tokens": 24, "temperature": 2.0, "seed": -3}
    answer = client.completions.create(model="tiny", prompt=prompt, extra_body=options, **shared)
    assert answer.choices[0].text == model.generate(prompt, **options, **{**shared, "seed": 2**64 - 3})


def test_top_p_of_nothing_is_the_likeliest_token(client, model, prompt):
    answer = client.completions.create(model="tiny", prompt=prompt, max_tokens=24, temperature=2, top_p=0)
    assert answer.choices[0].text == model.generate(prompt, max_tokens=24)


def test_without_a_seed_answers_differ(client, prompt):
    texts = {client.completions.create(model="tiny", prompt=prompt, temperature=2).choices[0].text for _ in range(4)}
    assert len(texts) > 1


@pytest.mark.parametrize("temperature", [0.0, 1.5])
@pytest.mark.parametrize("stop", [[], ["e", "a"]])
def test_a_stream_is_the_same_text_in_pieces(client, prompt, temperature, stop):
    options = {"max_tokens": 60, "temperature": temperature, "seed": 5, "stop": stop}
    whole = client.chat.completions.create(model="tiny", messages=MESSAGES, **options)
    chunks = list(client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True, **options))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks] == [None] * (len(chunks) - 1) + [whole.choices[0].finish_reason]
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)
    whole = client.completions.create(model="tiny", prompt=prompt, **options)
    chunks = list(client.completions.create(model="tiny", prompt=prompt, stream=True, **options))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert len(chunks) > 1
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_usage_counts_tokens(client, model, prompt):
    n_prompt = len(model.tokenize(prompt))
    whole = client.completions.create(model="tiny", prompt=prompt, max_tokens=24, temperature=0)
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.total_tokens) == (
        n_prompt,
        24,
        n_prompt + 24,
    )
    assert whole.choices[0].finish_reason == "length"
    again = client.completions.create(model="tiny", prompt=prompt, max_tokens=24, temperature=0)
    assert again.usage.prompt_tokens_details.cached_tokens == n_prompt - 1
    stream = client.completions.create(
        model="tiny", prompt=prompt, max_tokens=24, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = list(stream)
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    assert last.choices == []
    assert last.usage.completion_tokens == 24


def test_an_end_token_ends_the_answer_and_is_not_counted(client, model):
    prompt, answer = next(
        (p, a) for p in (f"end {i}" for i in range(300)) if len(a := answer_tokens(model, p, 40)) < 40
    )
    found = client.completions.create(model="tiny", prompt=prompt, max_tokens=40, temperature=0, logprobs=0)
    assert found.choices[0].finish_reason == "stop"
    assert found.choices[0].text == model.detokenize(answer)
    assert found.usage.completion_tokens == len(answer) == len(found.choices[0].logprobs.tokens)


def test_the_end_of_the_context_is_a_length(client, server, model, prompt):
    n_prompt = len(model.tokenize(prompt))
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, temperature=0, max_tokens=10**6, max_completion_tokens=7
    )
    assert answer.usage.completion_tokens <= 7
    answer = client.completions.create(model="tiny", prompt=prompt, max_tokens=10**6, temperature=0)
    if answer.choices[0].finish_reason == "length":
        assert answer.usage.total_tokens == server.report["context"]
    assert answer.usage.prompt_tokens == n_prompt
    assert answer.choices[0].text == model.generate(prompt, max_tokens=10**6)


@pytest.mark.parametrize("as_list", [False, True])
def test_stop_texts(client, model, prompt, as_list):
    whole = model.generate(prompt, max_tokens=60, temperature=1.5, seed=5)
    stop = whole[10:12]
    expected = whole[: whole.index(stop)]
    options = {"max_tokens": 60, "temperature": 1.5, "seed": 5, "stop": ["nowhere at all", stop] if as_list else stop}
    answer = client.completions.create(model="tiny", prompt=prompt, logprobs=1, **options)
    assert answer.choices[0].text == expected
    assert answer.choices[0].finish_reason == "stop"
    chunks = list(client.completions.create(model="tiny", prompt=prompt, stream=True, logprobs=1, **options))
    assert "".join(chunk.choices[0].text for chunk in chunks) == expected
    streamed = [
        token for chunk in chunks for token in (chunk.choices[0].logprobs.tokens if chunk.choices[0].logprobs else [])
    ]
    assert streamed == answer.choices[0].logprobs.tokens
    assert len(streamed) < 60


def test_logprobs_are_those_of_the_logits(client, model, prompt):
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=12, temperature=1.5, seed=2, logprobs=True, top_logprobs=20
    )
    scores = answer.choices[0].logprobs.content
    tokens = model.tokenize(model.render(MESSAGES), special=True, add_bos=False)
    taken = {bytes(model.token_bytes(token)): token for token in range(model.vocab_size)}
    generated = [taken[bytes(score.bytes)] for score in scores]
    assert len(generated) == answer.usage.completion_tokens
    logits = model.logits(tokens + generated)[len(tokens) - 1 : -1].astype(np.float64)
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for score, row, token in zip(scores, expected, generated, strict=True):
        assert score.logprob == pytest.approx(row[token], abs=1e-4)
        best = np.argsort(-row, kind="stable")[:20]
        assert [taken[bytes(top.bytes)] for top in score.top_logprobs] == best.tolist()
        assert [top.logprob for top in score.top_logprobs] == pytest.approx(row[best].tolist(), abs=1e-4)
        assert 0 < sum(math.exp(top.logprob) for top in score.top_logprobs) <= 1 + 1e-5
    streamed = [
        score
        for chunk in client.chat.completions.create(
            model="tiny",
            messages=MESSAGES,
            max_tokens=12,
            temperature=1.5,
            seed=2,
            logprobs=True,
            top_logprobs=20,
            stream=True,
        )
        for score in (chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else [])
    ]
    assert [score.model_dump() for score in streamed] == [score.model_dump() for score in scores]


def test_legacy_logprobs(client, prompt):
    answer = client.completions.create(model="tiny", prompt=prompt, max_tokens=24, temperature=0, logprobs=3)
    scores = answer.choices[0].logprobs
    assert len(scores.tokens) == len(scores.token_logprobs) == len(scores.top_logprobs) == 24
    assert scores.text_offset == [sum(map(len, scores.tokens[:i])) for i in range(24)]
    for token, logprob, best in zip(scores.tokens, scores.token_logprobs, scores.top_logprobs, strict=True):
        assert best[token] == logprob == max(best.values())
        assert 1 <= len(best) <= 4
    plain = client.completions.create(model="tiny", prompt=prompt, max_tokens=24, temperature=0)
    assert plain.choices[0].logprobs is None
    assert plain.choices[0].text == answer.choices[0].text


def test_an_answer_can_be_sent_back(client, model):
    first = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=6, temperature=0)
    messages = [*MESSAGES, first.choices[0].message, {"role": "user", "content": [{"type": "text", "text": "More"}]}]
    second = client.chat.completions.create(model="tiny", messages=messages, max_tokens=6, temperature=0)
    text = first.choices[0].message.content
    plain = [*MESSAGES, {"role": "assistant", "content": text}, {"role": "user", "content": "More"}]
    assert second.choices[0].message.content == model.chat(plain, max_tokens=6)


def test_a_developer_is_the_system(client, model):
    messages = [{"role": "developer", "content": "Be brief."}, MESSAGES[1]]
    answer = client.chat.completions.create(model="tiny", messages=messages, max_tokens=6, temperature=0)
    assert answer.choices[0].message.content == model.chat(MESSAGES, max_tokens=6)
