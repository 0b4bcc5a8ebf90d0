"""What a lane got through in the last minute, and how long its latest objects were here. Pure: `now` is monotonic."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

SPAN_S = 60
LATEST = 1000
"""Objects whose stay counts for the quantiles."""


class Throughput:
    """Sums by the second, so that a minute costs a minute's worth of memory, however fast the line."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: deque[tuple[int, int, int]] = deque()
        """Second, bytes, objects; the newest last."""

    def add(self, now: float, *, sent_bytes: int = 0, objects: int = 0) -> None:
        """Count bytes that left, or objects that arrived."""
        second = int(now)
        with self._lock:
            if self._seconds and self._seconds[-1][0] >= second:
                at, before_bytes, before = self._seconds.pop()
                self._seconds.append((at, before_bytes + sent_bytes, before + objects))
            else:
                self._seconds.append((second, sent_bytes, objects))
            self._forget(second)

    def _forget(self, second: int) -> None:
        while self._seconds and self._seconds[0][0] <= second - SPAN_S:
            self._seconds.popleft()

    def report(self, now: float) -> dict[str, Any]:
        """Return bytes that left a second, and objects that arrived a second, both over the last minute."""
        with self._lock:
            self._forget(int(now))
            rows = list(self._seconds)
        return {
            "bytes_per_s": round(sum(row[1] for row in rows) / SPAN_S),
            "objects_per_s": round(sum(row[2] for row in rows) / SPAN_S, 2),
        }


class Stays:
    """How long the latest objects were here before their destination took them, in seconds."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=LATEST)

    def add(self, seconds: float) -> None:
        """Take one; a clock that was set back makes it 0."""
        self._seconds.append(max(0.0, seconds))

    def latest(self) -> list[float]:
        """Return them, oldest first."""
        return list(self._seconds)
