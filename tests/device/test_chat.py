"""Chat: the template in its sandbox, and the native program on the strings made from it."""

from __future__ import annotations

import json

import pytest
from device_artifacts import CHAT, edge_run, write_tiny

import edgesdk
from edgesdk.device.chat_template import render_chat

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("chat") / "chat.edge", chat=True)


def test_the_template_is_rendered(path):
    model = edgesdk.load(path)
    assert model.render(MESSAGES) == "<bos>[system]Be brief.\n[user]Hi\n[assistant]"
    with pytest.raises(edgesdk.UsageError, match="no such role"):
        model.chat([{"role": "bad", "content": ""}])


def test_chat_continues_the_rendered_text_and_uses_its_cache_rightly(path):
    model = edgesdk.load(path)
    options = {"max_tokens": 12, "temperature": 30.0, "seed": 3}
    messages = list(MESSAGES)
    for turn in range(3):
        answer = model.chat(messages, **options)
        assert answer == edgesdk.load(path).chat(messages, **options)
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": f"more {turn}"}]


def test_the_native_program_says_the_same(path):
    """Two turns through edge-run equal two turns through Python, and the strings equal the template."""
    result = edge_run("chat", path, "--system", "Be brief.", "--max-tokens", 10, "--json", text="Hi\nAnd then?\n\n")
    assert result.returncode == 0, result.stderr
    answers = [json.loads(line)["content"] for line in result.stdout.splitlines()]
    model = edgesdk.load(path)
    first = model.chat(MESSAGES, max_tokens=10)
    messages = [*MESSAGES, {"role": "assistant", "content": first}, {"role": "user", "content": "And then?"}]
    assert answers == [first, model.chat(messages, max_tokens=10)]
    assert CHAT["system"][0] + "Be brief." in model.render(MESSAGES)


def test_a_model_without_template(tmp_path):
    plain = write_tiny(tmp_path / "plain.edge")
    with pytest.raises(edgesdk.UsageError, match="no chat template"):
        edgesdk.load(plain).chat(MESSAGES)
    result = edge_run("chat", plain, text="Hi\n")
    assert result.returncode == 1
    assert "no chat format" in result.stderr
    assert "\nhint: " in result.stderr


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ 'x' * 100000000 }}",
        "{{ [0] * 100000000 }}",
        "{{ 10 ** 10000000 }}",
        "{{ '%1000000000d' % 1 }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{{ 'xxxxxxxxxxxxxxxx' }}{% endfor %}{% endfor %}",
        "{{ 1 / 0 }}",
        "{% for %}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(template):
    with pytest.raises(edgesdk.ArtifactError, match="chat template"):
        render_chat(template, MESSAGES, bos="", eos="")
