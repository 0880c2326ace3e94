"""Reads a bundle, the folder that `edgesdk build --targets` writes for a target: its manifest, checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesdk.errors import UsageError
from edgesdk.targets.manifest import MANIFEST_VERSION, BundledLevel, largest_within

__all__ = ["Bundle", "read_bundle"]

_PROGRAM = "edge-run"
_HINT = "build it again: `edgesdk build MODEL --targets TARGET -o OUT` writes OUT/TARGET"


@dataclass(frozen=True)
class Bundle:
    """What is in the folder, and which machines it is for.

    abi: target triple of the program; isa_floor: kernel sets that the machine must have; artifact: path of the .edge
    file; sha256: of the whole artifact; program: path of `edge-run`; prefill_backend, decode_backend: the fastest for
    prompts and for answers, "" where that is not known
    """

    folder: Path
    target: str
    abi: str
    isa_floor: tuple[str, ...]
    backends: tuple[str, ...]
    artifact: Path
    sha256: str
    levels: tuple[BundledLevel, ...]
    program: Path
    program_sha256: str
    prefill_backend: str = ""
    decode_backend: str = ""

    def level(self, index: int) -> BundledLevel:
        """The level of that number. Raises UsageError."""
        for level in self.levels:
            if level.level == index:
                return level
        raise UsageError(f"level {index} does not exist", hint=f"this bundle has levels 0 to {len(self.levels) - 1}")

    def level_within(self, budget_bytes: int) -> BundledLevel:
        """The largest level that needs at most so many bytes with one session. Raises UsageError."""
        found = largest_within(self.levels, budget_bytes)
        if found is None:
            least = self.levels[0].total_bytes
            raise UsageError(f"no level fits {budget_bytes:,} bytes", hint=f"the smallest one needs {least:,}")
        return found


def read_bundle(folder: Path) -> Bundle:
    """Reads and checks `folder/manifest.json`. Raises UsageError that names all that is missing or wrong.

    Example:
        read_bundle(Path("out/android")).levels[0].file_bytes
    """
    folder = folder.resolve()  # the artifact's path is relative to where the bundle really lies
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"`{folder}` is no bundle: cannot read `{path.name}`: {error.strerror}", hint=_HINT) from error
    except ValueError as error:
        raise UsageError(f"`{path}` is no JSON: {error}", hint=_HINT) from error
    if not isinstance(manifest, dict):
        raise UsageError(f"`{path}` is no JSON object", hint=_HINT)
    check = _Check()
    version = check.integer(manifest, "format_version")
    if not check.problems and version != MANIFEST_VERSION:
        raise UsageError(
            f"`{path}` has format version {version}, this edgesdk reads {MANIFEST_VERSION}",
            hint="use the edgesdk that built it",
        )
    artifact = check.table(manifest, "artifact")
    bundle = Bundle(
        folder=folder,
        target=check.text(manifest, "target"),
        abi=check.text(manifest, "abi"),
        isa_floor=check.texts(manifest, "isa_floor"),
        backends=check.texts(manifest, "backends"),
        artifact=folder / check.text(artifact, "path", "artifact."),
        sha256=check.text(artifact, "sha256", "artifact."),
        levels=_levels(artifact, check),
        program=folder / _PROGRAM,
        program_sha256=_program_hash(manifest, check),
        prefill_backend=check.text(manifest, "prefill_backend") if "prefill_backend" in manifest else "",
        decode_backend=check.text(manifest, "decode_backend") if "decode_backend" in manifest else "",
    )
    if check.problems:
        raise UsageError(f"`{path}`: {'; '.join(check.problems)}", hint=_HINT)
    for needed in (bundle.artifact, bundle.program):
        if not needed.is_file():
            raise UsageError(f"`{path}` names `{needed}`, which is not there", hint=_HINT)
    return bundle


class _Check:
    """Takes fields out of a manifest and collects what is wrong with them."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def text(self, table: Mapping[str, Any], key: str, where: str = "") -> str:
        value = self._get(table, key, where, (str,))
        return "" if value is None else str(value)

    def integer(self, table: Mapping[str, Any], key: str, where: str = "") -> int:
        value = self._get(table, key, where, (int,))
        return 0 if value is None else int(value)

    def number(self, table: Mapping[str, Any], key: str, where: str) -> float:
        value = self._get(table, key, where, (int, float))
        return 0.0 if value is None else float(value)

    def table(self, table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        value = self._get(table, key, "", (dict,))
        return {} if value is None else dict(value)

    def tables(self, table: Mapping[str, Any], key: str, where: str = "") -> list[Mapping[str, Any]]:
        value = self._get(table, key, where, (list,)) or []
        if not all(isinstance(entry, dict) for entry in value):
            self.problems.append(f"`{where}{key}` holds what is no object")
            return []
        return list(value)

    def texts(self, table: Mapping[str, Any], key: str) -> tuple[str, ...]:
        value = self._get(table, key, "", (list,)) or []
        return tuple(str(entry) for entry in value)

    def _get(self, table: Mapping[str, Any], key: str, where: str, kinds: tuple[type, ...]) -> Any:
        value = table.get(key)
        if key not in table:
            self.problems.append(f"`{where}{key}` is missing")
        elif not isinstance(value, kinds) or isinstance(value, bool):
            expected = " or ".join(kind.__name__ for kind in kinds)
            self.problems.append(f"`{where}{key}` is {value!r}, expected {expected}")
        else:
            return value
        return None


def _levels(artifact: Mapping[str, Any], check: _Check) -> tuple[BundledLevel, ...]:
    levels = []
    for n, entry in enumerate(check.tables(artifact, "levels", "artifact.")):
        where = f"artifact.levels[{n}]."
        levels.append(
            BundledLevel(
                level=check.integer(entry, "level", where),
                rate=check.number(entry, "rate", where),
                file_bytes=check.integer(entry, "file_bytes", where),
                mapped_bytes=check.integer(entry, "mapped_bytes", where),
                total_bytes=check.integer(entry, "total_bytes", where),
                token_bytes=check.integer(entry, "token_bytes", where),
            )
        )
    if not levels:
        check.problems.append("`artifact.levels` holds no level")
    return tuple(sorted(levels, key=lambda level: level.level))


def _program_hash(manifest: Mapping[str, Any], check: _Check) -> str:
    files = {entry.get("path"): entry for entry in check.tables(manifest, "files")}
    if _PROGRAM not in files:
        check.problems.append(f"`files` does not name `{_PROGRAM}`")
        return ""
    return check.text(files[_PROGRAM], "sha256", f"files[{_PROGRAM}].")
