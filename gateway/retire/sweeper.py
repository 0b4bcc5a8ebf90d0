"""Gives up released instances when retention is over, or sooner when space is short. Nothing else is deleted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from gateway.config.schema import SpoolSettings
from gateway.model.errors import SpoolError
from gateway.retire.retention import OLDEST_PLAUSIBLE, days_are_over, to_give_up, wanted_bytes
from gateway.spool.spool import Spool

log = logging.getLogger("gateway.retire")

STEP = 200
"""Instances retired in one transaction."""
PAUSE_S = 5.0


class Sweeper:
    """Sweeps one spool, step by step."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._making_room = False

    def sweep(self, settings: SpoolSettings, now: float) -> int:
        """Retire one step's worth of instances; return how many. Raises SpoolError."""
        spool = self._spool
        found = spool.reader.released(STEP)
        if now >= OLDEST_PLAUSIBLE and any(one.released_at < OLDEST_PLAUSIBLE for one in found):
            spool.committer.change(lambda ledger: ledger.believe(now, OLDEST_PLAUSIBLE))
            found = spool.reader.released(STEP)
        capacity = spool.capacity()
        wanted = wanted_bytes(capacity, settings, making_room=self._making_room)
        self._note_room(wanted, capacity.used_percent)
        going = to_give_up(found, settings, now, wanted)[:STEP]
        if not going:
            return 0
        early = sum(not days_are_over(one, settings, now) for one in going)
        retired = spool.retire([one.held for one in going])
        freed = sum(one.held.instance.length for one in going)
        log.info("retired count=%d bytes=%d early=%d", retired, freed, early)
        return retired

    def _note_room(self, wanted: int, used_percent: float) -> None:
        if self._making_room != (wanted > 0):
            self._making_room = wanted > 0
            word = "space_short" if self._making_room else "space_enough"
            log.warning("%s used_percent=%.1f wanted_bytes=%d", word, used_percent, wanted)


def run(spool: Spool, settings: Callable[[], SpoolSettings], stop: threading.Event, beat: Callable[[], None]) -> None:
    """Sweep until stopped; a disk fault is reported and tried again."""
    sweeper = Sweeper(spool)
    while not stop.is_set():
        beat()
        try:
            swept = sweeper.sweep(settings(), time.time())
        except SpoolError as error:
            log.error("retire_failed reason=%s", error.detail)
            swept = 0
        stop.wait(0.05 if swept else PAUSE_S)
