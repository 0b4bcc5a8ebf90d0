"""Gives up, in small steps, what retention allows."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from gateway.model.errors import SpoolError
from gateway.retire.retention import received_before
from gateway.spool.spool import Spool

log = logging.getLogger("gateway.retire")

STEP = 200
PAUSE_S = 5.0


def sweep(spool: Spool, retention_days: float, now: float) -> int:
    """Retire one step's worth of instances; return how many. Raises SpoolError."""
    before = received_before(now, retention_days)
    helds = [] if before is None else spool.reader.retirable(before, STEP)
    retired = spool.retire(helds) if helds else 0
    if retired:
        log.info("retired count=%d", retired)
    return retired


def run(spool: Spool, retention_days: Callable[[], float], stop: threading.Event, beat: Callable[[], None]) -> None:
    """Sweep until stopped; a disk fault is reported and tried again."""
    while not stop.is_set():
        beat()
        try:
            swept = sweep(spool, retention_days(), time.time())
        except SpoolError as error:
            log.error("retire_failed reason=%s", error.detail)
            swept = 0
        if swept < STEP:
            stop.wait(PAUSE_S)
