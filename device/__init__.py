"""Runs `.edge` artifacts: the Python API over the C++ engine. Needs NumPy and Jinja2, never torch."""

from edgesdk.device.model import Level, Memory, Model, Session, isa, load, memory_budget

__all__ = ["Level", "Memory", "Model", "Session", "isa", "load", "memory_budget"]
