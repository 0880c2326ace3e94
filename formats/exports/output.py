"""A folder that appears as a whole or not at all, and packages that only one format needs."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgesdk.errors import EdgeError, MissingExtraError, UsageError

__all__ = ["new_folder", "optional"]


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write to; it becomes `out` in the end, or is removed where anything fails.

    Raises UsageError where `out` exists, and EdgeError where it cannot be written.
    """
    if out.exists() or out.is_symlink():
        raise UsageError(f"`{out}` exists already", hint="give another folder with -o, or remove that one")
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        try:
            partial.mkdir(parents=True)
            yield partial
            partial.rename(out)
        except OSError as error:
            raise EdgeError(
                f"could not write `{out}`: {error.strerror or error}", hint="give another folder with -o"
            ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def optional(module: str, extra: str) -> Any:
    """A module that comes with an extra. Raises MissingExtraError, which says how to get it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        if missing.name is None or not f"{module}.".startswith(f"{missing.name}."):
            raise
        raise MissingExtraError(
            f"exporting to {extra} needs `{missing.name}`, which is not installed",
            hint=f"pip install 'edgesdk[{extra}]'",
        ) from missing
