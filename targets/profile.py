"""Reads target profiles. A new target is one TOML file in `profiles/`, or anywhere; no code changes."""

from __future__ import annotations

import sys
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from edgesdk.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["BACKENDS", "Profile", "load_profile", "load_profiles", "profile_names"]

BACKENDS = ("cpu", "opencl", "cuda")
"""What can compute on a target."""

_FOLDER = Path(__file__).parent / "profiles"


@dataclass(frozen=True)
class Profile:
    """One target machine; figures are the maker's nominal ones unless `notes` says otherwise.

    Fields with a default may be left out of the file.
    """

    name: str
    title: str
    aliases: tuple[str, ...]  # other names that --targets accepts
    abi: str  # target triple of the native runtime; a number behind gnu is the oldest glibc that it runs on
    isa_floor: tuple[str, ...]  # what every machine of this target has; faster kernel sets are chosen at run time
    memory_bytes: int  # of the whole machine
    memory_gb_per_s: float  # peak bandwidth in 1e9 bytes per second
    backends: tuple[str, ...]  # what machines of this target may have, of BACKENDS
    toolchain: str  # cmake/<toolchain>.cmake; empty: the build machine's own compiler
    notes: str
    memory_share: float = 0.5  # of memory_bytes, that a bundle's default budget grants
    prefill_backend: str = ""  # the fastest of `backends` for prompts, where that was measured
    decode_backend: str = ""  # likewise for the tokens of an answer
    android_abi: str = ""  # what ANDROID_NDK_HOME builds for, e.g. arm64-v8a; empty: not Android
    android_api: int = 0  # the oldest API level


def profile_names() -> list[str]:
    """Names of all profiles of the package, sorted; aliases are not listed."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_profile(name: str) -> Profile:
    """The profile of that name or alias, or of a file: what holds a `/` or ends in `.toml` is a path.

    Raises UsageError for a name that no profile carries, and for a file that is no profile.

    Example:
        load_profile("raspberry-pi-5").abi
        load_profile("./my-board.toml").name  # my-board
    """
    if "/" in name or name.endswith(".toml"):
        return _read(Path(name))
    profiles = [_read(_FOLDER / f"{stem}.toml") for stem in profile_names()]
    for profile in profiles:
        if name == profile.name or name in profile.aliases:
            return profile
    if Path(f"{name}.toml").is_file():
        raise UsageError(
            f"target `{name}` is unknown", hint=f"a profile of your own is named by its path: ./{name}.toml"
        )
    known = ", ".join(profile.name for profile in profiles)
    raise UsageError(f"target `{name}` is unknown", hint=f"known targets: {known}; or a path to a profile of your own")


def load_profiles(names: str) -> list[Profile]:
    """The profiles of a list such as `android,jetson,./my-board.toml`. Raises UsageError, also for one named twice."""
    profiles = [load_profile(name.strip()) for name in names.split(",") if name.strip()]
    found = [profile.name for profile in profiles]
    if not found:
        raise UsageError("no target was given", hint=f"known targets: {', '.join(profile_names())}")
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        raise UsageError(f"target `{twice[0]}` was given twice", hint="name every target once; aliases count")
    return profiles


def _read(path: Path) -> Profile:
    try:
        entries = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(
            f"profile `{path}` cannot be read: {error}", hint="docs/targets.md shows what a profile holds"
        ) from error
    hints = get_type_hints(Profile)
    problems = [f"`{key}` is unknown" for key in entries if key not in hints or key == "name"]
    values: dict[str, Any] = {"name": path.stem}
    for field in fields(Profile):
        if field.name == "name":
            continue
        if field.name not in entries:
            if field.default is MISSING:
                problems.append(f"`{field.name}` is missing")
        elif not _matches(entries[field.name], hints[field.name]):
            problems.append(f"`{field.name}` is {entries[field.name]!r}, expected {_kind(hints[field.name])}")
        else:
            value = entries[field.name]
            values[field.name] = tuple(value) if isinstance(value, list) else value
    if problems:
        raise UsageError(f"profile `{path.name}`: {'; '.join(problems)}", hint="docs/targets.md shows a whole profile")
    profile = Profile(**values)
    wrong = _out_of_range(profile)
    if wrong:
        raise UsageError(f"profile `{path.name}`: {'; '.join(wrong)}", hint="docs/targets.md says what each means")
    return profile


def _matches(value: object, expected: Any) -> bool:
    if get_args(expected):
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if expected is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, expected) and not isinstance(value, bool)


def _kind(expected: Any) -> str:
    return "a list of texts" if get_args(expected) else {str: "a text", int: "an integer", float: "a number"}[expected]


def _out_of_range(profile: Profile) -> list[str]:
    wrong = []
    if profile.memory_bytes <= 0:
        wrong.append(f"`memory_bytes` is {profile.memory_bytes}, expected more than 0")
    if not profile.memory_gb_per_s > 0:
        wrong.append(f"`memory_gb_per_s` is {profile.memory_gb_per_s}, expected more than 0")
    if not 0 < profile.memory_share <= 1:
        wrong.append(f"`memory_share` is {profile.memory_share}, expected more than 0 and at most 1")
    if "cpu" not in profile.backends or not set(profile.backends) <= set(BACKENDS):
        wrong.append(f"`backends` is {list(profile.backends)}, expected cpu and what else there may be: opencl, cuda")
    for phase in ("prefill", "decode"):
        fastest = getattr(profile, f"{phase}_backend")
        if fastest and fastest not in profile.backends:
            wrong.append(f"`{phase}_backend` is `{fastest}`, expected one of `backends`")
    return wrong
