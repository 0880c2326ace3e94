"""Measures an artifact on devices: levels, threads, backends and prompt lengths in one sweep."""

from __future__ import annotations

from edgesdk.targets.measure.figures import MEASURED_SCHEMA, csv_text, summary
from edgesdk.targets.measure.save import target_profile, write_target_profile
from edgesdk.targets.measure.sweep import Plan, here, measure_device

__all__ = [
    "MEASURED_SCHEMA",
    "Plan",
    "csv_text",
    "here",
    "measure_device",
    "summary",
    "target_profile",
    "write_target_profile",
]
