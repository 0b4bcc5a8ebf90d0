"""What happened when: acknowledged by the box, arrived at the archive. Looks ten times a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gateway.emulator.shelf import Received
from tests.hil.verdict import Object

EVERY_S = 0.1
KEPT = 1200
"""More points than this nobody sees on a page: then every second one is dropped, and half as many are taken."""


class Point(NamedTuple):
    """Sums since the run began."""

    at_s: float
    acknowledged: int
    archived: int
    archived_bytes: int


class Timeline:
    """Knows of each object when it was acknowledged first and when it arrived first."""

    def __init__(self, received: Callable[[], Sequence[Received]]) -> None:
        self._received = received
        self._began_s = time.monotonic()
        self.began_at = time.time()
        self.points: list[Point] = []
        self.acknowledged_at: dict[Object, float] = {}
        self.archived_at: dict[Object, float] = {}
        self._bytes = self._seen = 0
        self._every_s = EVERY_S
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="timeline", daemon=True)
        self._thread.start()

    @property
    def now_s(self) -> float:
        return time.monotonic() - self._began_s

    def acknowledged(self, one: Object) -> None:
        """A scanner was told that this is safe."""
        with self._lock:
            self.acknowledged_at.setdefault(one, self.now_s)

    def arrived(self) -> set[Object]:
        """Return all that the archive has, as of now."""
        self._look()
        with self._lock:
            return set(self.archived_at)

    def _look(self) -> None:
        with self._lock:
            fresh = self._received()[self._seen :]
            self._seen += len(fresh)
            for one in fresh:
                key = (one.sop_instance_uid.strip("\0 "), one.sha256)
                if one.kept and key not in self.archived_at:
                    self.archived_at[key] = one.at_s - self.began_at
                    self._bytes += one.length

    def _run(self) -> None:
        due_s = 0.0
        while not self._over.wait(EVERY_S):
            self._look()
            if self.now_s < due_s:
                continue
            due_s = self.now_s + self._every_s
            with self._lock:
                self.points.append(Point(self.now_s, len(self.acknowledged_at), len(self.archived_at), self._bytes))
                if len(self.points) > KEPT:
                    del self.points[1::2]
                    self._every_s *= 2

    def close(self) -> None:
        self._over.set()
        self._thread.join(10)
