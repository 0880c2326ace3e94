"""How warm a device is and whether it holds its clocks back, now or between two moments."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgesdk.targets.connections import Connection

__all__ = ["CONDITION_SCRIPT", "Condition", "held_back", "parse_condition", "read_condition"]

CONDITION_SCRIPT = (Path(__file__).parent / "condition.sh").read_text("utf-8")
_PI_NOW = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}
_ANDROID = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
_PROCESSOR_COOLING = ("processor", "cpufreq", "cpu")


@dataclass(frozen=True)
class Condition:
    """One moment. None stands for what the device does not tell.

    celsius: of its warmest sensor; sensor: that one's name; status: Android's thermal status, or what a Raspberry Pi
    says is limiting it; throttle_count: times that processors were throttled since the start of the system
    cooling: whether the system is slowing processors down to cool them; clock_limit: lowest of the clocks that the
    system allows now, as a share of what the processors can do
    """

    celsius: float | None = None
    sensor: str = ""
    status: str | None = None
    throttle_count: int | None = None
    cooling: bool | None = None
    clock_limit: float | None = None


def read_condition(connection: Connection) -> Condition:
    """Asks a device. Raises DeviceError when it cannot be reached."""
    return parse_condition(connection.run(CONDITION_SCRIPT).text)


def parse_condition(text: str) -> Condition:
    """Reads what condition.sh printed."""
    fields: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            fields.setdefault(key, []).append([part.strip() for part in value.split(";")])
    warmest, sensor = _warmest(fields.get("zone", []))
    coolers = [entry for entry in fields.get("cooling", []) if len(entry) == 2 and _is_processor(entry[0])]
    limits = [
        int(allowed) / int(most)
        for most, allowed, *_ in (entry for entry in fields.get("clock", []) if len(entry) == 3)
        if most.isdigit() and allowed.isdigit() and int(most) > 0
    ]
    count = _first(fields, "throttle_count")
    return Condition(
        celsius=warmest,
        sensor=sensor,
        status=_status(_first(fields, "android_status"), _first(fields, "pi_throttled")),
        throttle_count=int(count) if count.isdigit() else None,
        cooling=any(state.isdigit() and int(state) > 0 for _, state in coolers) if coolers else None,
        clock_limit=round(min(limits), 3) if limits else None,
    )


def held_back(before: Condition, after: Condition) -> tuple[bool | None, str]:
    """Whether a device held back between two moments, and how that is known; None: it tells nothing."""
    signs = []
    if before.throttle_count is not None and after.throttle_count is not None:
        n_times = after.throttle_count - before.throttle_count
        if n_times > 0:
            signs.append(f"processors were throttled {n_times} times")
    if after.status not in (None, "none", "light"):
        signs.append(f"thermal status {after.status}")
    if after.cooling:
        signs.append("the system slows processors down to cool them")
    if before.clock_limit is not None and after.clock_limit is not None and after.clock_limit < before.clock_limit:
        signs.append(f"clocks were limited to {after.clock_limit:.0%}")
    if signs:
        return True, "; ".join(signs)
    told = (after.throttle_count, after.status, after.cooling, after.clock_limit)
    return (None, "the device does not tell") if all(value is None for value in told) else (False, "")


def _first(fields: dict[str, list[list[str]]], key: str) -> str:
    return fields[key][0][0] if key in fields else ""


def _warmest(zones: list[list[str]]) -> tuple[float | None, str]:
    """Sensors tell thousandths of a degree; what is outside of -40 to 150 degrees is a broken one."""
    warm: list[tuple[float, str]] = []
    for entry in zones:
        if len(entry) == 2 and entry[1].lstrip("-").isdigit():
            celsius = int(entry[1]) / 1000
            if -40 < celsius < 150 and celsius != 0:
                warm.append((celsius, entry[0]))
    return max(warm) if warm else (None, "")


def _is_processor(name: str) -> bool:
    return any(word in name.lower() for word in _PROCESSOR_COOLING)


def _status(android: str, pi: str) -> str | None:
    if android.isdigit():
        return _ANDROID[min(int(android), len(_ANDROID) - 1)]
    try:
        bits = int(pi, 16)
    except ValueError:
        return None
    return ", ".join(name for bit, name in _PI_NOW.items() if bits >> bit & 1) or "none"
