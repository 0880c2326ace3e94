"""Random damage to bytes and to JSON, steered by hypothesis: what the fuzzers of the Python half are made from.

EDGE_FUZZ_SEED=N tries other examples than the same of every run (tests/fuzz/run.py sets it).
"""

from __future__ import annotations

import copy
import os
import resource
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import hypothesis
import hypothesis.strategies as st

from edgesdk.errors import EdgeError

__all__ = ["Outcomes", "byte_changes", "change_bytes", "change_json", "fuzz", "json_changes"]

_INTEGERS = (0, 1, -1, 2, 7, 8, 63, 64, 255, 4096, 65536, 1 << 24, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 53, 1 << 62)
_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from((*_INTEGERS, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 10**400)),
    st.floats(),
    st.sampled_from(("", "x", "a/b", "../x", "\0", "\ud800", "é" * 300, "²", "0", "<0x00>", "none")),
    st.sampled_from(([], {}, [[]], [None], {"a": {}}, [1, 2], ["x"] * 70)),
)
_JSON_WAYS = ("replace", "remove", "double", "nudge", "swap", "nest")
_BYTE_WAYS = ("flip", "number", "cut", "insert", "remove", "repeat")
_MAX_GROWTH_KIB = 400 << 10
_MAX_SECONDS = 10.0  # of processor time, for one file


def json_changes() -> st.SearchStrategy[list[tuple[list[int], str, Any]]]:
    """A few changes: which way to a place, what is done there, and a value for it."""
    path = st.lists(st.integers(0, 1 << 16), min_size=1, max_size=7)
    return st.lists(st.tuples(path, st.sampled_from(_JSON_WAYS), _VALUES), min_size=1, max_size=3)


def byte_changes() -> st.SearchStrategy[list[tuple[float, str, int]]]:
    """A few changes: where, as a share of the length, what is done there, and a number for it."""
    number = st.one_of(st.sampled_from([i % (1 << 64) for i in _INTEGERS]), st.integers(0, (1 << 64) - 1))
    return st.lists(st.tuples(st.floats(0, 1), st.sampled_from(_BYTE_WAYS), number), min_size=1, max_size=4)


def change_json(value: Any, changes: Sequence[tuple[list[int], str, Any]]) -> Any:
    """A changed copy."""
    root = [copy.deepcopy(value)]
    for path, way, new in changes:
        place: Any = root
        key: Any = 0
        for step in path:
            inner = place[key]
            if not isinstance(inner, (dict, list)) or not inner:
                break
            place, key = inner, sorted(inner)[step % len(inner)] if isinstance(inner, dict) else step % len(inner)
        _change_place(place, key, way, new)
        if not root:
            root = [None]
    return root[0]


def _change_place(place: Any, key: Any, way: str, new: Any) -> None:
    old = place[key]
    if way == "remove":
        del place[key]
    elif way == "double" and isinstance(place, list):
        place.insert(key, copy.deepcopy(old))
    elif way == "double":
        place[f"{key}x"] = copy.deepcopy(old)
    elif way == "nudge" and isinstance(old, int):
        place[key] = old + (new % 17 - 8 if isinstance(new, int) else 1)
    elif way == "swap":
        other = sorted(place)[0] if isinstance(place, dict) else 0
        place[key], place[other] = place[other], old
    elif way == "nest":
        place[key] = [old] if isinstance(place, dict) else {"x": old}
    else:
        place[key] = copy.deepcopy(new)


def change_bytes(data: bytes, changes: Sequence[tuple[float, str, int]]) -> bytes:
    """Changed bytes."""
    out = bytearray(data)
    for share, way, number in changes:
        at = min(int(share * len(out)), max(len(out) - 1, 0))
        if way == "flip" and out:
            out[at] ^= 1 << number % 8
        elif way == "number":
            out[at : at + (4, 8)[number % 2]] = number.to_bytes(8, "little")[: (4, 8)[number % 2]]
        elif way == "cut":
            del out[at:]
        elif way == "insert":
            out[at:at] = number.to_bytes(8, "little")
        elif way == "remove":
            del out[at : at + 1 + number % 64]
        elif way == "repeat":
            out[at:at] = out[at : at + 1 + number % 64]
    return bytes(out)


def fuzz(n_examples: int, **strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Runs a check with so many examples."""
    seed = os.environ.get("EDGE_FUZZ_SEED")
    settings = hypothesis.settings(
        max_examples=n_examples,
        deadline=None,  # `Outcomes` counts processor time: other programs take none of it
        database=None,
        derandomize=seed is None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large],
    )

    def decorate(check: Callable[..., None]) -> Callable[[], None]:
        wrapped = settings(hypothesis.given(**strategies)(check))
        return hypothesis.seed(int(seed))(wrapped) if seed else wrapped

    return decorate


class Outcomes:
    """Counts what became of damaged files; `finish` says it, and that neither outcome is all there was."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def of(self, use: Callable[[], object]) -> None:
        """`use` works, or raises one of our errors with a message that can be written, and soon."""
        begin = time.process_time()
        try:
            use()
        except EdgeError as error:
            str(error).encode(errors="backslashreplace")
            self._counts["refused"] += 1
        else:
            self._counts["opened"] += 1
        assert time.process_time() - begin < _MAX_SECONDS

    def finish(self) -> None:
        """Both happened, and memory did not grow with what small files say of themselves."""
        print(f"\nfuzzed {self._counts.total()}: {dict(self._counts)}")
        assert self._counts["refused"] > self._counts.total() / 50
        assert self._counts["opened"] > self._counts.total() / 50
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self._before < _MAX_GROWTH_KIB
