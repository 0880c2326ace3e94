"""Renders an artifact's chat template. It comes with the file, so it only ever runs in a sandbox, with limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError
from jinja2.exceptions import SecurityError

from edgesdk.device.template_sandbox import Sandbox
from edgesdk.errors import ArtifactError, UsageError

__all__ = ["render_chat"]

_MAX_TEMPLATE_CHARACTERS = 1 << 18
_MAX_TEXT_CHARACTERS = 1 << 24
# What a template can raise beside Jinja's own errors: it may call methods and operators of str, list and dict, and be
# nested deeper than Python compiles.
_RENDER_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
)


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
        raise ArtifactError(f"the chat template has {len(template)} characters, at most 2^18 are allowed")
    environment = Sandbox()
    environment.globals["raise_exception"] = _refuse
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
