"""Chat: the template in its sandbox, and the native program on the strings made from it."""

from __future__ import annotations

import json
import re
import resource
from contextlib import suppress

import hypothesis
import hypothesis.strategies as st
import pytest
from device_artifacts import CHAT, edge_run, write_tiny

import edgesdk
from edgesdk.device.chat_template import render_chat


def _close(text):
    """Ends a block by the tag that belongs to its first one."""
    kind = text[3 : text.index(" ", 3)]
    return text.removesuffix("END") + "{% end" + kind + " %}"


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
        # work without text
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% set r = range(99999) %}{% for i in r %}{% for j in r if false %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for i in [[1]] recursive %}{{ loop([i, i]) }}{% endfor %}",
        "{% set s = 'x' * 9999999 %}{% for i in range(99999) %}{% if s ~ 'a' == s ~ 'b' %}{% endif %}{% endfor %}",
        "{% set s = 'x' * 9999999 %}{% for i in range(99999) %}{% if s[1:] is eq(s[2:]) %}{% endif %}{% endfor %}",
        "{% set s = 'x' * 9999999 %}{% for i in range(99999) %}{{ s | length }}{% endfor %}",
        # text without work
        "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
        "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
        "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s %}{{ n.s }}{{ n.s }}{% endset %}{% endfor %}",
        "{% set s %}{% for i in range(99999) %}" + "x" * 9999 + "{% endfor %}{% endset %}",
        "{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s }}",
        "{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = {'a': n.s, 'b': n.s} %}{% endfor %}",
        "{% set n = namespace(s=(1,)) %}{% for i in range(60) %}{% set n.s = (n.s, n.s) %}{% endfor %}{{ n.s|tojson }}",
        "{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
        "{% set n = namespace(i=10) %}{% for i in range(60) %}{% set n.i = n.i * n.i %}{% endfor %}",
        "{% set s = 'x' * 99999 %}{{ s.replace('x', s) }}",
        "{% set s = 'x' * 99999 %}{{ s | replace('x', s) }}",
        "{% set s = 'x' * 99999 %}{{ s.join(s) }}",
        "{% set s = 'x' * 99999 %}{{ s | join(s) }}",
        "{% set s = 'x' * 99999 %}{{ s | map('replace', 'x', s) | join }}",
        "{{ 'x'.ljust(1000000000) }}",
        "{{ 'x' | center(1000000000) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ 'x'.zfill(1000000000) }}",
        "{{ (1).to_bytes(1000000000) }}",
        "{{ [1] | batch(1000000000, 0) | list }}",
        "{{ [1] | tojson(indent=1000000000) }}",
        "{{ strftime_now('%1000000000d') }}",
        "{{ lipsum(n=100000) }}",
        "{{ namespace(a=1) }}",
        "{% include 'other' %}",
        "{% for i in [1] %}" * 30 + "{% endfor %}" * 30,
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ " + "9" * 100_000 + " }}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(template):
    with pytest.raises(edgesdk.ArtifactError, match="chat template"):
        render_chat(template, MESSAGES, bos="", eos="")


PIECES = re.findall(
    r"\S+",
    """
    {{ {% }} %} {%- -%} {# #} for i in range(9) endfor if elif else endif set endset macro f(x) endmacro call endcall
    filter endfilter namespace(a=1) n.a messages messages[0] .content ['role'] .strip() .split('x') .join
    .replace('a','b') | ~ + * ** % - / // == != < in not is defined string none and or ( ) [ ] { } , : 'x' "y" 0 1
    99999 1.5 true tojson join length map select sort first last reverse list items loop loop.index loop( recursive
    bos_token raise_exception('x') caller() strftime_now('%d') include 'a' import extends block endblock raw endraw
    with endwith autoescape do x i [1:] [::-1] __class__ _private self context
    """,
)


@hypothesis.settings(max_examples=600, deadline=None, database=None, derandomize=True)
@hypothesis.given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=40))
def test_any_template_is_text_or_one_of_our_errors(pieces):
    with suppress(edgesdk.EdgeError):
        assert isinstance(render_chat(" ".join(pieces), MESSAGES, bos="<s>", eos="</s>"), str)


STATEMENTS = st.recursive(
    st.sampled_from(
        [
            "{{ messages[0].content }}",
            "{% set n.s = n.s ~ 'ab' %}",
            "{% set n.s = n.s + n.s %}",
            "{% set n.t = [n.t, n.s] %}",
            "{{ n.t | tojson }}",
            "{{ n.s.replace('a', n.s) }}",
            "{{ n.s.split('b') | join(n.s) }}",
            "{% if n.s == n.t %}{{ n.t }}{% endif %}",
            "{{ f(3) }}",
        ]
    ),
    lambda inner: st.builds(
        "{}{}{}".format,
        st.sampled_from(["{% for i in range(300) %}", "{% for m in messages %}", "{% if n.s %}", "{% set n.s %}"]),
        st.lists(inner, max_size=4).map("".join),
        st.just("END"),
    ).map(_close),
    max_leaves=12,
)


@hypothesis.settings(max_examples=40, deadline=None, database=None, derandomize=True)
@hypothesis.given(STATEMENTS)
def test_templates_that_grow_stay_bounded(statements):
    template = (
        "{% set n = namespace(s='a', t=[]) %}{% macro f(k) %}{% if k %}{{ n.s }}{{ f(k - 1) }}{{ f(k - 1) }}{% endif %}"
        "{% endmacro %}" + statements
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with suppress(edgesdk.EdgeError):
        render_chat(template, MESSAGES, bos="<s>", eos="</s>")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB
