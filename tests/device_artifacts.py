"""Artifacts and the native program for the tests of this folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_model

import edgesdk

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'bad' %}{{ raise_exception('no such role') }}{% endif %}"
    "{{ bos_token if loop.first }}[{{ m.role }}]{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
CHAT = {
    "default_system": "<bos>",
    "system": ["<bos>[system]", "\n"],
    "user": ["[user]", "\n"],
    "user_after_system": "[user]",
    "assistant": ["[assistant]", "\n"],
    "generation_prompt": "[assistant]",
    "trim": [],
}


# Arguments of `load` that give prompts and answers different backends.
SPLITS: dict[str, dict[str, Any]] = {
    "prompts on the device": {"backend": "opencl", "decode_backend": "cpu"},
    "answers on the device": {"backend": "cpu", "decode_backend": "opencl"},
}

# Of models that reach every part of a forward pass: arguments of tiny_config.
SHAPES: dict[str, dict[str, Any]] = {
    "grouped": {},
    "untied, biases": {"tied_head": False, "biases": True},
    "one key head": {"n_heads": 4, "n_kv_heads": 1, "head_dim": 16},
    "odd width": {"d_model": 72, "width": 168, "n_heads": 3, "n_kv_heads": 3, "head_dim": 24},
    "normed heads": {"norms": ("qk_norm",), "windows": (9, None)},
    "capped, two norms": {
        "norms": ("post_norm",),
        "windows": (None, 20),
        "softcap": 1.5,
        "logit_softcap": 2.0,
        "activation": "gelu_tanh",
        "biases": True,
    },
    "everything": {
        "norms": ("post_norm", "qk_norm"),
        "windows": (1, 12),
        "softcap": 3.0,
        "activation": "gelu_tanh",
        "n_heads": 3,
        "n_kv_heads": 3,
        "head_dim": 24,
    },
    "wide": {"d_model": 256, "width": 512, "n_heads": 8, "n_kv_heads": 4, "head_dim": 64, "vocab_size": 1000},
}


def write_tiny(path: Path, *, chat: bool = False, **shape: int) -> Path:
    """A random artifact with three levels; `chat`: with a template and its plain strings."""
    config = tiny_model.tiny_config(**shape)
    if not chat:
        tiny_model.write_random_artifact(path, config, tiny_model.nested_ladder(config))
        return path
    plain = tiny_model.byte_tokenizer

    def with_chat(vocab_size: int):
        header, tables = plain(vocab_size)
        template = np.frombuffer(TEMPLATE.encode(), np.uint8)
        return {**header, "chat": CHAT}, {**tables, "chat_template": template}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_model, "byte_tokenizer", with_chat)
        tiny_model.write_random_artifact(path, config, tiny_model.nested_ladder(config))
    return path


def edge_run_path() -> Path:
    """The native program; skips the test where it was not built."""
    places = [
        Path(edgesdk.__file__).parent / "bin" / "edge-run",
        Path(os.environ.get("EDGE_BUILD_DIR", "build")) / "native" / "device" / "edge-run",
    ]
    program = next((place for place in places if place.is_file()), None)
    if program is None:
        pytest.skip("edge-run is not built: run `make install`")
    return program


def edge_run(*arguments: object, text: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the native program; skips the test where it was not built."""
    command = [str(edge_run_path()), *map(str, arguments)]
    given = text.encode() if text is not None else b""
    result = subprocess.run(command, capture_output=True, input=given, timeout=120, env={**os.environ, **environment})
    # Decoded here: subprocess's text mode would turn a generated carriage return into a line feed.
    return subprocess.CompletedProcess(command, result.returncode, result.stdout.decode(), result.stderr.decode())
