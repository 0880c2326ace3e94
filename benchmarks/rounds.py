"""Interleaved measurements: every round takes one sample of each, so that a change of the machine meets them all alike.

A sample during which other processes (or the hypervisor) took more than a tenth of a processor is repeated.
"""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["Samples", "pinned", "take_rounds"]

_DISTURBED = 0.1  # processors that others use
_TRIES = 3


@dataclass
class Samples:
    """What was measured of one thing, in order of the rounds; disturbed: samples that stayed so after all tries."""

    values: list[float] = field(default_factory=list)
    disturbed: int = 0

    @property
    def median(self) -> float:
        """The figure that counts."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """Largest over smallest sample, less one."""
        return max(self.values) / min(self.values) - 1


def pinned(n_threads: int) -> list[str]:
    """The prefix of a command that keeps it on as many processors as it has threads: the last ones we may use."""
    allowed = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", ",".join(map(str, allowed[-n_threads:]))]


def take_rounds(
    measurements: Mapping[str, Callable[[], float]], n_rounds: int, report: Callable[[str], None], tries: int = _TRIES
) -> dict[str, Samples]:
    """Takes `n_rounds` samples of each measurement, in turn; `report` receives a line per sample."""
    samples = {key: Samples() for key in measurements}
    for number in range(n_rounds):
        for key, measure in measurements.items():
            value, others = _sample(measure)
            for _ in range(tries - 1):
                if others <= _DISTURBED:
                    break
                time.sleep(1)
                value, others = _sample(measure)
            samples[key].values.append(value)
            samples[key].disturbed += others > _DISTURBED
            remark = f"  (others used {others:.2f} processors)" if others > _DISTURBED else ""
            report(f"round {number + 1}/{n_rounds}  {key}: {value:.4g}{remark}")
    return samples


def _sample(measure: Callable[[], float]) -> tuple[float, float]:
    """A sample, and the processors that others used meanwhile."""
    begin, all_before, own_before = time.perf_counter(), _all_seconds(), _own_seconds()
    value = measure()
    others = (_all_seconds() - all_before) - (_own_seconds() - own_before)
    return value, others / (time.perf_counter() - begin)


def _all_seconds() -> float:
    """Seconds that all processors were busy or taken away: everything in /proc/stat but idle and iowait."""
    with open("/proc/stat") as file:
        fields = [int(n) for n in file.readline().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in used)
