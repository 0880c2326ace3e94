"""How much memory is free: for this machine, and for the control group that this process is in."""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath

from edgesdk.cloud.families.blocks import Block, ModelConfig
from edgesdk.cloud.sizes import kept_shapes

__all__ = ["available_bytes", "block_bytes"]

_FLOAT_BYTES = 4
# Below the folder of each control group: its limit, what it uses, and what of that the system can take back.
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))
_VERSION_2 = ("memory.max", "memory.current", ("inactive_file", "active_file"))


def block_bytes(config: ModelConfig, index: int) -> int:
    """Bytes of a block's weights in float32."""
    block: Block = config.blocks[index]
    shapes = kept_shapes(block, [axis.size for axis in block.axes], config.d_model)
    return _FLOAT_BYTES * sum(math.prod(shape) for shape in shapes.values())


def available_bytes(root: Path = Path("/")) -> int:
    """Bytes that can be taken without swapping: what the system says, or less where a control group sets a limit.

    root: where /proc and /sys lie. Without /proc (not Linux) there is no limit that this can tell.
    """
    try:
        fields = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines())
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, ValueError):
        return 1 << 62
    available = int(fields["MemAvailable"].split()[0]) << 10 if "MemAvailable" in fields else 1 << 62
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            available = min(available, _room(root / "sys/fs/cgroup", path, *_VERSION_2))
        elif "memory" in controllers.split(","):
            available = min(available, _room(root / "sys/fs/cgroup/memory", path, *_VERSION_1))
    return available


def _room(mount: Path, path: str, limit: str, usage: str, reclaimable: tuple[str, ...]) -> int:
    """The least room of a group and of those around it; those that have no limit, or cannot be read, do not count."""
    group = PurePosixPath(path.lstrip("/"))
    room = 1 << 62
    for folder in (mount / part for part in (group, *group.parents)):
        try:
            most, used = int((folder / limit).read_text()), int((folder / usage).read_text())
            counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        room = min(room, most - used + sum(int(counts.get(name, 0)) for name in reclaimable))
    return max(room, 0)
