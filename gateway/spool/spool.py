"""The spool as the other rooms see it: take custody, hand out work, write down what happened, answer questions."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from gateway.dicom.services import OUT_OF_RESOURCES
from gateway.model.errors import Refused, SpoolError
from gateway.model.instance import Header, Origin, Priority, SOPInstance
from gateway.model.verdict import Verdict
from gateway.spool.capacity import Capacity, LedgerReserve, Room, look
from gateway.spool.committer import Committer, Wish
from gateway.spool.ledger import Ledger
from gateway.spool.ledger_reader import LedgerReader
from gateway.spool.recovery import Recovered, Router, adopt_orphans, recover, remove_files
from gateway.spool.rows import Claim, Held, Receipt
from gateway.spool.store import Part, Store

LEDGER_NAME = "ledger.db"


class Spool:
    """Durable custody of SOP Instances in one data directory, used by one process at a time."""

    def __init__(
        self, data_dir: Path, reserve_bytes: int, high_water_percent: float, router: Router | None = None
    ) -> None:
        """Open and recover; raises SpoolError, and then holds nothing open."""
        self.store = Store(data_dir)
        self._reserve_bytes = reserve_bytes
        self._high_water_percent = high_water_percent
        self._router: Router = router or (lambda *_: {})
        try:
            self.store.prepare()
            self._lock = self._take_lock(data_dir / "lock")
        except OSError as error:
            raise SpoolError(f"data directory {data_dir} cannot be used: {error.strerror}") from error
        self._reserve = LedgerReserve(data_dir)
        with ExitStack() as undo:
            undo.callback(os.close, self._lock)
            if self.capacity().room is Room.FULL:
                self._reserve.give_up()  # opening the ledger makes files, and recovery writes
            self._ledger = Ledger(data_dir / LEDGER_NAME)
            undo.callback(self._ledger.close)
            self.reader = LedgerReader(data_dir / LEDGER_NAME)
            undo.callback(self.reader.close)
            self.recovered: Recovered = recover(self.store, self._ledger, self.reader, self._router)
            undo.pop_all()
        self.committer = Committer(self.store, self._ledger, self._reserve)
        self.committer.on_recovery = self._adopt_after_fault
        self.work = threading.Condition()
        """Notified when there may be something new to send; only a hint, the ledger is the truth."""
        self.hints = 0
        """Counts the notifications, so that nobody looks twice for the same one."""

    @staticmethod
    def _take_lock(path: Path) -> int:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            raise SpoolError(
                "another process uses this data directory", hint="is the service running already?"
            ) from error
        return fd

    def use_router(self, router: Router) -> None:
        """Route by a new configuration from now on, and what had no destination until now."""
        self._router = router
        self._route_unrouted()

    def _route_unrouted(self) -> None:
        router = self._router
        # Files are read between two changes: within one, every scanner would wait for them.
        unrouted = self.committer.change(lambda ledger: ledger.unrouted())
        routed = [(held, router(held.instance, partial(self.store.beginning, self.path_of(held)))) for held in unrouted]

        def require(ledger: Ledger) -> None:
            for held, ways in routed:
                ledger.require(held.seq, held.state, ways)

        self.committer.change(require)
        self.hint()

    def _adopt_after_fault(self) -> None:
        try:
            adopt_orphans(self.store, self._ledger, self.reader, self._router)
        except OSError as error:
            raise SpoolError(f"what was placed during the fault cannot be looked at: {error.strerror}") from error

    def capacity(self) -> Capacity:
        """Look at the disk; raises SpoolError."""
        try:
            return look(self.store.data_dir, self._reserve_bytes, self._high_water_percent, self._reserve)
        except OSError as error:
            raise SpoolError(f"the disk cannot be asked: {error.strerror}") from error

    def check_room(self) -> None:
        """Raise Refused with 0xA700 when an object must not be started or go on."""
        if self.committer.fault:
            raise Refused(OUT_OF_RESOURCES, "ledger fault")
        capacity = self.capacity()
        if capacity.room is Room.FULL:
            raise Refused(OUT_OF_RESOURCES, capacity.reason)

    def new_part(self, identity: tuple[str, str, str]) -> Part:
        """Begin an object; raises Refused (0xA700) when there is no room or the disk fails."""
        self.check_room()
        try:
            return self.store.new_part(identity)
        except OSError as error:
            raise Refused(OUT_OF_RESOURCES, f"spool: {error.strerror}") from error

    def take(
        self, part: Part, header: Header, origin: Origin, identity: tuple[str, str, str], beginning: bytes = b""
    ) -> tuple[SOPInstance, Receipt]:
        """Seal `part` and take custody: after return it survives a power cut (contract D1).

        `identity` is (SOP Class UID, SOP Instance UID, Transfer Syntax UID), `beginning` the data set's first bytes,
        for the router. Raises SpoolError; the part is gone then.
        """
        instance = SOPInstance(part.object_id, *identity, part.sha256, part.length, header, origin, time.time())
        try:
            part.seal(instance)
        except OSError as error:
            part.drop()
            raise SpoolError(f"the object could not be flushed: {error.strerror}") from error
        except SpoolError:
            part.drop()
            raise
        router = self._router
        receipt = self.committer.accept(part, instance, router(instance, lambda: beginning))
        if self._router is not router:  # a reload may have looked for what has no destination before this was committed
            self._route_unrouted()
        self.hint()
        return replace(instance, object_id=receipt.object_id) if receipt.duplicate else instance, receipt

    def hint(self) -> None:
        """Wake whoever waits for work."""
        with self.work:
            self.hints += 1
            self.work.notify_all()

    def body(self, held: Held) -> Iterator[bytes]:
        """Yield the data set; the last block only after the whole matched (contract D3); raises CustodyRot, also when
        the ledger is wrong about it, or SpoolError when it cannot be read at present."""
        return self.store.body(self.path_of(held), held.instance)

    def ledger_rot(self, go_on: Callable[[], bool]) -> list[str]:
        """Read the whole ledger from the disk and return what is wrong with it, in SQLite's words; see `rot`."""
        path = self.store.data_dir / LEDGER_NAME
        self.store.uncache(path)
        reader = LedgerReader(path)  # one of its own: who shares one waits until it is through
        try:
            return reader.rot(go_on)
        finally:
            reader.close()

    def path_of(self, held: Held) -> Path:
        """Return where an instance's file is."""
        return self.store.path_of(held.shelf, held.instance.object_id)

    def claim(self, destination: str, priority: Priority, limit: int, patience_s: float) -> list[Claim]:
        """Hand out deliveries of one priority that are due. While the ledger cannot be written they are only looked up.

        Where nothing is due no transaction is spent, so that this may be asked before each object.
        """
        now = time.time()
        if self.committer.fault:
            return self.reader.due(destination, priority, limit, now, patience_s)
        if not self.reader.due(destination, priority, 1, now, patience_s):
            return []
        return self.committer.change(lambda ledger: ledger.claim(destination, priority, limit, now, patience_s))

    def record(self, claim: Claim, verdict: Verdict, delay_s: float, *, suffices: bool = True) -> Wish[None]:
        """Write down a verdict, and when to try again, or to ask for evidence where the peer's word does not suffice;
        durable when its `outcome()` returns. Raises SpoolError."""
        seq, destination, at = claim.held.seq, claim.destination, time.time() + delay_s
        return self.committer.change_soon(
            lambda ledger: ledger.record(seq, destination, verdict, at, suffices=suffices)
        )

    def quarantine(self, held: Held, reason: str) -> bool:
        """Put a rotten instance aside; False when it is no longer ours to put. Raises SpoolError."""

        def put_aside(ledger: Ledger) -> bool:
            put = ledger.quarantine(held, reason)
            if put:
                ledger.count("custody_rot")
            return put

        return self.committer.change(put_aside)

    def expect(self, sop_instance_uids: Sequence[str], source: str, study_uid: str = "") -> None:
        """Write down that `source` (an AE title, and how it said so) says it sent these instances; durable after
        return. What of them never comes makes its study short. Raises SpoolError.

        `study_uid` stays empty where the sender does not say: then it is that of those of the list that are here.
        """
        self.committer.change(lambda ledger: ledger.announced.expect(sop_instance_uids, source, study_uid))

    def change(self, apply: Callable[[Ledger], int]) -> int:
        """Do an operator's change to the ledger."""
        result = self.committer.change(apply)
        self.hint()
        return result

    def retire(self, helds: list[Held]) -> int:
        """Give up the files of released instances: marked durably first, then removed, then forgotten.

        Returns how many: what is no longer released is left alone. Raises SpoolError.
        """
        seqs = [held.seq for held in helds]
        retired = self.committer.change(lambda ledger: ledger.retire(seqs))
        gone = set(retired)
        try:
            remove_files(self.store, ((held.shelf, held.instance.object_id) for held in helds if held.seq in gone))
        except OSError as error:
            raise SpoolError(f"retired files could not be removed: {error.strerror}") from error
        self.committer.change(lambda ledger: ledger.forget(retired))
        return len(retired)

    def close(self) -> None:
        """Close the ledger and let another process in; the committer must have ended."""
        self.store.drop_prepared()
        self.reader.close()
        self._ledger.close()
        os.close(self._lock)
