"""A bad line, described and judged: when what enters it comes out, and what befalls whoever uses it.

Pure: no socket, no thread; the clock is an argument and luck comes from the seed. `wan.py` carries the bytes.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Generic, TypeVar

T = TypeVar("T")
JITTER_STEP_S = 0.02
"""Delay wanders from one draw to the next in no less than this; a draw per piece would let only the worst one count."""
QUANTUM_S, MIN_QUANTUM, MAX_QUANTUM = 0.002, 1460, 256 * 1024
"""What enters at once: two milliseconds of the line, at least a segment, at most what one system call does well."""
QUEUE_S, MIN_QUEUE = 0.02, 16 * 1024
"""What a modem or router keeps beyond what is under way."""
OPEN_WINDOW, MAX_WINDOW = 4 << 20, 64 << 20
"""In flight each way when no rate is set (what Linux lets a sender keep: tcp_wmem), and at any rate. So a far line of
no rate carries 4 MiB per half round trip: 200 MB/s over 40 ms."""


class Way(Enum):
    """Up is from whoever connects."""

    UP = "up"
    DOWN = "down"


class Mishap(Enum):
    """What befalls one connection after so many bytes."""

    CUT = "cut"
    FREEZE = "freeze"
    HALF_CLOSE = "half_close"


@dataclass(frozen=True, slots=True)
class Line:
    """How a line behaves; the default is a perfect one. Raises ValueError for what no line can be."""

    round_trip_ms: float = 0.0
    """Half of it delays each way: 15 is a metro fibre, 40 a country, 600 a satellite."""
    jitter_ms: float = 0.0
    """Up to so much more, each way, wandering: wireless lines. Order is kept, as TCP keeps it."""
    rate_mbit_s: float | None = None
    """Each way, of payload, for all connections together; a proxy sees no headers. None: as fast as this machine."""
    down_mbit_s: float | None = None
    """Towards whoever connects, where it differs: most lines to a site are asymmetric. None: as `rate_mbit_s`."""
    cut_after_bytes: int | None = None
    """A connection is reset once either way has carried so much: a cut in the midst of an object, every time."""
    cut_every_s: float | None = None
    """All connections are reset, on average so often; gaps are drawn from half to one and a half, because a steady
    beat would always hit the same phase."""
    freeze_after_bytes: int | None = None
    """A connection stalls once either way has carried so much, and nobody is told: a NAT that forgot it."""
    freeze_s: float = inf
    """How long it stalls; then it goes on as if nothing had been."""
    half_close_after_bytes: int | None = None
    """The way that has carried so much ends for its receiver (FIN) and swallows the rest; the other way goes on."""
    refuse: bool = False
    """New connections are reset at once: the far side is up, its service is not."""
    black_hole: bool = False
    """New connections are accepted and swallowed; open ones stall, and go on when this ends: a dead line."""
    seed: int = 1
    """The same seed gives the same cuts and the same jitter."""

    def __post_init__(self) -> None:
        for name in ("round_trip_ms", "jitter_ms"):
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(f"{name} must be 0 or more, and end")
        if not self.freeze_s >= 0:
            raise ValueError("freeze_s cannot be negative")
        for name in ("rate_mbit_s", "down_mbit_s", "cut_every_s"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name} must be more than 0")
        for name in ("cut_after_bytes", "freeze_after_bytes", "half_close_after_bytes"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise ValueError(f"{name} cannot be negative")
        if self.refuse and self.black_hole:
            raise ValueError("a line either refuses or swallows")

    @property
    def one_way_s(self) -> float:
        """Half a round trip."""
        return self.round_trip_ms / 2000

    def bytes_per_s(self, way: Way) -> float:
        """Return the rate of one way; infinity when none is set."""
        down = self.down_mbit_s if way is Way.DOWN and self.down_mbit_s is not None else self.rate_mbit_s
        return inf if down is None else down * 1e6 / 8

    def quantum_bytes(self, way: Way) -> int:
        """Return how much enters at once."""
        return int(min(MAX_QUANTUM, max(MIN_QUANTUM, self.bytes_per_s(way) * QUANTUM_S)))

    def window_bytes(self, way: Way) -> int:
        """Return how much may be inside: rate times round trip, and a small queue; then the sender must wait."""
        rate = self.bytes_per_s(way)
        if rate == inf:
            return OPEN_WINDOW
        under_way = rate * (self.round_trip_ms + self.jitter_ms) / 1000
        return int(min(MAX_WINDOW, under_way + max(MIN_QUEUE, rate * QUEUE_S)))


def _luck(seed: int, what: str, number: int) -> float:
    return random.Random(f"{seed} {what} {number}").random()


def jitter_s(line: Line, way: Way, at_s: float) -> float:
    """Return how much longer the way is at a moment: in [0, jitter], and never falling faster than time passes."""
    widest = line.jitter_ms / 1000
    if widest == 0:
        return 0.0
    number, part = divmod(at_s / max(widest, JITTER_STEP_S), 1.0)
    before, after = (_luck(line.seed, way.value, int(number) + step) for step in (0, 1))
    return widest * (before + (after - before) * part)


def cut_times_s(line: Line) -> Iterator[float]:
    """Yield when all connections are cut, in seconds after the line began; for ever, or never."""
    at_s, number = 0.0, 0
    while line.cut_every_s is not None:
        at_s += line.cut_every_s * (0.5 + _luck(line.seed, "cut", number))
        number += 1
        yield at_s


def next_mishap(line: Line, carried: int, had: Collection[Mishap]) -> tuple[Mishap, int] | None:
    """Return what befalls a connection next and after how many more bytes (0: now); each happens once, a cut first."""
    after = (
        (line.cut_after_bytes, Mishap.CUT),
        (line.freeze_after_bytes, Mishap.FREEZE),
        (line.half_close_after_bytes, Mishap.HALF_CLOSE),
    )
    ahead = [(max(0, limit - carried), what) for limit, what in after if limit is not None and what not in had]
    if not ahead:
        return None
    left, what = min(ahead, key=lambda one: one[0])
    return what, left


class Bucket:
    """What one way lets through: between two moments never more than rate x time and one piece."""

    def __init__(self, bytes_per_s: float, free_at_s: float = 0.0) -> None:
        self.bytes_per_s = bytes_per_s
        self.free_at_s = free_at_s

    def passes(self, now_s: float, count: int) -> float:
        """Return when the last of `count` bytes that enter now is through."""
        self.free_at_s = max(self.free_at_s, now_s) + count / self.bytes_per_s
        return self.free_at_s


class Lane(Generic[T]):
    """One way of a line, which all connections share: what enters comes out in order, later, and not too fast."""

    def __init__(self, line: Line, way: Way, now_s: float) -> None:
        self.way = way
        self.held_bytes = 0
        """Entered, and not yet come out."""
        self._began_s = self._last_due_s = now_s
        self._queue: deque[tuple[float, T, int]] = deque()
        self._set(line, now_s)

    def _set(self, line: Line, free_at_s: float) -> None:
        self._line = line
        self._bucket = Bucket(line.bytes_per_s(self.way), free_at_s)
        self.quantum_bytes = line.quantum_bytes(self.way)
        self.window_bytes = line.window_bytes(self.way)

    @property
    def has_room(self) -> bool:
        """True when a quantum may enter; until then the sender waits."""
        return self.held_bytes + self.quantum_bytes <= self.window_bytes

    @property
    def next_due_s(self) -> float:
        """When the next thing comes out; infinity when nothing is under way."""
        return self._queue[0][0] if self._queue else inf

    def enter(self, now_s: float, thing: T, count: int) -> float:
        """Let `count` bytes enter and return when they come out: half a round trip away at least, never out of turn."""
        return self._enter(now_s, thing, count, inf)

    def _enter(self, now_s: float, thing: T, count: int, at_most_s: float) -> float:
        through_s = self._bucket.passes(now_s, count)
        due_s = through_s + self._line.one_way_s + jitter_s(self._line, self.way, through_s - self._began_s)
        self._last_due_s = max(self._last_due_s, min(due_s, at_most_s))
        self._queue.append((self._last_due_s, thing, count))
        self.held_bytes += count
        return self._last_due_s

    def leave(self, now_s: float) -> Iterator[tuple[T, int]]:
        """Yield what has come out by now, with its bytes."""
        while self._queue and self._queue[0][0] <= now_s:
            _, thing, count = self._queue.popleft()
            self.held_bytes -= count
            yield thing, count

    def change(self, line: Line, now_s: float) -> None:
        """Be another line from now; what is under way comes out when the faster of the two lets it."""
        under_way, free_at_s = self._queue, self._bucket.free_at_s
        self._queue, self.held_bytes = deque(), 0
        self._last_due_s = -inf
        self._set(line, now_s)
        for due_s, thing, count in under_way:
            self._enter(now_s, thing, count, due_s)
        self._bucket.free_at_s = min(self._bucket.free_at_s, free_at_s)
