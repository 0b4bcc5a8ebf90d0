"""How long an emergency's study was on its way, and how long the line alone would have needed for it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from gateway.emulator.line import Bucket, Line, Way

Span = tuple[float, float]
"""Begin and end of an outage, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Passed:
    """One object: when its scanner was told that it is stored, when it came, in seconds since the epoch."""

    stored_at_s: float
    came_at_s: float
    length: int
    """Bytes of the data set."""


@dataclass(frozen=True, slots=True)
class Urgent:
    """A study of an emergency that arrived whole. Times are seconds; outages that it fell into are taken out."""

    objects: int
    length: int
    """Bytes of its data sets."""
    waited_s: float
    """From the scanner's last store to the archive's last object: what a radiologist waits for."""
    took_s: float
    """The same from the scanner's first store."""
    bare_s: float
    """What the line needs for these bytes: at its rate, and a round trip. No association, no answers: nothing can be
    faster."""
    alone_s: float
    """What the line needs from the first store on, when each object comes as the scanner stored it and nothing else
    is on the line."""
    outage_s: float
    """Of the time from the first store, when line or archive were away."""

    @property
    def after_last(self) -> float:
        """How many times the line's bare time it waited; below 1 when most had gone while the scanner still sent."""
        return self.waited_s / self.bare_s if self.bare_s else inf

    @property
    def from_first(self) -> float:
        """How many times as long it took as by the line alone."""
        return self.took_s / self.alone_s if self.alone_s else inf


def within_s(outages: Sequence[Span], begin_s: float, end_s: float) -> float:
    """Return how much of a stretch lies in outages; what lies in two counts once."""
    total, at_s = 0.0, begin_s
    for begins, ends in sorted(outages):
        left, right = max(begins, at_s), min(ends, end_s)
        if right > left:
            total, at_s = total + right - left, right
    return total


def urgent(objects: Sequence[Passed], line: Line, outages: Sequence[Span]) -> Urgent:
    """Judge a study, which has one object at least."""
    stored = sorted(objects, key=lambda one: one.stored_at_s)
    first_s, last_s = stored[0].stored_at_s, stored[-1].stored_at_s
    came_s = max(last_s, *(one.came_at_s for one in objects))
    length, rate = sum(one.length for one in objects), line.bytes_per_s(Way.UP)
    bucket, through_s = Bucket(rate), first_s
    for one in stored:
        through_s = bucket.passes(one.stored_at_s, one.length)
    round_trip_s = line.round_trip_ms / 1000
    return Urgent(
        objects=len(objects),
        length=length,
        waited_s=came_s - last_s - within_s(outages, last_s, came_s),
        took_s=came_s - first_s - within_s(outages, first_s, came_s),
        bare_s=length / rate + round_trip_s,
        alone_s=through_s - first_s + round_trip_s,
        outage_s=within_s(outages, first_s, came_s),
    )
