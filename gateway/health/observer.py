"""Looks at gateway and machine every so often, and keeps what it saw for whoever tells it on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.health import host as machine
from gateway.health.alarms import Alarms, Key
from gateway.health.checks import wrong
from gateway.health.schedule import Schedule
from gateway.model.errors import SpoolError
from gateway.model.health import (
    Arrivals,
    Certificate,
    Custodian,
    Disk,
    Host,
    ModalityReport,
    Reason,
    Status,
    Sums,
    status_of,
)

log = logging.getLogger("gateway.health")

LOOK_S = 1.0
"""Between looks at what is cheap to see."""
SOONEST_S = 2.0
"""Between looks at the whole, whatever happens."""
RARELY_S = 300.0
"""Between looks at what takes a program or changes slowly: clock, certificates, wear."""


@dataclass(frozen=True, slots=True)
class Sources:
    """How the rest of the house is asked; each returns plain values."""

    custodian: Callable[[], Custodian]
    """May raise SpoolError."""
    glance: Callable[[], object]
    """Something cheap that changes when a look at the whole is worth it now."""
    arrivals: Callable[[], list[Arrivals]]
    """What came since the last call."""
    modalities: Callable[[], list[str]]
    certificates: Callable[[], Mapping[str, Path]]
    days_left: Callable[[Path, float], float | None]


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at everything."""

    at: float
    """Wall clock."""
    uptime_s: float
    """Of the service."""
    status: Status
    reasons: tuple[Reason, ...]
    custodian: Custodian
    host: Host
    modalities: tuple[ModalityReport, ...]
    interval_s: float


class Observer:
    """Has the latest observation; `changed` is called after each, in the observer's thread."""

    def __init__(self, sources: Sources, data_dir: Path, interval_s: float) -> None:
        self._sources = sources
        self._data_dir = data_dir
        self._interval_s = interval_s
        self._alarms = Alarms()
        self._schedule = Schedule(data_dir / "schedule.json")
        self._started_at = time.monotonic()
        self._rare_at = -RARELY_S
        self._rare = Host()
        self._conflicts: int | None = None
        self._recent: dict[Key, float] = {}
        """What happened, rather than holds, until when it counts as an alarm, monotonic."""
        self._mains_lost: bool | None = None
        self._soon = threading.Event()
        self.latest: Observation | None = None
        self.changed: list[Callable[[Observation], None]] = []

    def note(self, code: str, component: str, for_s: float) -> None:
        """Let something that happened be an alarm for so long; any thread."""
        self._recent[code, component] = time.monotonic() + for_s
        self._soon.set()

    def mains(self, lost: bool) -> None:
        """Mains power is gone, or back, as a UPS says by its line; any thread."""
        self._mains_lost = lost
        self._soon.set()

    def look_now(self) -> None:
        """Ask for an observation at once; any thread."""
        self._soon.set()

    def run(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Look until stopped."""
        looked_at, seen = -self._interval_s, None
        while not stop.is_set():
            beat()
            now, glance = time.monotonic(), self._sources.glance()
            news = self._soon.is_set() or glance != seen or self._pending()
            if now - looked_at >= (SOONEST_S if news else self._interval_s):
                self._soon.clear()
                looked_at, seen = now, glance
                self._tell(self.observe())
            stop.wait(LOOK_S)

    def _pending(self) -> bool:
        """True when the last observation had something that will be raised or cleared by time alone."""
        return self._alarms.unsettled(time.monotonic())

    def _tell(self, observation: Observation) -> None:
        before = self.latest.status if self.latest else Status.OK
        if observation.status is not before:
            codes = ",".join(sorted({reason.code for reason in observation.reasons}))
            log.warning("status_changed status=%s codes=%s", observation.status.value, codes or "-")
        self.latest = observation
        for told in self.changed:
            told(observation)

    def observe(self) -> Observation:
        """Look at everything once."""
        now, wall = time.monotonic(), time.time()
        try:
            custodian = self._sources.custodian()
            arrivals = self._sources.arrivals()
        except SpoolError as error:
            log.error("health_unread reason=%s", error.detail)
            last = self.latest.custodian if self.latest else Custodian(Sums())
            custodian, arrivals = replace(last, ledger_fault=True), []
        host = self._host(now, wall)
        if custodian.read_only:  # an ext4 that gave up: the mount flags do not say so, opening a file does
            host = replace(host, disk=replace(host.disk, read_only=True))
        modalities = self._schedule.look(self._sources.modalities(), arrivals, wall)
        keys = [*wrong(custodian, host, modalities, wall, self._alarms.holds), *self._happened(custodian, now)]
        reasons = self._alarms.look(keys, now, wall)
        return Observation(
            wall,
            round(now - self._started_at, 1),
            status_of(reasons),
            tuple(reasons),
            custodian,
            host,
            modalities,
            self._interval_s,
        )

    def _happened(self, custodian: Custodian, now: float) -> list[Key]:
        conflicts = custodian.sums.uid_conflicts
        if self._conflicts is not None and conflicts > self._conflicts:
            self._recent["uid_conflict", "custody"] = now + 86400
        self._conflicts = conflicts
        for key, until in list(self._recent.items()):
            if now > until:
                self._recent.pop(key, None)
        return list(self._recent)

    def _host(self, now: float, wall: float) -> Host:
        if now - self._rare_at >= RARELY_S:
            self._rare_at = now
            certificates = tuple(
                Certificate(name, self._sources.days_left(path, wall))
                for name, path in sorted(self._sources.certificates().items())
            )
            lasting = Disk(wear_pct=machine.wear_pct(self._data_dir), encrypted=machine.encrypted())
            self._rare = Host(lasting, machine.clock(), certificates=certificates)
        power = machine.power()
        if self._mains_lost is not None:
            power = replace(power, on_battery=self._mains_lost)
        return Host(
            replace(
                machine.disk(self._data_dir), wear_pct=self._rare.disk.wear_pct, encrypted=self._rare.disk.encrypted
            ),
            self._rare.clock,
            power,
            self._rare.certificates,
            machine.load1(),
            machine.memory_available_pct(),
            machine.rss_bytes(),
            machine.uptime_s(),
        )
