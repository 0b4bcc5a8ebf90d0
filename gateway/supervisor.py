"""Named threads, beats, restart budget and systemd's watchdog. The only place that makes threads.

A room is a function `run(stop, beat)`. It calls `beat` at least every few seconds; while every room's beat is fresh
the watchdog is fed, and a room that stands still lets systemd restart the process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway import heap
from gateway.model.errors import GatewayError

log = logging.getLogger("gateway.supervisor")

Beat = Callable[[], None]
Room = Callable[[threading.Event, Beat], None]

RESTARTS = 5
RESTART_WINDOW_S = 300.0
RESTART_PAUSE_S = 1.0
REST_S = 10.0
"""The same for a room that is not vital."""
BEAT_LIMIT_S = 180.0
"""Longer than any courier's silence towards its peer: only a thread that truly stands still is late."""
PULSE_S = 0.5
HEAP_S = 60.0
"""Between two times that freed memory goes back."""


@dataclass
class _Resident:
    """A supervised room."""

    name: str
    run: Room
    stop: threading.Event
    vital: bool
    beat_at: float = field(default_factory=time.monotonic)
    restarts: list[float] = field(default_factory=list)
    thread: threading.Thread | None = None

    def beat(self) -> None:
        self.beat_at = time.monotonic()


class Supervisor:
    """Runs rooms until told to stop, or until one breaks for good."""

    def __init__(self, notify: Callable[[str], None]) -> None:
        heap.bound()
        self._notify = notify
        self._residents: list[_Resident] = []
        self._finished = threading.Event()
        self.exit_code = 0

    def spawn(self, name: str, target: Callable[[], None]) -> None:
        """Start a short-lived thread that nobody supervises (one association)."""
        threading.Thread(target=target, name=name, daemon=True).start()

    def room(self, name: str, run: Room, stop: threading.Event | None = None, *, vital: bool = True) -> None:
        """Start a supervised room; `stop` ends it alone, else all end together in the order of `finish`.

        One that is not vital may break or stand still as often as it likes: the process goes on.
        """
        resident = _Resident(name, run, stop or threading.Event(), vital)
        self._residents.append(resident)
        resident.thread = threading.Thread(target=self._live, args=(resident,), name=name, daemon=True)
        resident.thread.start()

    def _live(self, resident: _Resident) -> None:
        while True:
            try:
                resident.run(resident.stop, resident.beat)
            except GatewayError as error:
                self._broke(resident, error.detail or str(error), error.exit_code)
            except Exception as error:
                log.exception("room_failed room=%s", resident.name)
                self._broke(resident, type(error).__name__, 1)
            if resident.stop.is_set() or self._finished.is_set():
                return
            resident.stop.wait(RESTART_PAUSE_S if resident.vital else REST_S)

    def _broke(self, resident: _Resident, reason: str, exit_code: int) -> None:
        """Spend one restart; without any left the process ends, and systemd starts it from a clean slate."""
        now = time.monotonic()
        resident.restarts = [at for at in resident.restarts if now - at < RESTART_WINDOW_S] + [now]
        log.error("room_broke room=%s restarts=%d reason=%s", resident.name, len(resident.restarts), reason)
        if resident.vital and (len(resident.restarts) > RESTARTS or exit_code == 75):
            self.exit_code = exit_code
            self._finished.set()

    def late(self) -> list[str]:
        """Return the vital rooms whose beat is not fresh."""
        now = time.monotonic()
        return [r.name for r in self._alive() if r.vital and now - r.beat_at > BEAT_LIMIT_S]

    def _alive(self) -> list[_Resident]:
        return [r for r in self._residents if r.thread is not None and r.thread.is_alive()]

    def end(self) -> None:
        """Ask `watch` to return; safe in a signal handler."""
        self._finished.set()

    def watch(self, status: Callable[[], str]) -> None:
        """Feed the watchdog until `end` is called or a room broke for good."""
        self._notify("READY=1")
        spoken_at, trimmed_at = 0.0, time.monotonic()
        while not self._finished.wait(PULSE_S):
            late = self.late()
            if late:
                log.error("rooms_late rooms=%s", ",".join(late))
                self._notify(f"STATUS=standing still: {', '.join(late)}")
            elif time.monotonic() - spoken_at > 5.0:
                spoken_at = time.monotonic()
                self._notify(f"WATCHDOG=1\nSTATUS={status()}")
            if time.monotonic() - trimmed_at > HEAP_S:
                trimmed_at = time.monotonic()
                heap.give_back()
        self._notify("STOPPING=1")

    def finish(self, name_prefix: str, patience_s: float) -> bool:
        """Stop the rooms whose name begins so and wait for them; return whether all ended in time."""
        residents = [r for r in self._residents if r.name.startswith(name_prefix)]
        for resident in residents:
            resident.stop.set()
        deadline = time.monotonic() + patience_s
        for resident in residents:
            if resident.thread is not None:
                resident.thread.join(max(0.0, deadline - time.monotonic()))
        stuck = [r.name for r in residents if r.thread is not None and r.thread.is_alive()]
        if stuck:
            log.warning("rooms_stuck rooms=%s", ",".join(stuck))
        self._residents = [r for r in self._residents if r not in residents or r.name in stuck]
        return not stuck
