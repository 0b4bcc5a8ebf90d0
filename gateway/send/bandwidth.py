"""How fast objects may leave: one limit for each destination, one for the box, each a token bucket with hours.

The line that the lane measures is then the limit, so that compression is chosen for what may be used of the line.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from gateway.config.bandwidth import WEEK, BandwidthSettings, Window
from gateway.model.errors import Stopped
from gateway.model.instance import Priority
from gateway.model.verdict import Verdict
from gateway.send.courier import Body, Consignment, Courier
from gateway.send.throughput import Throughput

MIN_BURST_BYTES, BURST_S = 16 * 1024, 0.1
"""What may leave at once after a pause: a tenth of a second of the line, for threads oversleep."""
MIN_PIECE_BYTES, MAX_PIECE_BYTES, PIECE_S = 1024, 64 * 1024, 0.125
"""What leaves between two waits: so little that no peer, with all associations taking turns, misses the next one."""
RECENT_S = 10.0
"""A wait is news for so long: longer than the longest pause between two of them, the coding of an object apart."""
PULSE_S = 0.5
"""A wait is cut to this, so that the watchdog hears of it."""


def holds(window: Window, at: datetime) -> bool:
    """True while a window is open; past midnight it belongs to the day on which it began."""
    today, yesterday = WEEK[at.weekday()], WEEK[at.weekday() - 1]
    if window.hours is None:
        return today in window.days
    first, last, now = window.hours[:5], window.hours[6:], f"{at:%H:%M}"
    if first < last:
        return today in window.days and first <= now < last
    return (today in window.days and now >= first) or (yesterday in window.days and now < last)


def limit_at(settings: BandwidthSettings, at: datetime) -> float | None:
    """Return the limit at a local time in bytes a second; None: as fast as it goes; 0: nothing is begun."""
    return next((window for window in settings.windows if holds(window, at)), settings).limit


def burst_bytes(bytes_per_s: float) -> float:
    """Return how much may leave at once after a pause."""
    return max(MIN_BURST_BYTES, bytes_per_s * BURST_S)


def piece_bytes(bytes_per_s: float) -> int:
    """Return how much leaves between two waits; even, as fragments of a data set are (PS3.8 Annex E)."""
    return int(min(MAX_PIECE_BYTES, max(MIN_PIECE_BYTES, bytes_per_s * PIECE_S))) & ~1


class TokenBucket:
    """At one rate, no more than burst + rate x seconds leaves in any time. Pure: `now` is monotonic.

    It keeps when the next byte may go instead of how many may: a debt in seconds stays right when the rate changes.
    """

    def __init__(self) -> None:
        self._free_at = float("-inf")

    def take(self, count: int, bytes_per_s: float, now: float) -> float:
        """Take `count` bytes, behind what others took before; return the seconds after which they may leave."""
        burst_s = burst_bytes(bytes_per_s) / bytes_per_s
        self._free_at = max(self._free_at, now - burst_s) + count / bytes_per_s
        return max(0.0, self._free_at - now)


class Limit:
    """One configured limit, shared by every thread that it holds back."""

    def __init__(self, settings: BandwidthSettings | None, local_time: Callable[[], datetime] = datetime.now) -> None:
        self.settings = settings or BandwidthSettings.model_validate({})
        """Replaced when the configuration is read again."""
        self._local_time = local_time
        self._lock = threading.Lock()
        self._bucket = TokenBucket()
        self._last: float | None = None
        self._waited_at = float("-inf")
        self._waited_bytes = 0

    def now(self) -> float | None:
        """The limit in force in bytes a second, by the box's clock."""
        settings = self.settings
        return limit_at(settings, self._local_time()) if settings.windows else settings.limit

    def binds(self, priority: Priority) -> bool:
        """True when deliveries of this priority heed it."""
        return not (priority is Priority.STAT and self.settings.stat_passes)

    def closed(self, priority: Priority) -> bool:
        """True while no delivery of this priority may begin."""
        return self.binds(priority) and self.now() == 0

    def rate(self) -> float | None:
        """The rate for what is under way: it goes on at the last one when a window closes, so that its peer does not
        wait in the middle of it."""
        rate = self.now()
        if rate != 0:
            self._last = rate
        return self._last

    def take(self, count: int, bytes_per_s: float, now: float) -> float:
        """Take bytes at a rate; return the seconds after which they may leave."""
        with self._lock:
            wait_s = self._bucket.take(count, bytes_per_s, now)
            if wait_s:
                self._waited_at = now
                self._waited_bytes += count
        return wait_s

    def holds_back(self, now: float) -> bool:
        """True while it is closed, or when something waited for it just now; `now` is monotonic."""
        limit = self.now()
        return limit == 0 or (limit is not None and now - self._waited_at < RECENT_S)

    def report(self) -> dict[str, Any]:
        """Return the limit in force, and what it did."""
        limit = self.now()
        return {
            "limit_bytes_per_s": None if limit is None else round(limit),
            "stat_passes": self.settings.stat_passes,
            "waited_bytes": self._waited_bytes,
        }


class Pace:
    """What each block of one delivery waits for before it leaves."""

    def __init__(
        self,
        limits: Iterable[Limit],
        priority: Priority,
        throughput: Throughput,
        stop: threading.Event,
        beat: Callable[[], None],
        before_last: Callable[[], None] = lambda: None,
    ) -> None:
        """`before_last` returns when the last block may go, and with it the whole."""
        self._limits = [limit for limit in limits if limit.binds(priority)]
        self._throughput = throughput
        self._stop = stop
        self._beat = beat
        self._before_last = before_last

    def body(self, open_body: Body) -> Body:
        """Return the same body at the pace that is allowed; iterating it raises Stopped too."""

        def paced() -> Iterator[memoryview | bytes]:
            held_back: memoryview | bytes = b""
            for block in open_body():
                yield from self._pieces(held_back)
                held_back = block
            self._before_last()
            yield from self._pieces(held_back)

        return paced

    def _pieces(self, block: memoryview | bytes) -> Iterator[memoryview | bytes]:
        view, at = memoryview(block), 0
        while at < len(view):
            rates = [(limit, rate) for limit in self._limits if (rate := limit.rate()) is not None]
            size = min((piece_bytes(rate) for _, rate in rates), default=len(view))
            piece = view[at : at + size]
            for limit, rate in rates:
                self._wait(limit.take(len(piece), rate, time.monotonic()))
            self._throughput.add(time.monotonic(), sent_bytes=len(piece))
            yield piece
            at += size

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while seconds > 0:
            self._beat()
            if self._stop.wait(min(seconds, PULSE_S)):
                raise Stopped
            seconds = until - time.monotonic()


class Paced:
    """A courier for one delivery whose bodies keep a pace."""

    def __init__(self, courier: Courier, pace: Pace) -> None:
        self._courier = courier
        self._pace = pace
        self.prepare, self.accepts = courier.prepare, courier.accepts
        self.probe, self.close = courier.probe, courier.close

    def deliver(self, consignment: Consignment) -> Verdict:
        """Carry one instance; raises Stopped besides what the courier raises."""
        return self._courier.deliver(
            replace(consignment, body=self._pace.body(consignment.body), unsent=consignment.body)
        )
