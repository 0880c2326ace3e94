"""Renders an artifact's chat template. It comes with the file, so it only ever runs in a sandbox, with limits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edgesdk.errors import ArtifactError, UsageError

__all__ = ["render_chat"]

_MAX_TEMPLATE_CHARACTERS = 1 << 20
_MAX_TEXT_CHARACTERS = 1 << 24
_MAX_REPEATED = 1 << 20
# What a template can raise beside Jinja's own errors: it may call methods and operators of str, list and dict.
_RENDER_ERRORS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError, MemoryError)


class _Environment(ImmutableSandboxedEnvironment):
    """The settings of transformers' chat templates; operators that could fill memory are bounded."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        sized = next((x for x in (left, right) if isinstance(x, (str, list, tuple))), None)
        if operator == "*" and sized is not None:
            times = right if sized is left else left
            if isinstance(times, int) and len(sized) * times > _MAX_REPEATED:
                raise SecurityError(f"repeating {len(sized)} elements {times} times is too much")
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise SecurityError(f"the operator {operator} is not allowed here")
        return super().call_binop(context, operator, left, right)


def render_chat(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    bos: str,
    eos: str,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """The conversation as text, ending with the prompt for the assistant's answer.

    messages: {"role": ..., "content": ...}; bos, eos: text of the first and the end token
    variables: more names that the template knows (`tools`, `enable_thinking`)
    Raises UsageError for what the template refuses, ArtifactError for a template that is broken or exceeds its limits.
    """
    if len(template) > _MAX_TEMPLATE_CHARACTERS:
        raise ArtifactError(f"the chat template has {len(template)} characters, at most 2^20 are allowed")
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    names = {"tools": None, "documents": None, **(variables or {})}
    parts: list[str] = []
    n_characters = 0
    try:
        rendering = environment.from_string(template).generate(
            **names,
            messages=[dict(message) for message in messages],
            bos_token=bos,
            eos_token=eos,
            add_generation_prompt=True,
        )
        for part in rendering:
            n_characters += len(part)
            if n_characters > _MAX_TEXT_CHARACTERS:
                raise SecurityError("the text grows beyond 16 million characters")
            parts.append(part)
    except _RefusedError as error:
        raise UsageError(f"the model's chat template refuses this conversation: {error.message}") from error
    except TemplateSyntaxError as error:
        raise ArtifactError(f"the chat template is broken in line {error.lineno}: {error.message}") from error
    except (TemplateError, *_RENDER_ERRORS) as error:
        raise ArtifactError(
            f"the chat template cannot be rendered: {error}", hint="use generate() with a prompt written by hand"
        ) from error
    return "".join(parts)


class _RefusedError(TemplateError):
    """Raised by the template itself."""


def _refuse(message: str) -> None:
    raise _RefusedError(message)


def _now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)
