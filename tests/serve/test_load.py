"""Many clients, clients that leave, and servers that are full: right answers, and nothing that stays behind."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from urllib.parse import urlsplit

import openai
import pytest
from device_artifacts import write_tiny
from served import Served

import edgesdk
from edgesdk.device import Generation
from edgesdk.device.session import Sampling

GREEDY = Sampling(0.0, 0, 1.0, 0.0, 1.0, 0)
CONTEXT = 8192
N_REQUESTS = 200


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Large enough that a whole context takes seconds."""
    folder = tmp_path_factory.mktemp("load")
    shape = {"n_layers": 6, "d_model": 256, "width": 512, "max_context": CONTEXT, "tied_head": False}
    return write_tiny(folder / "tiny.edge", chat=True, **shape)


@pytest.fixture(scope="module")
def model(path):
    return edgesdk.load(path, context=CONTEXT)


@pytest.fixture(scope="module")
def endless(model):
    """A prompt whose greedy answer goes on, for as far as a test can look."""
    return next(p for p in (f"On {i}" for i in range(200)) if model_ends(model, p, 600) == "length")


def model_ends(model, prompt, n):
    generation = Generation(model.session(), model.tokenize(prompt), n, GREEDY)
    while generation.finish is None:
        generation.step()
    return generation.finish


def served(path, *options):
    return Served(path, "--context", CONTEXT, "--max-concurrent", 3, *options)


async def ask_all(server, prompts, n_tokens):
    """Each prompt at once, by turns as a completion, as a stream and as a chat."""

    async def ask(client, index, prompt):
        shared = {"model": "tiny", "max_tokens": n_tokens, "temperature": 0}
        if index % 3 == 0:
            return (await client.completions.create(prompt=prompt, **shared)).choices[0].text
        if index % 3 == 1:
            stream = await client.completions.create(prompt=prompt, stream=True, **shared)
            return "".join([chunk.choices[0].text async for chunk in stream])
        messages = [{"role": "user", "content": prompt}]
        answer = await client.chat.completions.create(messages=messages, **shared)
        return answer.choices[0].message.content

    async with server.async_client() as client:
        return await asyncio.gather(*(ask(client, index, prompt) for index, prompt in enumerate(prompts)))


def expected_answers(model, prompts, n_tokens):
    known: dict[tuple[bool, str], str] = {}
    answers = []
    for index, prompt in enumerate(prompts):
        chat = index % 3 == 2
        if (chat, prompt) not in known:
            messages = [{"role": "user", "content": prompt}]
            options = {"max_tokens": n_tokens}
            known[chat, prompt] = model.chat(messages, **options) if chat else model.generate(prompt, **options)
        answers.append(known[chat, prompt])
    return answers


@pytest.mark.slow
def test_200_requests_at_once_are_answered_rightly_and_leave_no_memory_behind(path, model):
    prompts = [f"Request {i % 40} " * (1 + i % 7) for i in range(N_REQUESTS)]
    expected = expected_answers(model, prompts, 16)
    with served(path, "--idle", 0.2) as server:
        asyncio.run(ask_all(server, prompts[:3], 2))
        server.wait_for(lambda health: health["sessions"] == 0)
        start = server.rss_bytes()
        assert asyncio.run(ask_all(server, prompts, 16)) == expected
        health = server.wait_for(lambda health: health["sessions"] == 0)
        first = server.rss_bytes()
        assert (health["active"], health["waiting"], health["failed"]) == (0, 0, 0)
        assert health["finished"] == N_REQUESTS + 3
        for _ in range(2):
            assert asyncio.run(ask_all(server, prompts, 16)) == expected
        server.wait_for(lambda health: health["sessions"] == 0)
        last = server.rss_bytes()
    assert first - start < 16 << 20  # what a first crowd makes Python keep for the next one
    assert last - first < 4 << 20


def test_sessions_are_bounded_and_share_one_mapping(path):
    with served(path) as server:
        mapped_bytes = server.mapped_bytes(path)
        assert 0 < mapped_bytes <= path.stat().st_size
        asyncio.run(ask_all(server, ["abc"] * 20, 8))
        assert server.mapped_bytes(path) == mapped_bytes
        health = server.health()
        assert 1 <= health["sessions"] <= 3
        assert (health["active"], health["waiting"]) == (0, 0)


