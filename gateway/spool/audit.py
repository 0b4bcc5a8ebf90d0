"""The arithmetic of custody (contract D12): whatever was accepted is here, or was given up after all confirmed it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from gateway.model.errors import SpoolError
from gateway.spool import studies
from gateway.spool.ledger_reader import LedgerReader
from gateway.spool.rows import Sums

log = logging.getLogger("gateway.spool")

PAUSE_S = 60.0
LOOK_S = 1.0
"""Between looks at stop."""


def custody_agrees(sums: Sums) -> bool:
    """True when accepted = held + released + quarantined + retired, in instances."""
    present = sum(count for count, _ in sums.custody.values())
    return sums.counters.get("accepted", 0) == present + sums.counters.get("retired", 0)


def required_of(sums: Sums, destination: str) -> int:
    """Return how many deliveries a destination was ever to get, less those that another took over."""
    return sums.counters.get(f"required:{destination}", 0)


def destination_agrees(sums: Sums, destination: str) -> bool:
    """True when what a destination was to get = queued + sending + sent + confirmed + held + retired."""
    present = sum(sums.deliveries.get(destination, {}).values())
    return required_of(sums, destination) == present + sums.counters.get(f"retired:{destination}", 0)


def destinations_of(sums: Sums) -> list[str]:
    """Return every destination that something was ever to go to."""
    counted = {name.partition(":")[2] for name in sums.counters if name.startswith(("required:", "retired:"))}
    return sorted(counted | set(sums.deliveries))


def faults(sums: Sums) -> list[str]:
    """Return what does not add up: `custody`, or `destination NAME`. Anything here would be a loss, or a bug."""
    wrong = [] if custody_agrees(sums) else ["custody"]
    return wrong + [f"destination {name}" for name in destinations_of(sums) if not destination_agrees(sums, name)]


class Audit:
    """Looks every minute, whether anybody asks for the status or not."""

    def __init__(self, reader: LedgerReader, study_short_alarm_s: Callable[[], float]) -> None:
        self._reader = reader
        self._short_alarm_s = study_short_alarm_s
        self.faults: list[str] = []
        """What did not add up when it was last looked at."""
        self.short = 0
        """Studies that were short for too long when it was last looked at."""

    def check(self) -> None:
        """Add up, and count studies that stay short; say in the log what has changed. Raises SpoolError."""
        found = faults(self._reader.sums(counted=True))
        if found and found != self.faults:
            log.error("sums_disagree what=%r", ", ".join(found))
        if self.faults and not found:
            log.warning("sums_agree")
        self.faults = found
        short = len(studies.short(self._reader, time.time() - self._short_alarm_s()))
        if short != self.short:
            log.warning("study_short count=%d", short)
        self.short = short

    def run(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Check until stopped."""
        waited_s = PAUSE_S
        while not stop.is_set():
            beat()
            if waited_s >= PAUSE_S:
                waited_s = 0.0
                try:
                    self.check()
                except SpoolError as error:
                    log.error("audit_failed reason=%s", error.detail)
            stop.wait(LOOK_S)
            waited_s += LOOK_S
