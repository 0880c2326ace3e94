"""Reads a model's configuration field by field and reports every problem at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from edgesdk.errors import ModelError

__all__ = ["MAX_CONTEXT", "MAX_HEAD", "MAX_LAYERS", "Fields"]

T = TypeVar("T")

# Far above any model: a number in a configuration must not make the compiler allocate or count for long.
MAX_LAYERS, MAX_HEAD, MAX_CONTEXT = 1 << 12, 1 << 12, 1 << 30
_MAX_SIZE = 1 << 24  # of everything else (formats/SPEC.md knows no larger axis)


class Fields:
    """A configuration under examination: a wrong field is noted and a stand-in returned; `finish` raises them all."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self._problems: list[str] = []

    def size(self, name: str, default: int | None = None, *, multiple: int = 1, most: int = _MAX_SIZE) -> int:
        """An integer from 1 to `most`, a multiple of `multiple`; `default` where the field is absent or null."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self._problems.append(f"{name} is {value!r}, expected a positive integer")
            return multiple
        if value > most:
            self._problems.append(f"{name} is {value}, expected at most {most}")
            return multiple
        if value % multiple:
            self._problems.append(f"{name} is {value}, expected a multiple of {multiple}")
        return value

    def positive(self, name: str, default: float | None = None) -> float:
        """A positive number; `default` where the field is absent or null."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
            self._problems.append(f"{name} is {value!r}, expected a positive number")
            return 1.0
        return float(value)

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        """One of `allowed`, the first where the field is absent."""
        value = self._value(name, allowed[0])
        if value not in allowed:
            self._problems.append(f"{name} is {value!r}, expected {' or '.join(allowed)}")
            return allowed[0]
        return str(value)

    def require(self, holds: bool, problem: str) -> None:
        """Notes `problem` unless `holds`."""
        if not holds:
            self._problems.append(problem)

    def attempt(self, compute: Callable[[], T], stand_in: T) -> T:
        """The result of `compute`, whose ModelError becomes one more problem."""
        try:
            return compute()
        except ModelError as error:
            self._problems.append(str(error))
            return stand_in

    def finish(self) -> None:
        """Raises ModelError when anything was wrong."""
        if self._problems:
            lines = "\n".join(f"  {problem}" for problem in self._problems)
            model_type = self.config.get("model_type")
            raise ModelError(f"the configuration of this `{model_type}` model cannot be compiled:\n{lines}")

    def _value(self, name: str, default: Any) -> Any:
        value = self.config.get(name)
        return default if value is None else value
