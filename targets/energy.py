"""Energy that a program took on a device, where the device tells: RAPL, a Jetson's INA sensors, a phone's battery."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["NOT_AVAILABLE", "Energy", "measured_script", "parse_energy"]

NOT_AVAILABLE = "not available"
_SCRIPT = (Path(__file__).parent / "energy.sh").read_text("utf-8")
# What the shell adds to stderr around a command: the time since the start of the system, and readings. A command in the
# background ignores SIGINT, so the trap ends it by SIGTERM.
_AROUND = """
uptime_now() {{ echo "uptime=$(cut -d' ' -f1 /proc/uptime)" >&2; }}
trap 'kill -TERM $program $sampler 2>/dev/null; exit 130' INT TERM
echo "energy_source=$energy_source" >&2
uptime_now
energy_now >&2
if [ $energy_source = ina ] || [ $energy_source = battery ]; then
  (while :; do sleep 0.2; energy_now >&2; done) &
  sampler=$!
fi
{command} &
program=$!
wait $program
status=$?
[ -n "$sampler" ] && kill $sampler
energy_now >&2
uptime_now
exit $status
"""
_WATTS = {"power_mv_ma": 1e-6, "power_uv_ua": 1e-12}


@dataclass(frozen=True)
class Energy:
    """Of the whole machine or package, idle part included, from the start of a program to its end.

    source: `rapl`, `ina`, `battery`, or `not available` with None for the figures
    """

    source: str
    joules: float | None = None
    seconds: float | None = None
    watts: float | None = None


def measured_script(command: str) -> str:
    """A script that runs a command and prints readings on stderr; its exit status is the command's."""
    return _SCRIPT + _AROUND.format(command=command)


def parse_energy(stderr: str) -> Energy:
    """Reads what such a script printed on stderr; other lines are left alone."""
    source, times = NOT_AVAILABLE, []
    counters: list[tuple[int, int]] = []
    watts: list[float] = []
    for line in stderr.splitlines():
        key, _, value = line.partition("=")
        parts = value.split(";")
        if key == "energy_source" and value != "none":
            source = value
        elif key == "uptime" and value.replace(".", "", 1).isdigit():
            times.append(float(value))
        elif key == "energy_uj" and all(part.isdigit() for part in parts):
            counters.append((int(parts[0]), int(parts[1])))
        elif key in _WATTS and all(part.lstrip("-").isdigit() for part in parts):
            watts.append(abs(int(parts[0]) * int(parts[1])) * _WATTS[key])
    seconds = times[-1] - times[0] if len(times) == 2 else 0.0
    joules = _from_counters(counters) if source == "rapl" else sum(watts) / len(watts) * seconds if watts else None
    if joules is None or seconds <= 0:
        return Energy(NOT_AVAILABLE)
    return Energy(source, round(joules, 3), round(seconds, 2), round(joules / seconds, 3))


def _from_counters(readings: list[tuple[int, int]]) -> float | None:
    """Joules between the first half of the readings, one per package, and the second; a counter may have wrapped."""
    n = len(readings) // 2
    if n == 0 or len(readings) != 2 * n:
        return None
    return (
        sum((end - begin) % (most + 1) for (begin, most), (end, _) in zip(readings, readings[n:], strict=False)) / 1e6
    )
