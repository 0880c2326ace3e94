"""How much of a file is in this process's memory."""

from __future__ import annotations

from pathlib import Path

__all__ = ["resident_bytes"]


def resident_bytes(path: Path) -> int:
    """Bytes of this file that this process has mapped and resident, from /proc/self/smaps."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split(maxsplit=5)
        if "-" in head[0]:
            inside = len(head) == 6 and head[5] == str(path.resolve())
        elif inside and head[0] == "Rss:":
            total += int(head[1]) * 1024
    return total