@pytest.mark.parametrize("chat", [False, True])
def test_clients_that_leave_mid_stream_leave_no_generation(path, endless, chat):
    async def leave(client):
        shared = {"model": "tiny", "max_tokens": CONTEXT, "temperature": 0, "stream": True}
        if chat:
            stream = await client.chat.completions.create(messages=[{"role": "user", "content": endless}], **shared)
        else:
            stream = await client.completions.create(prompt=endless, **shared)
        await anext(aiter(stream))
        await stream.response.aclose()

    async def leave_all(server):
        async with server.async_client() as client:
            await asyncio.gather(*(leave(client) for _ in range(12)))

    with served(path) as server:
        asyncio.run(leave_all(server))
        health = server.wait_for(lambda health: health["active"] == health["waiting"] == 0)
        assert health["failed"] == 0
        assert health["cancelled"] + health["finished"] == 12
        assert health["cancelled"] == 12 or chat  # a chat's answer may end by itself
        assert asyncio.run(ask_all(server, ["abc"], 8)) == [
            edgesdk.load(path, context=CONTEXT).generate("abc", max_tokens=8)
        ]


def test_clients_that_leave_before_the_answer(path, endless):
    """Those that wait for a whole answer, and those that wait for their turn."""
    body = f'{{"model": "tiny", "prompt": "{endless}", "max_tokens": {CONTEXT}, "temperature": 0}}'.encode()
    lines = ["POST /v1/completions HTTP/1.1", "host: localhost", "content-type: application/json"]
    head = "\r\n".join([*lines, f"content-length: {len(body)}", "", ""])
    with served(path) as server:
        address = urlsplit(server.url)
        sockets = [socket.create_connection((address.hostname, address.port)) for _ in range(10)]
        for one in sockets:
            one.sendall(head.encode() + body)
        server.wait_for(lambda health: health["active"] + health["waiting"] == 10)
        for one in sockets:
            one.close()
        health = server.wait_for(lambda health: health["active"] == health["waiting"] == 0)
        assert health["cancelled"] == 10


def test_a_full_server_refuses_and_recovers(path, endless):
    with (
        Served(path, "--context", CONTEXT, "--max-concurrent", 1, "--max-waiting", 1) as server,
        server.client() as client,
    ):
        shared = {"model": "tiny", "prompt": endless, "max_tokens": CONTEXT, "temperature": 0, "stream": True}
        running = client.completions.create(**shared)
        next(iter(running))
        waiting = threading.Thread(target=lambda: list(client.completions.create(**{**shared, "max_tokens": 3})))
        waiting.start()
        server.wait_for(lambda health: health["waiting"] == 1)
        with pytest.raises(openai.RateLimitError, match="1 answers are being generated and 1 requests wait") as refused:
            client.completions.create(**{**shared, "max_tokens": 1})
        assert refused.value.response.headers["retry-after"] == "1"
        running.close()
        waiting.join()
        assert server.wait_for(lambda health: health["active"] == 0)["cancelled"] == 1


def test_a_short_answer_does_not_wait_for_a_long_one(path, endless, model):
    with served(path) as server, server.client() as client:
        running = client.completions.create(
            model="tiny", prompt=endless, max_tokens=CONTEXT, temperature=0, stream=True
        )
        next(iter(running))
        answer = client.completions.create(model="tiny", prompt="abc", max_tokens=8, temperature=0)
        assert answer.choices[0].text == model.generate("abc", max_tokens=8)
        health = server.health()
        assert (health["active"], health["finished"]) == (1, 1)
        running.close()


def test_a_request_has_a_time_limit(path, endless):
    with served(path, "--timeout", 0.4) as server, server.client(max_retries=2) as client:
        shared = {"model": "tiny", "prompt": endless, "max_tokens": CONTEXT, "temperature": 0}
        with pytest.raises(openai.InternalServerError, match=r"not ready 0\.4 s after") as refused:
            client.completions.create(**shared)
        assert refused.value.status_code == 504
        with pytest.raises(openai.APIError, match=r"not ready 0\.4 s after"):
            list(client.completions.create(stream=True, **shared))
        health = server.wait_for(lambda health: health["active"] == 0)
        assert (health["cancelled"], health["finished"]) == (2, 0)  # the client was told not to try again


def test_ctrl_c_ends_it_while_answers_are_under_way(path, endless):
    with served(path) as server, server.client() as client:
        running = client.completions.create(
            model="tiny", prompt=endless, max_tokens=CONTEXT, temperature=0, stream=True
        )
        next(iter(running))
        begin = time.monotonic()
    assert server.process.returncode == 130
    assert time.monotonic() - begin < 50
    assert "Traceback" not in server.remarks
