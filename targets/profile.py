"""Reads target profiles. A new target is one TOML file in `profiles/`; no code changes."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from edgesdk.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Profile", "load_profile", "profile_names"]

_FOLDER = Path(__file__).parent / "profiles"


@dataclass(frozen=True)
class Profile:
    """One target machine; figures are the maker's nominal ones unless `notes` says otherwise."""

    name: str
    title: str
    aliases: tuple[str, ...]  # other names that --targets accepts
    abi: str  # target triple of the native runtime
    isa_floor: tuple[str, ...]  # what every machine of this target has; faster kernel sets are chosen at run time
    memory_bytes: int  # of the whole machine
    memory_gb_per_s: float  # peak bandwidth in 1e9 bytes per second
    backends: tuple[str, ...]  # in order of preference
    toolchain: str  # cmake/<toolchain>.cmake; empty: the build machine's own compiler
    notes: str


def profile_names() -> list[str]:
    """Names of all profiles, sorted; aliases are not listed."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_profile(name: str) -> Profile:
    """The profile of that name or alias. Raises UsageError for a name that no profile carries.

    Example:
        load_profile("raspberry-pi-5").abi
    """
    profiles = [_read(_FOLDER / f"{stem}.toml") for stem in profile_names()]
    for profile in profiles:
        if name == profile.name or name in profile.aliases:
            return profile
    known = ", ".join(profile.name for profile in profiles)
    raise UsageError(f"target `{name}` is unknown", hint=f"known targets: {known}")


def _read(path: Path) -> Profile:
    entries = tomllib.loads(path.read_text("utf-8"))
    hints = get_type_hints(Profile)
    problems = [f"`{key}` is unknown" for key in entries if key not in hints]
    values: dict[str, Any] = {"name": path.stem}
    for field in fields(Profile):
        if field.name == "name":
            continue
        if field.name not in entries:
            problems.append(f"`{field.name}` is missing")
        elif not _matches(entries[field.name], hints[field.name]):
            problems.append(f"`{field.name}` is {entries[field.name]!r}, expected {hints[field.name]}")
        else:
            value = entries[field.name]
            values[field.name] = tuple(value) if isinstance(value, list) else value
    if problems:
        raise UsageError(f"profile `{path.name}`: {'; '.join(problems)}", hint="compare it with another profile")
    return Profile(**values)


def _matches(value: object, expected: Any) -> bool:
    if get_args(expected):
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return isinstance(value, expected) and not isinstance(value, bool)
