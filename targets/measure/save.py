"""Writes what was measured back as a target profile, so that `build --targets` knows the real device."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from edgesdk.errors import EdgeError, UsageError
from edgesdk.targets.profile import BACKENDS, Profile, load_profile, profile_names

__all__ = ["target_profile", "write_target_profile"]

_KERNEL_SETS = ("avx2", "avx512vnni", "neon", "dotprod", "i8mm")  # what a profile may ask for


def target_profile(name: str, device: Mapping[str, Any], created: str) -> Profile:
    """The profile of a device that was measured: its target's, with its own memory, bandwidth, kernel sets, backends.

    device: an entry of `devices` of MEASURED_SCHEMA. Raises UsageError when no target is like it.
    """
    info = device["info"]
    # A target of the user's own is not known by its name here.
    base = load_profile(device["target"] if device["target"] in profile_names() else _likeness(info))
    measured = {row["backend"] for row in device["results"]}
    return replace(
        base,
        name=name,
        title=info["model"] or device["name"],
        aliases=(),
        isa_floor=tuple(isa for isa in info["isa"] if isa in _KERNEL_SETS) or base.isa_floor,
        memory_bytes=info["memory_bytes"] or base.memory_bytes,
        memory_gb_per_s=round(device["read_gb_per_s"], 2),
        backends=tuple(one for one in BACKENDS if one in base.backends or one in measured),
        prefill_backend=_fastest(device["results"], "prefill"),
        decode_backend=_fastest(device["results"], "decode"),
        notes=f"Measured by edgesdk profile on {created[:10]}, {info['soc'] or info['machine']}, based on {base.name}.",
    )


def write_target_profile(path: Path, profile: Profile) -> None:
    """Writes the TOML file of a profile. Raises EdgeError."""
    lines = []
    for key in (field.name for field in fields(Profile) if field.name != "name"):
        value = getattr(profile, key)
        # JSON's strings, lists and numbers are TOML's, but for DEL, which TOML wants escaped.
        text = json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
        lines.append(f"{key} = {text.replace(chr(127), ' ')}")
    try:
        path.write_text("\n".join(lines) + "\n", "utf-8")
    except OSError as error:
        raise EdgeError(f"cannot write `{path}`: {error.strerror}") from error


def _fastest(results: Sequence[Mapping[str, Any]], phase: str) -> str:
    """The backend with the best median at the largest level and the longest prompt; "" where only one was measured."""
    if len({row["backend"] for row in results}) < 2:
        return ""
    most = max((row["level"], row["prompt_tokens"]) for row in results)
    rows = [row for row in results if (row["level"], row["prompt_tokens"]) == most]
    return str(max(rows, key=lambda row: row[f"{phase}_tokens_per_s"]["p50"])["backend"])


def _likeness(info: Mapping[str, Any]) -> str:
    name = "android" if info["android"] else f"linux-{info['machine']}"
    if name not in profile_names():
        raise UsageError(f"no target is like {info['machine']}", hint=f"known targets: {', '.join(profile_names())}")
    return name
