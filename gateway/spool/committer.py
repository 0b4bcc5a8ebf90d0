"""Group commit: finished objects and every other change of the ledger become durable here, batch by batch.

Senders' threads flush their own data in parallel. Whoever then finds the ledger free commits for all who wait, in his
own thread: handing one object to another thread and back cost more than the commit. A batch costs one ledger
transaction, then all waiting replies go (contract D1).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from gateway.model.errors import GatewayError, SpoolError
from gateway.model.instance import SOPInstance
from gateway.model.way import Way
from gateway.spool.capacity import LedgerReserve
from gateway.spool.ledger import Ledger
from gateway.spool.rows import Held, Receipt
from gateway.spool.store import Part, Store

log = logging.getLogger("gateway.spool")

T = TypeVar("T")
BATCH = 64
PAUSE_S = 1.0
"""Between looks at stop and fault when nothing comes."""
CHECKPOINT_COMMITS = 64
"""Often, so that the journal stays a small file that is overwritten: a flush of a growing one writes metadata too."""
FAULT_PATIENCE_S = 60.0
"""A ledger that cannot be written for so long ends the process (exit 75); the next start verifies everything."""
REPLY_PATIENCE_S = 120.0


@dataclass(eq=False)
class Wish(Generic[T]):
    """Something that waits for the next batch, and what became of it."""

    lead: Callable[[Wish[T], float], bool]
    """Returns True when the wish is done: commits itself when nobody else does. False: not within so many seconds."""
    done: bool = field(default=False, init=False)
    durable: bool = field(default=False, init=False)
    """Set only after COMMIT returned: whatever else happens, nobody is told of a success that is not on the disk."""
    result: T | None = field(default=None, init=False)
    error: GatewayError | None = field(default=None, init=False)

    def wait(self, patience_s: float) -> bool:
        """Return whether the batch it belongs to is over, after so long at most."""
        return self.lead(self, patience_s)

    def outcome(self) -> T:
        """Wait for the batch; raise what it raised."""
        if not self.wait(REPLY_PATIENCE_S):
            raise SpoolError("the ledger did not answer in time")
        if self.error is not None:
            raise self.error
        if not self.durable:
            raise SpoolError("the batch was not committed")
        return self.result  # type: ignore[return-value]


@dataclass(eq=False)
class _Acceptance(Wish[Receipt]):
    part: Part
    instance: SOPInstance
    ways: Mapping[str, Way]


@dataclass(eq=False)
class _Change(Wish[T]):
    apply: Callable[[Ledger], T]


class Committer:
    """The one writer of the ledger."""

    def __init__(self, store: Store, ledger: Ledger, reserve: LedgerReserve) -> None:
        self._store = store
        self._ledger = ledger
        self._reserve = reserve
        self._queue: deque[_Acceptance | _Change[object]] = deque()
        self._wake = threading.Condition()
        self._leading = threading.Lock()
        """Held by the one thread that writes the ledger at present."""
        self._open = True
        self._commits = 0
        self._fault_since = 0.0
        self.fault: str = ""
        """Why the ledger cannot be written at present; empty when it can."""
        self.on_recovery: Callable[[], None] = lambda: None
        """Called, by the thread that commits, when the ledger can be written again."""

    def accept(self, part: Part, instance: SOPInstance, ways: Mapping[str, Way]) -> Receipt:
        """Take custody of a sealed part; after return it survives a power cut. Raises SpoolError."""
        if self.fault:
            raise SpoolError(self.fault)
        wish = _Acceptance(self._lead, part, instance, ways)
        self._enqueue(wish)
        return wish.outcome()

    def change(self, apply: Callable[[Ledger], T]) -> T:
        """Do something to the ledger, in the next transaction; durable after return. Raises SpoolError."""
        wish: _Change[T] = _Change(self._lead, apply)
        self._enqueue(wish)  # type: ignore[arg-type]
        return wish.outcome()

    def change_soon(self, apply: Callable[[Ledger], T]) -> Wish[T]:
        """Ask for a change and go on; its `outcome()` waits until it is durable. Raises SpoolError when closing."""
        wish: _Change[T] = _Change(self._lead, apply)
        self._enqueue(wish)  # type: ignore[arg-type]
        with self._wake:
            self._wake.notify()
        return wish

    def _enqueue(self, wish: _Acceptance | _Change[object]) -> None:
        with self._wake:
            if not self._open:
                raise SpoolError("the spool is closing")
            self._queue.append(wish)

    def _lead(self, wish: Wish[T], patience_s: float) -> bool:
        """Commit batches until `wish` is done, by us or by whoever writes at present."""
        while not wish.done:
            if not self._leading.acquire(timeout=patience_s):
                return False
            try:
                if not wish.done:
                    self._commit(self._batch())
            finally:
                self._leading.release()
        return True

    def _batch(self) -> list[_Acceptance | _Change[object]]:
        with self._wake:
            return [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]

    def run(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Commit what nobody waits for, and probe a faulty ledger; raises SpoolError when it stays faulty."""
        while True:
            beat()
            if not self.fault:
                self._reserve.take_back()
            with self._wake:
                if not self._queue and not stop.is_set():
                    self._wake.wait(PAUSE_S)
                closing = stop.is_set() and not self._queue
                if closing:
                    self._open = False
            with self._leading:  # when closing: whoever still commits has ended before the ledger is closed
                if closing:
                    return
                batch = self._batch()
                if batch or self.fault:
                    self._commit(batch)
            if self.fault and time.monotonic() - self._fault_since > FAULT_PATIENCE_S:
                raise SpoolError(self.fault)

    def end(self) -> None:
        """Refuse what still waits, after `run` ended by an error."""
        with self._wake:
            self._open = False
            for wish in self._queue:
                wish.error = SpoolError(self.fault or "the spool is closing")
                wish.done = True
            self._queue.clear()

    def _commit(self, batch: list[_Acceptance | _Change[object]]) -> None:
        """Make a batch durable; an empty one asks whether a faulty ledger has come back."""
        try:
            with self._ledger.transaction():
                if self.fault:
                    self._ledger.count("fault_probe")
                for wish in batch:
                    if isinstance(wish, _Acceptance):
                        self._accept(wish)
                    else:
                        self._apply(wish)
            for wish in batch:
                wish.durable = wish.error is None
            self._committed()
        except SpoolError as error:  # files stay: whether the commit reached the disk is not known, recovery decides
            self._failed(error)
            for wish in batch:
                if not wish.durable:
                    wish.error = wish.error or error
        finally:
            for wish in batch:
                wish.done = True

    def _committed(self) -> None:
        if self.fault:
            self._ledger.checkpoint()  # that may be what failed
            self.on_recovery()
            log.warning("ledger_recovered")
            self.fault = ""
        self._commits += 1
        if self._commits % CHECKPOINT_COMMITS == 0:
            self._ledger.checkpoint()

    def _failed(self, error: SpoolError) -> None:
        if not self.fault:
            self._fault_since = time.monotonic()
            log.error("ledger_failed reason=%s", error.detail)
        self.fault = error.detail
        self._reserve.give_up()  # whatever the reason: the next probe, in a second, shall not fail for want of space

    def _apply(self, wish: _Change[object]) -> None:
        try:
            with self._ledger.step():
                wish.result = wish.apply(self._ledger)
        except GatewayError as error:  # a bug in one change must not take the batch's objects with it
            wish.error = error

    def _accept(self, wish: _Acceptance) -> None:
        """Place a sealed part and enter it; what the batch holds already counts as held."""
        elders = self._ledger.find(wish.instance.sop_instance_uid)
        same = next((held for held in elders if held.instance.sha256 == wish.instance.sha256), None)
        if same is not None:
            self._enter_duplicate(wish, same)
            return
        try:
            shelf = self._store.current_shelf()
            self._store.place(wish.part, shelf)
        except OSError as error:
            wish.part.drop()
            wish.error = SpoolError(f"the object could not be placed: {error.strerror}")
            return
        self._ledger.accept(wish.instance, shelf.name, wish.ways, conflict=bool(elders))
        wish.result = Receipt(wish.instance.object_id, conflict=bool(elders))

    def _enter_duplicate(self, wish: _Acceptance, same: Held) -> None:
        wish.part.drop()
        self._ledger.count("duplicate")
        self._ledger.require(same.seq, same.state, wish.ways)
        wish.result = Receipt(same.instance.object_id, duplicate=True)
