"""Chat templates: Jinja source turned into plain strings, for programs that have no Jinja.

The template is rendered with marked contents; what stands between the marks becomes the strings. They are kept only if
they give exactly what Jinja gives for a set of sample conversations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import CodeType
from typing import Any

from jinja2 import Template, TemplateError

from edgesdk.device.template_sandbox import Sandbox

__all__ = ["compile_chat", "render_compiled", "render_template"]

Messages = Sequence[Mapping[str, str]]
_ROLES = ("system", "user", "assistant")
_CONTENTS = (
    "What is 2 + 2?",
    "  two spaces before, a tab behind\t",
    "\nseveral\n\nlines\n",
    "Grüße, 世界! 🙂 <b>&amp;</b> 'quoted' \"twice\" {{ braces }} {% percent %}",
)
_MAX_TEMPLATE_CHARACTERS = 1 << 18  # as where an artifact's template is rendered
# What a template can raise beside Jinja's own errors: it may call methods and operators of str, list and dict, and be
# nested deeper than Python compiles.
_RENDER_ERRORS = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
)


class _NotPlainError(Exception):
    """The template does more than put strings around contents."""


def compile_chat(template: str, bos: str, eos: str) -> dict[str, Any] | None:
    """The strings of SPEC.md section 7 `chat`, or None when the template is not a matter of plain strings.

    bos, eos: text of the first and the end token, as the template may write them.

    >>> compile_chat("{% for m in messages %}<{{ m.role }}>{{ m.content }}\\n{% endfor %}", "", "")["user"]
    ['<user>', '\\n']
    """
    if len(template) > _MAX_TEMPLATE_CHARACTERS:
        return None
    try:
        plain = _turns(template, bos, eos)
    except (_NotPlainError, *_RENDER_ERRORS):
        return None
    candidates = [plain]
    try:
        candidates.insert(0, plain | _system(template, bos, eos, plain))
    except (_NotPlainError, *_RENDER_ERRORS):
        pass  # the template takes no system message
    return next((chat for chat in candidates if _agrees(chat, template, bos, eos)), None)


def render_template(template: str, messages: Messages, *, bos: str, eos: str, generation_prompt: bool) -> str:
    """The conversation as Jinja renders it, in the sandbox, and within the limits, of the device half.

    Raises jinja2.TemplateError for a broken template and for what it refuses by `raise_exception`.
    """
    environment = Sandbox()
    # What changes with the day is no plain string.
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _refuse}
    return Template.from_code(environment, _compiled(template), environment.make_globals(None)).render(
        messages=[dict(m) for m in messages], bos_token=bos, eos_token=eos, add_generation_prompt=generation_prompt
    )


@lru_cache(maxsize=4)
def _compiled(template: str) -> CodeType:
    """One template is rendered many times, each time in a sandbox of its own, whose budget is new."""
    return Sandbox().compile(template)


def render_compiled(chat: Mapping[str, Any], messages: Messages) -> str:
    """The conversation up to and with the generation prompt, as the native program puts it together."""
    out = []
    if messages[0]["role"] != "system":
        out.append(chat["default_system"])
    before = ""
    for message in messages:
        role, content = message["role"], message["content"]
        prefix, suffix = chat[role]
        if role == "user" and before == "system":
            prefix = chat["user_after_system"]
        out += [prefix, content.strip() if role in chat["trim"] else content, suffix]
        before = role
    return "".join([*out, chat["generation_prompt"]])


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _conversation(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    """User and assistant in turn, the user first."""
    messages = [{"role": _ROLES[1 + i % 2], "content": content} for i, content in enumerate(contents)]
    return messages if system is None else [{"role": "system", "content": system}, *messages]


def _between(text: str, contents: Sequence[str]) -> list[str]:
    """What stands before, between and behind the contents, each of which must be there once and in order."""
    parts = []
    for content in contents:
        before, found, text = text.partition(content)
        if not found or content in text:
            raise _NotPlainError
        parts.append(before)
    return [*parts, text]


def _common_prefix(*texts: str) -> str:
    columns = zip(*texts, strict=False)
    n = next((i for i, letters in enumerate(columns) if len(set(letters)) > 1), min(map(len, texts)))
    return texts[0][:n]


def _turns(template: str, bos: str, eos: str) -> dict[str, Any]:
    """The strings of conversations without a system message."""

    def gaps(*contents: str, prompt: bool = False) -> list[str]:
        messages = _conversation(*contents)
        text = render_template(template, messages, bos=bos, eos=eos, generation_prompt=prompt)
        return _between(text, contents)

    head, tail = gaps("edgeUserA")
    tail_with_prompt = gaps("edgeUserA", prompt=True)[1]
    _, answer_gap, question_gap, _ = gaps("edgeUserA", "edgeAnswerA", "edgeUserB")
    user_suffix = _common_prefix(tail, tail_with_prompt, answer_gap)
    last = gaps("edgeUserA", "edgeAnswerA")[2]
    user_prefix = question_gap.removeprefix(last)
    if not (question_gap.startswith(last) and head.endswith(user_prefix)):
        user_prefix = _common_prefix(head[::-1], question_gap[::-1])[::-1]
    return {
        "default_system": head.removesuffix(user_prefix),
        "system": None,
        "user": [user_prefix, user_suffix],
        "user_after_system": user_prefix,
        "assistant": [answer_gap.removeprefix(user_suffix), question_gap.removesuffix(user_prefix)],
        "generation_prompt": tail_with_prompt.removeprefix(user_suffix),
        "trim": [role for role in _ROLES[1:] if _trims(role, template, bos, eos)],
    }


def _system(template: str, bos: str, eos: str, plain: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a system message adds."""
    messages = _conversation("edgeUserA", system="edgeSystem")
    text = render_template(template, messages, bos=bos, eos=eos, generation_prompt=False)
    head, gap, _ = _between(text, ["edgeSystem", "edgeUserA"])
    prefix = plain["user"][0] if gap.endswith(plain["user"][0]) else ""
    trim = [role for role in _ROLES if role in plain["trim"] or (role == "system" and _trims(role, template, bos, eos))]
    return {"system": [head, gap.removesuffix(prefix)], "user_after_system": prefix, "trim": trim}


def _trims(role: str, template: str, bos: str, eos: str) -> bool:
    """Whether white space around a content of this role is lost."""
    padded = " \n edgePadded \n "
    contents = [padded if role == r else "edgeOther" for r in ("user", "assistant")]
    messages = _conversation(*contents, "edgeLast", system=padded if role == "system" else None)
    return padded not in render_template(template, messages, bos=bos, eos=eos, generation_prompt=True)


def _agrees(chat: Mapping[str, Any], template: str, bos: str, eos: str) -> bool:
    """Whether the strings give what Jinja gives, for one to five messages, with and without a system message."""
    for n_messages in (1, 3, 5):
        for shift in range(len(_CONTENTS)):
            contents = [_CONTENTS[(shift + i) % len(_CONTENTS)] for i in range(n_messages)]
            for system in (None, *_CONTENTS) if chat["system"] else (None,):
                messages = _conversation(*contents, system=system)
                try:
                    expected = render_template(template, messages, bos=bos, eos=eos, generation_prompt=True)
                except _RENDER_ERRORS:
                    return False
                if render_compiled(chat, messages) != expected:
                    return False
    return True
