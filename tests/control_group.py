"""A control group of memory with a limit, of either version, for as long as a test or a benchmark needs it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ControlGroup", "control_group"]

_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class ControlGroup:
    """A process enters by writing its number into `processes`."""

    folder: Path
    is_v1: bool

    @property
    def processes(self) -> Path:
        """The file of those that are in it."""
        return self.folder / "cgroup.procs"

    def highest_bytes(self) -> int:
        """The most that was ever used in it, page cache included."""
        return int((self.folder / ("memory.max_usage_in_bytes" if self.is_v1 else "memory.peak")).read_text())


@contextmanager
def control_group(limit_bytes: int) -> Iterator[ControlGroup]:
    """Makes a group and removes it. Raises OSError where none can be made."""
    is_v1 = (_V1 / "memory.limit_in_bytes").is_file()
    folder = (_V1 if is_v1 else _V2) / f"edgesdk-{os.getpid()}"
    folder.mkdir()
    try:
        (folder / ("memory.limit_in_bytes" if is_v1 else "memory.max")).write_text(str(limit_bytes))
        yield ControlGroup(folder, is_v1)
    finally:
        for _ in range(50):  # what was killed in it may not be gone yet
            try:
                folder.rmdir()
                break
            except OSError:
                time.sleep(0.1)
