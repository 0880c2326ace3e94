"""What a transport's program says when it fails, and what that means for the user."""

from __future__ import annotations

from collections.abc import Sequence

from edgesdk.errors import DeviceError

__all__ = ["Failure", "explain_failure"]

Failure = tuple[str, str, str]
"""(what the program says, message with {name}, hint)"""


def explain_failure(table: Sequence[Failure], name: str, words: str) -> DeviceError:
    """The error of the first line of the table whose words were said; else one that repeats the program's own words."""
    lowered = words.lower()
    for said, message, hint in table:
        if said in lowered:
            return DeviceError(message.format(name=name), hint=hint.format(name=name))
    last = " ".join(words.split())[-300:]
    return DeviceError(
        f"`{name}` cannot be reached" + (f": {last}" if last else ""), hint="see that it is on and connected"
    )
