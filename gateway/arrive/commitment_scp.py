"""Storage commitment as SCP (PS3.4 Annex J): what scanners are told that ask whether images are safe (contract D8).

Scanners expect the report in three ways: on the association of the request, on a later one that they open, on a new one
from us. So a decided report is an errand for any association of its asker, and after a while we call. The request is
in the ledger before it is answered, and stays until the report was taken.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Iterable
from functools import partial

from gateway.admit.commitment import outcome_of
from gateway.admit.policy import is_modality
from gateway.config.schema import ModalitySettings, Settings
from gateway.dicom.command import N_EVENT_REPORT_RQ, Response
from gateway.dicom.commitment import (
    ALL_COMMITTED,
    REQUEST_COMMITMENT,
    SOME_FAILED,
    WELL_KNOWN_INSTANCE,
    Reference,
    Report,
    read_data_set,
    write_data_set,
)
from gateway.dicom.negotiation import STORAGE_COMMITMENT, Malformed
from gateway.dicom.requestor import Peer, PeerFailed, Requestor
from gateway.dicom.services import SUCCESS, AssociationFacts, Errand, Request, Service, gathered
from gateway.model.backoff import next_delay_s
from gateway.model.errors import Refused, SpoolError
from gateway.model.transfer_syntax import EXPLICIT_LE, IMPLICIT_LE
from gateway.spool.ledger import Ledger
from gateway.spool.promises import COMMITTED, Asker, Promise
from gateway.spool.spool import Spool

log = logging.getLogger("gateway.arrive")

NO_SUCH_ACTION, INVALID_ARGUMENT, NO_SUCH_SOP_CLASS, RESOURCE_LIMITATION = 0x0123, 0x0115, 0x0118, 0x0213
"""Statuses of N-ACTION-RSP (PS3.7 10.1.4.1.10)."""
PROCESSING_FAILURE = 0x0110
MAX_OPEN = 1000
"""Requests at one time; a scanner that is refused asks again."""
PULSE_S = 0.5
LOOK_FIRST_S, LOOK_CEILING_S = 0.5, 15.0
"""An open request is looked at less often the older it is."""
REPORT_FIRST_S, REPORT_CEILING_S = 5.0, 600.0
KEPT_S = 14 * 86400.0
"""A request that nobody would hear the report of is given up then; a clock set back keeps it longer."""
FORGET_EVERY_S = 3600.0
TIMEOUT_S = 30.0
_CONTEXTS = ((STORAGE_COMMITMENT, IMPLICIT_LE), (STORAGE_COMMITMENT, EXPLICIT_LE))


class CommitmentScp:
    """Takes requests, decides them as the ledger changes, and sees to it that the reports are heard."""

    def __init__(self, spool: Spool, settings: Callable[[], Settings]) -> None:
        self._spool = spool
        self._settings = settings
        self._lock = threading.Lock()
        self._forget_at = 0.0
        self._under_way: set[int] = set()
        """Requests whose report is being told."""
        self.service: Service = gathered(self._take)

    def _take(self, request: Request, data_set: bytes) -> Iterable[Response]:
        """Answer an N-ACTION: success means that the request is on stable storage."""
        if request.abstract_syntax != STORAGE_COMMITMENT:
            raise Refused(NO_SUCH_SOP_CLASS, "not a storage commitment context")
        if request.command.type_id != REQUEST_COMMITMENT:
            raise Refused(NO_SUCH_ACTION, "no such action")
        try:
            asked = read_data_set(data_set, request.transfer_syntax)
        except Malformed as error:
            raise Refused(INVALID_ARGUMENT, f"the request cannot be read: {error}") from error
        if not asked.references:
            raise Refused(INVALID_ARGUMENT, "the request names no instance")
        facts, now = request.facts, time.time()
        asker = Asker(facts.address, facts.calling_ae_title, facts.called_ae_title)
        items = [(reference.sop_class_uid, reference.sop_instance_uid) for reference in asked.references]
        deadline = now + self._settings().commitment.deadline_s
        try:
            if self._spool.reader.promises.count() >= MAX_OPEN:
                raise Refused(RESOURCE_LIMITATION, "too many requests are open")
            new = self._spool.change(
                lambda ledger: ledger.promises.add(asked.transaction_uid, asker, items, now, deadline)
            )
            self._spool.expect([uid for _, uid in items], f"storage commitment {facts.calling_ae_title}".strip())
        except SpoolError as error:
            raise Refused(PROCESSING_FAILURE, "ledger fault") from error
        log.info("commitment_requested from=%s objects=%d new=%s", facts.address, len(items), bool(new))
        return (Response(SUCCESS),)

    def run(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Decide, and call those scanners that do not come, until stopped."""
        while not stop.wait(PULSE_S):
            beat()
            try:
                self._decide_due()
                self._call_askers(beat)
                self._forget_old()
            except SpoolError:
                continue  # the committer has said so

    def _decide_due(self) -> None:
        now, policy, promises = time.time(), self._settings().commitment.answer, self._spool.reader.promises
        for promise in promises.due(now, LOOK_CEILING_S, decided=False):
            late = now >= promise.deadline
            standings = promises.standings(promise.promise_id)
            outcomes = [(standing.number, outcome_of(standing, policy, late=late)) for standing in standings]
            at = now + min(LOOK_CEILING_S, max(LOOK_FIRST_S, (now - promise.asked_at) / 10))
            self._write(lambda ledger, p=promise, o=outcomes, at=at: ledger.promises.decide(p.promise_id, o, now, at))  # type: ignore[misc]

    def _write(self, apply: Callable[[Ledger], None]) -> None:
        self._spool.committer.change(apply)

    def _forget_old(self) -> None:
        if time.monotonic() < self._forget_at:
            return
        self._forget_at = time.monotonic() + FORGET_EVERY_S
        lost = self._spool.change(lambda ledger: ledger.promises.forget(time.time() - KEPT_S))
        if lost:
            log.error("commitment_reports_given_up requests=%d", lost)

    def _modality_of(self, asker: Asker) -> ModalitySettings | None:
        entries = self._settings().modality
        return next((one for one in entries if is_modality(one, asker.calling_ae_title, asker.address)), None)

    def _begin(self, promise: Promise) -> bool:
        """Keep a report from being told twice at one time."""
        with self._lock:
            if promise.promise_id in self._under_way:
                return False
            self._under_way.add(promise.promise_id)
            return True

    def _end(self, promise: Promise, status: int | None, reason: str = "") -> None:
        """Write down whether a report was taken; never raises."""
        try:
            if status == SUCCESS:
                self._write(lambda ledger: ledger.promises.told(promise.promise_id))
                log.info("commitment_reported to=%s", promise.asker.address)
                return
            reason = reason or ("no answer" if status is None else f"it answered 0x{status:04X}")
            delay_s = next_delay_s(promise.attempts, REPORT_FIRST_S, REPORT_CEILING_S, random.random())
            log.warning("commitment_report_not_taken to=%s reason=%r", promise.asker.address, reason)
            self._write(lambda ledger: ledger.promises.not_told(promise.promise_id, reason, time.time() + delay_s))
        except SpoolError:
            pass  # the committer has said so; it is told once more, which is harmless
        finally:
            with self._lock:
                self._under_way.discard(promise.promise_id)

    def _report_of(self, promise: Promise) -> Report:
        kept, failed = [], []
        for item in self._spool.reader.promises.items(promise.promise_id):
            reference = Reference(item.sop_class_uid, item.sop_instance_uid)
            if item.outcome == COMMITTED:
                kept.append(reference)
            else:
                failed.append((reference, item.outcome))
        return Report(promise.transaction_uid, tuple(kept), tuple(failed))

    def errand(self, facts: AssociationFacts, abstract_syntaxes: Collection[str]) -> Errand | None:
        """Return a report for whoever opened this association."""
        if STORAGE_COMMITMENT not in abstract_syntaxes:
            return None
        try:
            for promise in self._spool.reader.promises.decided_for(facts.calling_ae_title, facts.address):
                modality = self._modality_of(promise.asker)
                if (modality and modality.commitment_report == "new") or not self._begin(promise):
                    continue
                report = self._report_of(promise)
                return Errand(
                    STORAGE_COMMITMENT,
                    N_EVENT_REPORT_RQ,
                    WELL_KNOWN_INSTANCE,
                    SOME_FAILED if report.failed else ALL_COMMITTED,
                    partial(write_data_set, report),
                    partial(self._end, promise),
                )
        except SpoolError:
            pass  # the committer has said so
        return None

    def _call_askers(self, beat: Callable[[], None]) -> None:
        """Open associations to those that did not come."""
        settings, silent = self._settings(), set()
        for promise in self._spool.reader.promises.due(time.time(), REPORT_CEILING_S, decided=True):
            beat()
            modality = self._modality_of(promise.asker)
            mode = modality.commitment_report if modality else "auto"
            waited = time.time() - promise.decided_at
            if mode == "same" or (mode == "auto" and 0 <= waited < settings.commitment.same_association_s):
                continue
            peer = Peer(
                (modality and modality.commitment_host) or promise.asker.address,
                (modality and modality.commitment_port) or settings.commitment.port,
                promise.asker.calling_ae_title,
                promise.asker.called_ae_title,
                TIMEOUT_S,
            )
            if (peer.host, peer.port) in silent or not self._begin(promise):
                continue
            try:
                self._end(promise, self._call(peer, self._report_of(promise)))
            except PeerFailed as error:
                silent.add((peer.host, peer.port))
                self._end(promise, None, f"{peer.host} port {peer.port}: {error}")

    @staticmethod
    def _call(peer: Peer, report: Report) -> int:
        """Tell a report on an association of its own and return the status; raises PeerFailed."""
        requestor = Requestor(peer, _CONTEXTS, scp_of=[STORAGE_COMMITMENT])
        try:
            pair = next((pair for pair in _CONTEXTS if pair in requestor.accepted), None)
            if pair is None:
                raise PeerFailed("it takes the association but no storage commitment on it")
            answer = requestor.request(
                requestor.accepted[pair],
                N_EVENT_REPORT_RQ,
                STORAGE_COMMITMENT,
                write_data_set(report, pair[1]),
                instance=WELL_KNOWN_INSTANCE,
                type_id=SOME_FAILED if report.failed else ALL_COMMITTED,
            )
        except PeerFailed:
            requestor.abort()
            raise
        requestor.release()
        return answer.status
