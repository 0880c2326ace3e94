"""Runs `.edge` artifacts: the Python API over the C++ engine. Needs NumPy and Jinja2, never torch."""

from edgesdk.device.generation import Generation
from edgesdk.device.model import Backend, Level, Memory, Model, isa, load, memory_budget
from edgesdk.device.session import Session

__all__ = ["Backend", "Generation", "Level", "Memory", "Model", "Session", "isa", "load", "memory_budget"]
