"""The fleet as an operator at a terminal sees it; by the same inventory as the monitor's page, from the same broker."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from gateway.fleet.box import Box, Key, Presence
from gateway.fleet.desk import Desk, Unreachable
from gateway.fleet.inventory import Heard, Inventory
from gateway.fleet.settings import FleetSettings
from gateway.fleet.subscriber import SUBSCRIPTIONS
from gateway.model import topics
from gateway.model.backoff import next_delay_s
from gateway.model.health import Status

TURN_S = 0.5
RETRY_FIRST_S, RETRY_CEILING_S = 0.5, 10.0


@dataclass(frozen=True, slots=True)
class Line:
    """One box in a few words."""

    tenant: str
    box: str
    presence: str
    status: str
    reason: str
    """Code and component of the worst; empty: none."""
    oldest_unsent_s: float
    version: str

    @property
    def urgency(self) -> int:
        """0 is what somebody must look at first."""
        if self.status == Status.CRITICAL or self.presence == Presence.OFFLINE:
            return 0
        return 1 if self.presence == Presence.STALE else 2 if self.status == Status.DEGRADED else 3


def line_of(box: Box) -> Line:
    """Return what is shown of a box."""
    health = box.health
    worst = health.complaints[0] if health and health.complaints else None
    return Line(
        box.tenant,
        box.name,
        box.presence.value,
        health.status.value if health else "unknown",
        f"{worst.code} {worst.component}" if worst else "",
        health.oldest_age_s if health else 0.0,
        box.versions[-1] if box.versions else "unknown",
    )


class Watch:
    """Keeps an inventory of one or all tenants while it runs."""

    def __init__(self, settings: FleetSettings, tenants: list[str]) -> None:
        self._settings = settings
        self._tenants = tenants
        self._told: dict[Key, Line] = {}
        self.inventory = Inventory(settings.max_boxes, settings.thresholds.stale_periods, float("inf"))
        self.trouble = "not connected yet"
        """Why nothing is heard at present; empty: all is well."""

    def run(self, stop: threading.Event, show: Callable[[], None], *, once: bool = False) -> None:
        """Listen until stopped, and let `show` look twice a second; with `once`, only until all that is retained has
        come. A broker that is lost is tried again, but for the first time: then raises Unreachable."""
        attempt, connected_before = 0, False
        while not stop.is_set():
            try:
                with Desk(self._settings.broker, self._hear) as desk:
                    for part in SUBSCRIPTIONS:  # one kind after the other: the broker need not queue all at once
                        desk.subscribe(*(f"{topics.box(tenant, '+')}/{part}" for tenant in self._tenants))
                    desk.settle()
                    attempt, connected_before, self.trouble = 0, True, ""
                    self._listen(desk, stop, show, once)
                    return
            except Unreachable as error:
                if not connected_before:
                    raise
                self.trouble = error.detail
            lost_at = time.monotonic()
            show()
            attempt += 1
            stop.wait(next_delay_s(attempt, RETRY_FIRST_S, RETRY_CEILING_S, random.random()))
            for tenant in self._tenants:  # what we could not hear is nobody's silence
                self.inventory.deaf(tenant, time.monotonic() - lost_at)

    def _listen(self, desk: Desk, stop: threading.Event, show: Callable[[], None], once: bool) -> None:
        while True:
            self.inventory.judge(set(self._tenants), time.monotonic(), time.time())
            show()
            if once or stop.is_set():
                return
            desk.wait(stop.is_set, TURN_S)

    def _hear(self, heard: Heard) -> None:
        self.inventory.hear(heard)
        self.inventory.journal.clear()  # nobody here writes history down

    def lines(self) -> list[Line]:
        """Return all boxes, the most urgent first."""
        found = [line_of(box) for box in self.inventory.boxes.values()]
        return sorted(found, key=lambda line: (line.urgency, -line.oldest_unsent_s, line.tenant, line.box))

    def changes(self) -> Iterator[Line]:
        """Yield the boxes whose presence, status, worst reason or version changed since the last call."""
        for box in self.inventory.boxes.values():
            line = line_of(box)
            before = self._told.get(box.key)
            if before is None or _lasting(line) != _lasting(before):
                self._told[box.key] = line
                yield line

    def sums(self) -> dict[str, int]:
        """Return how many boxes there are by presence, and how many are critical or degraded."""
        boxes = list(self.inventory.boxes.values())
        presence = Counter(box.presence.value for box in boxes)
        status = Counter(box.health.status.value for box in boxes if box.health)
        return {
            "boxes": len(boxes),
            **{kind.value: presence[kind.value] for kind in Presence},
            **{kind.value: status[kind.value] for kind in (Status.CRITICAL, Status.DEGRADED)},
        }


def _lasting(line: Line) -> tuple[Any, ...]:
    return line.presence, line.status, line.reason, line.version
