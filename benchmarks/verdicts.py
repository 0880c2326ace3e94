"""Points of size and quality, and the verdict on each of the peer's: is one of our levels as good in as few bytes?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scores import Score

__all__ = ["Point", "Verdict", "best_within", "judge", "perplexity_at", "sizes_without_rival"]


@dataclass(frozen=True)
class Point:
    """A model of one size.

    ladder: the artifact's name, or "llama.cpp"      name: the level, or the peer's format
    mapped_bytes: of a level what it maps (its tokenizer is part of it), of a peer's file its tensors
    file_bytes: of a level how much of the file must be there; of a peer's file all of it
    rate: share of block weight bytes that a level gives up
    types: of a peer's matrices       fallbacks: of those whose columns the format's blocks of 256 do not divide
    """

    ladder: str
    name: str
    mapped_bytes: int
    file_bytes: int
    score: Score
    types: Mapping[str, int] = field(default_factory=dict)
    fallbacks: Mapping[str, int] = field(default_factory=dict)
    rate: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """level: of the ladder, the least KL among those that map no more than the peer; None where none is that small."""

    peer: Point
    ladder: str
    level: Point | None

    @property
    def passed(self) -> bool | None:
        """Ours is no worse in perplexity; None where there is nothing to compare."""
        return None if self.level is None else self.level.score.perplexity <= self.peer.score.perplexity

    def line(self) -> str:
        """The verdict in words."""
        theirs = (
            f"{self.peer.name} ({self.peer.mapped_bytes / 1e6:.1f} MB, perplexity {self.peer.score.perplexity:.2f})"
        )
        if self.level is None:
            return f"{theirs}: no level of {self.ladder} is that small"
        ours, score = self.level, self.level.score
        mine = f"{ours.name} ({ours.mapped_bytes / 1e6:.1f} MB, perplexity {score.perplexity:.2f})"
        return f"{theirs}: {self.ladder} {mine}: {'pass' if self.passed else 'FAIL'}"


def best_within(ladder: Sequence[Point], mapped_bytes: int) -> Point | None:
    """The level with the least KL among those that map no more."""
    fitting = [level for level in ladder if level.mapped_bytes <= mapped_bytes]
    return min(fitting, key=lambda level: level.score.kl, default=None)


def judge(peers: Sequence[Point], ladder: Sequence[Point]) -> list[Verdict]:
    """One verdict per point of the peer. ladder: all levels of one artifact."""
    return [Verdict(peer, ladder[0].ladder, best_within(ladder, peer.mapped_bytes)) for peer in peers]


def perplexity_at(ladder: Sequence[Point], mapped_bytes: int) -> float:
    """Of a ladder at exactly these bytes: log-linear between its levels on either side, flat beyond its ends."""
    points = sorted(ladder, key=lambda level: level.mapped_bytes)
    sizes = [float(level.mapped_bytes) for level in points]
    return math.exp(float(np.interp(mapped_bytes, sizes, [math.log(level.score.perplexity) for level in points])))


def sizes_without_rival(peers: Sequence[Point], ladder: Sequence[Point]) -> list[Point]:
    """Our levels that are smaller than everything that the peer has."""
    least = min((peer.mapped_bytes for peer in peers), default=0)
    return [level for level in ladder if level.mapped_bytes < least]
