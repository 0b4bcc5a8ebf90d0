"""Reads everything that is held again and compares its hash, before it is needed (contract D13).

A pass begins every half of `scrub_days` and is paced to be over within the other half, so that no instance is left
alone for longer than `scrub_days`. How far it is stands in the ledger: a restart goes on where it was.
"""

from __future__ import annotations

import ctypes
import logging
import platform
import threading
import time
from collections.abc import Callable

from gateway.config.schema import SpoolSettings
from gateway.model.errors import CustodyRot, SpoolError
from gateway.spool.rows import Held, ScrubState
from gateway.spool.spool import Spool

log = logging.getLogger("gateway.retire")

DAY_S = 86400.0
SLOWEST_BYTES_PER_S = 4e6
"""A little spool is not spread over days: an hour later the box may be off."""
LARGEST_SHARE = 0.25
"""Of the time, that reading and hashing take: when the disk is busy with scanners, each block takes longer, and so
does the rest after it."""
SAVE_S = 30.0
"""Between notes of the position: each is a transaction, and what is read twice after a restart does no harm."""
LOOK_S = 1.0
FAULT_PAUSE_S = 60.0
IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "armv7l": 314}
"""System call numbers; elsewhere the pace alone must do."""
IOPRIO_OF_THIS_THREAD, IOPRIO_IDLE = (1, 0), 3 << 13


def read_at_idle_priority() -> bool:
    """Let this thread's reads wait for everybody else's; False where the kernel does not do that.

    Its processor time stays at normal priority: an idle thread that holds the interpreter lock would stop all others.
    """
    number = IOPRIO_SET.get(platform.machine())
    return number is not None and ctypes.CDLL(None).syscall(number, *IOPRIO_OF_THIS_THREAD, IOPRIO_IDLE) == 0


def rest_s(count: int, took_s: float, left_bytes: float, left_s: float) -> float:
    """Return how long to rest after reading `count` bytes in `took_s`, with so many bytes and seconds left. Pure."""
    share_s = took_s * (1 / LARGEST_SHARE - 1)
    if left_s <= 0:
        return share_s
    bytes_per_s = max(SLOWEST_BYTES_PER_S, left_bytes / left_s)
    return max(share_s, count / bytes_per_s - took_s)


def is_due(state: ScrubState, now: float, period_s: float) -> bool:
    """True when a pass is to begin; also when the last one began in the future: the clock was set back."""
    return not state.running and not state.began_at <= now < state.began_at + period_s / 2


def is_overdue(state: ScrubState | None, now: float, period_s: float) -> bool:
    """True when no pass began for a whole period: by then the one after the last should have read everything again.
    A pass that is to begin does so within a second, so a box that was off for long has a new one, and its full time."""
    return state is not None and now >= state.began_at + period_s


class Scrub:
    """Passes over one spool."""

    def __init__(self, spool: Spool, settings: Callable[[], SpoolSettings]) -> None:
        self._spool = spool
        self._settings = settings
        self._left_bytes = 0.0
        self._saved_at = 0.0

    def run(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Scrub until stopped; what cannot be read or written down at present is tried again."""
        idle = read_at_idle_priority()
        log.info("scrub_ready io_priority=%s", "idle" if idle else "normal")
        while not stop.is_set():
            beat()
            try:
                self._go_on(stop, beat)
            except SpoolError as error:
                log.error("scrub_failed reason=%s", error.detail)
                _wait(stop, FAULT_PAUSE_S, beat)
            stop.wait(LOOK_S)

    def _go_on(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Finish the pass that is due or was interrupted; return at once when there is none."""
        state, now = self._spool.reader.scrub_state(), time.time()
        if state is None:  # a new box, or a new program: the first pass has its half period too
            self._save(ScrubState(now, None, None))
            return
        if is_due(state, now, self._settings().scrub_days * DAY_S):
            state = ScrubState(now, state.finished_at, 0)
            self._save(state)
        if not state.running:
            return
        self._left_bytes = self._spool.reader.kept_bytes_after(state.position or 0)
        while (held := self._spool.reader.kept_after(state.position or 0)) is not None:
            if not self._check(held, state.began_at, stop, beat):
                break  # told to stop in the middle of an instance: it is read again
            state = ScrubState(state.began_at, state.finished_at, held.seq)
            self._save_now_and_then(state)
        if stop.is_set():
            self._save(state)
            return
        self._check_ledger(stop, beat)
        self._save(ScrubState(state.began_at, time.time(), None))
        log.info("scrub_pass seconds=%d", time.time() - state.began_at)

    def _check(self, held: Held, began_at: float, stop: threading.Event, beat: Callable[[], None]) -> bool:
        """Read one instance through, in no hurry; False when told to stop meanwhile."""
        path = self._spool.path_of(held)
        self._spool.store.uncache(path)
        try:
            started = time.monotonic()
            for block in self._spool.body(held):
                took_s = time.monotonic() - started
                left_s = began_at + self._settings().scrub_days * DAY_S / 2 - time.time()
                _wait(stop, rest_s(len(block), took_s, self._left_bytes, left_s), beat)
                if stop.is_set():
                    return False
                self._left_bytes -= len(block)
                started = time.monotonic()
        except CustodyRot as rot:
            if self._spool.quarantine(held, f"found by scrub: {rot.detail}"):
                log.error("custody_rot object=%s reason=%s", held.instance.object_id, rot.detail)
        self._spool.store.uncache(path)  # what nobody will read soon must not push out what is on its way
        return True

    def _check_ledger(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Read the ledger itself: what no instance's label knows of, as to whom it is owed, stands only there.

        Raises SpoolError when it cannot be read at present, or when told to stop: then it is read again.
        """

        def go_on() -> bool:
            beat()
            return not stop.is_set()

        found = self._spool.ledger_rot(go_on)
        if found:
            log.error("ledger_rot what=%r", "; ".join(found))
            self._spool.committer.change(lambda ledger: ledger.count("ledger_rot"))

    def _save_now_and_then(self, state: ScrubState) -> None:
        if time.monotonic() - self._saved_at >= SAVE_S:
            self._save(state)

    def _save(self, state: ScrubState) -> None:
        self._spool.committer.change(lambda ledger: ledger.save_scrub(state))
        self._saved_at = time.monotonic()


def _wait(stop: threading.Event, seconds: float, beat: Callable[[], None]) -> None:
    """Wait until stopped, or so long, however long that is."""
    until = time.monotonic() + seconds
    while (left_s := until - time.monotonic()) > 0 and not stop.wait(min(left_s, LOOK_S)):
        beat()
