"""Compiled chat strings against hand-written conversations of well-known template styles."""

from __future__ import annotations

import time

import pytest

from edgesdk.cloud.chat_template import compile_chat, render_compiled

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe kind<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start|>' + m['role'] + '<|end|>\n\n' + m['content'] | trim + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\n\n' }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set messages = messages[1:] %}"
    "{% else %}{% set system = false %}{% endif %}{% for m in messages %}{% if loop.first and system %}"
    "{% set text = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + m['content'] %}{% else %}"
    "{% set text = m['content'] %}{% endif %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + text + ' [/INST]' }}"
    "{% else %}{{ ' ' + text + ' ' + eos_token }}{% endif %}{% endfor %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}</turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>model\n{% endif %}"
)
USER = [{"role": "user", "content": "Hi"}]
LONGER = [*USER, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Bye"}]
SYSTEM = [{"role": "system", "content": "Short"}]


def render(template: str, messages: list[dict[str, str]]) -> str:
    chat = compile_chat(template, "<s>", "</s>")
    assert chat is not None
    return render_compiled(chat, messages)


def test_chatml() -> None:
    start = "<|im_start|>system\nBe kind<|im_end|>\n"
    turns = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes?<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
    assert render(CHATML, LONGER) == start + turns + "<|im_start|>assistant\n"
    assert render(CHATML, SYSTEM + USER).startswith("<|im_start|>system\nShort<|im_end|>\n<|im_start|>user\nHi<")
    chat = compile_chat(CHATML, "", "")
    assert chat is not None
    assert chat["assistant"] == ["<|im_start|>assistant\n", "<|im_end|>\n"]
    assert chat["default_system"] == start


def test_contents_are_trimmed_where_the_template_does() -> None:
    padded = [{"role": "user", "content": "  Hi \n"}]
    assert render(LLAMA3, padded) == "<s><|start|>user<|end|>\n\nHi<|eot|><|start|>assistant<|end|>\n\n"


def test_system_inside_the_first_user_turn() -> None:
    assert render(LLAMA2, SYSTEM + LONGER) == (
        "<s>[INST] <<SYS>>\nShort\n<</SYS>>\n\nHi [/INST] Yes? </s><s>[INST] Bye [/INST]"
    )
    assert render(LLAMA2, USER) == "<s>[INST] Hi [/INST]"


def test_template_that_refuses_system_messages() -> None:
    chat = compile_chat(NO_SYSTEM, "<s>", "</s>")
    assert chat is not None
    assert chat["system"] is None
    assert render_compiled(chat, USER) == "<s><turn>user\nHi</turn>\n<turn>model\n"


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ loop.index }}: {{ m.content }}\n{% endfor %}",  # turns differ by their number
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
        "{% for m in messages %}{{ m.content }}{% endfor %}{{ messages | length }}",
        "{{ strftime_now('%d') }}{% for m in messages %}{{ m.content }}{% endfor %}",
        "{{ messages.__class__.__mro__ }}",
        "{% for m in messages %}",
    ],
)
def test_what_plain_strings_cannot_say_is_none(template: str) -> None:
    assert compile_chat(template, "<s>", "</s>") is None


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(t='x') %}{% for i in range(60) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}{{ ns.t }}",
        "{{ 'x' * 4000000000 }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ " + "(" * 5000 + ")" * 5000 + " }}",
        "x" * (1 << 19),
    ],
    ids=["loops", "doubling", "repetition", "recursion", "nesting", "length"],
)
def test_a_template_that_never_ends_is_given_up(template: str) -> None:
    """A checkpoint's template is as hostile as an artifact's."""
    start = time.monotonic()
    assert compile_chat(template, "<s>", "</s>") is None
    assert time.monotonic() - start < 10
