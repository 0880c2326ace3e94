"""What a server refuses: the status, and a body that says what was found, as OpenAI's API has it."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

import openai
import pytest
from device_artifacts import write_tiny
from served import Served

import edgesdk

LARGEST = 4096
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
TEXT = {"model": "tiny", "prompt": "Hi", "max_tokens": 2}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("refusals") / "tiny.edge", chat=True, max_context=256)


@pytest.fixture(scope="module")
def server(path):
    with Served(path, "--max-body", LARGEST) as server:
        yield server


def ask(server, method, target, body=None, **headers):
    """(status, JSON value), without a client that knows better."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, target, data, {"content-type": "application/json", **names})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("target", "change", "param", "message"),
    [
        ("chat", {"temprature": 1}, "temprature", "unknown parameter `temprature`"),
        ("chat", {"messages": []}, "messages", "`messages` is []"),
        ("chat", {"messages": None}, "messages", "`messages` is missing"),
        ("chat", {"messages": [{"role": "user"}]}, "messages.0.content", "missing"),
        ("chat", {"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role", "'robot'"),
        (
            "chat",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages.0.content",
            "part 0 is 'image_url'",
        ),
        ("chat", {"temperature": 2.5}, "temperature", "2.5"),
        ("chat", {"temperature": "1"}, "temperature", "'1'"),
        ("chat", {"top_p": -0.1}, "top_p", "-0.1"),
        ("chat", {"max_tokens": 0}, "max_tokens", "0"),
        ("chat", {"max_completion_tokens": 1.5}, "max_completion_tokens", "1.5"),
        ("chat", {"n": 2}, "n", "`n` is 2, this server supports 1"),
        ("chat", {"tools": [{"type": "function"}]}, "tools", "this server supports []"),
        ("chat", {"response_format": {"type": "json_object"}}, "response_format", "json_object"),
        ("chat", {"frequency_penalty": 0.5}, "frequency_penalty", "0.5"),
        ("chat", {"logit_bias": {"5": 1}}, "logit_bias", "supports {}"),
        ("chat", {"top_logprobs": 2}, None, "`logprobs` is not true"),
        ("chat", {"logprobs": True, "top_logprobs": 21}, "top_logprobs", "21"),
        ("chat", {"stream_options": {"include_usage": True}}, None, "`stream` is not true"),
        ("chat", {"stop": ["a", ""]}, "stop", "a stop text is empty"),
        ("chat", {"stop": "a\0b"}, "stop", "NUL"),
        ("chat", {"stop": [str(i) for i in range(17)]}, "stop", "at most 16"),
        ("chat", {"messages": [{"role": "user", "content": "x" * 300}]}, "messages", "leave no room"),
        (
            "text",
            {"prompt": "x" * 256},
            "prompt",
            "256 tokens, which leave no room for an answer in the context of 256",
        ),
        ("text", {"prompt": ["a", "b"]}, "prompt", "there are 2 prompts"),
        ("text", {"prompt": ""}, "prompt", "`prompt` is empty"),
        ("text", {"prompt": [1, 300]}, "prompt", "token 300, expected 0 to 299"),
        ("text", {"prompt": [-1]}, "prompt", "token -1"),
        ("text", {"prompt": 5}, "prompt", "5"),
        ("text", {"prompt": None}, "prompt", "missing"),
        ("text", {"echo": True}, "echo", "this server supports False"),
        ("text", {"best_of": 3}, "best_of", "3"),
        ("text", {"logprobs": 100}, "logprobs", "100"),
        ("text", {"model": None}, "model", "`model` is missing"),
    ],
)
def test_what_is_wrong_is_named(server, target, change, param, message):
    body, place = (CHAT, "/v1/chat/completions") if target == "chat" else (TEXT, "/v1/completions")
    for stream in (False, True):
        changed = {**body, **change, **({"stream": True} if stream and "stream_options" not in change else {})}
        status, value = ask(server, "POST", place, changed)
        assert status == 400
        assert value["error"]["param"] == param
        assert value["error"]["type"] == "invalid_request_error"
        assert message in value["error"]["message"]


