"""The fleet monitor as a whole: builds its rooms and says what they are called."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from gateway.fleet.exporter import Exporter
from gateway.fleet.inventory import Inventory
from gateway.fleet.operators import Operators
from gateway.fleet.server import Server
from gateway.fleet.settings import FleetSettings, read_secret
from gateway.fleet.site import Site
from gateway.fleet.store import History, Store
from gateway.fleet.subscriber import Line
from gateway.fleet.waves import Progress, progress_of

JUDGE_S = 0.5

Room = Callable[[threading.Event, Callable[[], None]], None]


class Monitor:
    """One running monitor; the caller gives each room a thread."""

    def __init__(self, settings: FleetSettings, spawn: Callable[[str, Callable[[], None]], None]) -> None:
        """`spawn` starts a short-lived thread; raises StoreError, IdentityError."""
        self._settings = settings
        self.inventory = Inventory(settings.max_boxes, settings.thresholds.stale_periods, settings.store.sample_s)
        self._store = Store(settings.store, self.inventory)
        self._lines = [Line(settings.broker, tenant, self.inventory) for tenant in settings.tenants]
        token_file = settings.page.operator_token_file
        site = Site(
            self.inventory,
            self._lines,
            self._store,
            History(settings.store.path, self._store.suspect),
            Exporter(self.inventory, self._lines, self._store, self._progress),
            Operators(read_secret(token_file) if token_file else None),
            settings.thresholds,
            self._progress,
        )
        self._server = Server(settings.page, site.answer, spawn)

    def rooms(self) -> dict[str, Room]:
        """Return what is to run, by name."""
        lines: dict[str, Room] = {f"line:{line.tenant}": line.run for line in self._lines}
        return {"store": self._store.run, "watch": self._judge, **lines, "page": self._server.run}

    def _progress(self) -> list[Progress]:
        return progress_of(self._settings.wave, self.inventory.boxes.values(), time.time())

    def _judge(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        while not stop.wait(JUDGE_S):
            beat()
            connected = {line.tenant for line in self._lines if line.connected}
            with self.inventory.lock:
                self.inventory.judge(connected, time.monotonic(), time.time())

    def status_line(self) -> str:
        """Return one line for systemd."""
        lost = [line.tenant for line in self._lines if not line.connected]
        return f"no broker for: {', '.join(lost)}" if lost else f"watching {len(self.inventory.boxes)} boxes"

    def close(self) -> None:
        """Close the database; the rooms have ended."""
        self._store.close()