@pytest.mark.parametrize(
    "change",
    [
        {
            "n": 1,
            "user": "me",
            "metadata": {"a": "b"},
            "store": False,
            "tools": [],
            "response_format": {"type": "text"},
        },
        {"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "tool_choice": "auto", "stop": None},
        {"seed": None, "stream": None, "temperature": None, "service_tier": "auto", "stream_options": None},
    ],
)
def test_neutral_values_are_no_mistake(server, change):
    assert ask(server, "POST", "/v1/chat/completions", {**CHAT, **change})[0] == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'"x"', b'{"a": NaN}', b"\xff", b"[" * 3000])
def test_a_body_that_is_no_object(server, body):
    status, value = ask(server, "POST", "/v1/completions", body)
    assert (status, value["error"]["code"]) == (400, "invalid_json")


def test_a_name_is_for_the_template(server):
    body = {**CHAT, "messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b", "name": "c"}]}
    assert ask(server, "POST", "/v1/chat/completions", body)[0] == 200


def test_a_model_without_a_template(tmp_path):
    with Served(write_tiny(tmp_path / "plain.edge")) as server:
        status, value = ask(server, "POST", "/v1/chat/completions", CHAT)
        assert status == 400
        assert "no chat template" in value["error"]["message"]
        assert ask(server, "POST", "/v1/completions", TEXT)[0] == 200


def test_unknown_models_and_places(server):
    for target, body in (("/v1/completions", TEXT), ("/v1/chat/completions", CHAT)):
        status, value = ask(server, "POST", target, {**body, "model": "gpt"})
        assert (status, value["error"]["code"]) == (404, "model_not_found")
        assert "`tiny`" in value["error"]["message"]
    assert ask(server, "GET", "/v1/models/gpt")[0] == 404
    status, value = ask(server, "GET", "/v1/embeddings")
    assert status == 404
    assert "/v1/embeddings" in value["error"]["message"]
    assert ask(server, "GET", "/v1/completions")[0] == 405
    with server.client() as client, pytest.raises(openai.NotFoundError, match="no model `gpt`"):
        client.completions.create(**{**TEXT, "model": "gpt"})


@pytest.mark.parametrize("n_bytes", [LARGEST + 1, 20 * LARGEST])
def test_a_large_body(server, n_bytes):
    body = json.dumps({**TEXT, "prompt": "x" * n_bytes}).encode()
    status, value = ask(server, "POST", "/v1/completions", body)
    assert (status, value["error"]["code"]) == (413, "request_too_large")
    assert str(LARGEST) in value["error"]["message"]
    fits = json.dumps({**TEXT, "user": "x" * (LARGEST - 200)}).encode()
    assert ask(server, "POST", "/v1/completions", fits)[0] == 200


def test_a_web_page_cannot_use_it(server):
    """Neither by a form, whose content type a browser sends without asking, nor under a name that points here."""
    status, value = ask(server, "POST", "/v1/completions", TEXT, content_type="text/plain")
    assert status == 415
    assert "application/json" in value["error"]["message"]
    for target in ("/v1/models", "/health"):
        status, value = ask(server, "GET", target, host="evil.example:8000")
        assert (status, value["error"]["code"]) == (403, "unknown_host")
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1:9", "[::1]:8000", "[::1]"):
        assert ask(server, "GET", "/v1/models", host=host)[0] == 200
    assert ask(server, "OPTIONS", "/v1/completions")[0] == 405


def test_an_api_key(path):
    with Served(path, "--name", "mine", EDGE_API_KEY="s3cret") as server:
        for key in ("wrong", "s3cre", "s3crets"):
            with server.client(api_key=key) as client, pytest.raises(openai.AuthenticationError, match="key is wrong"):
                client.models.list()
        status, value = ask(server, "GET", "/v1/models")
        assert (status, value["error"]["code"]) == (401, "invalid_api_key")
        assert ask(server, "POST", "/v1/completions", {**TEXT, "model": "mine"})[0] == 401
        assert ask(server, "GET", "/v1/models", authorization="Bearer s\u00e9cret")[0] == 401
        assert server.health()["status"] == "ok"
        with server.client(api_key="s3cret") as client:
            answer = client.completions.create(**{**TEXT, "model": "mine"}, temperature=0)
        assert answer.choices[0].text == edgesdk.load(path).generate("Hi", max_tokens=2)
    assert "s3cret" not in server.remarks
