"""`confirm = "commitment"`: storage commitment as SCU (PS3.4 Annex J).

The report may come on the association of the request, on a later one of ours, or on a new one to our listener. All
three end in `take_report`; what it is about is known from the ledger, so that it may come after a restart.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from uuid import uuid4

from gateway.admit.policy import is_archive
from gateway.config.destinations import DimseDestination
from gateway.config.schema import Settings
from gateway.confirm.evidence import Findings, Unanswered, settle
from gateway.dicom.command import N_ACTION_RQ, N_EVENT_REPORT_RQ, Command, Response
from gateway.dicom.commitment import (
    FAILURES,
    REQUEST_COMMITMENT,
    WELL_KNOWN_INSTANCE,
    Reference,
    Report,
    read_data_set,
    write_data_set,
)
from gateway.dicom.negotiation import STORAGE_COMMITMENT, Malformed
from gateway.dicom.requestor import PeerFailed, Requestor
from gateway.dicom.services import PROCESSING_FAILURE, SUCCESS, AssociationFacts, Request, Service, gathered
from gateway.identity.peers import witness_of
from gateway.model.errors import SpoolError
from gateway.model.transfer_syntax import EXPLICIT_LE, IMPLICIT_LE
from gateway.spool.rows import Sent
from gateway.spool.spool import Spool

log = logging.getLogger("gateway.confirm")

NO_SUCH_EVENT_TYPE, INVALID_ARGUMENT, NOT_AUTHORIZED = 0x0113, 0x0115, 0x0124
"""Statuses of N-EVENT-REPORT-RSP (PS3.7 10.1.1.1.8)."""
EVIDENCE = "storage commitment"
BEAT_S = 1.0
_CONTEXTS = ((STORAGE_COMMITMENT, EXPLICIT_LE), (STORAGE_COMMITMENT, IMPLICIT_LE))


def findings_of(report: Report, asked: Iterable[Sent]) -> Findings:
    """Return what a report says of what was asked: a failure outweighs a success, and who is not named is unknown."""
    kept, missed = [], {}
    failed = {reference.sop_instance_uid: reason for reference, reason in report.failed}
    for sent in asked:
        if sent.sop_instance_uid in failed:
            reason = failed[sent.sop_instance_uid]
            missed[sent.seq] = f"the archive does not commit it: {FAILURES.get(reason, 'failure')} (0x{reason:04X})"
        elif Reference(sent.sop_class_uid, sent.sop_instance_uid) in report.references:
            kept.append(sent.seq)
    return Findings(kept, missed)


def take_report(spool: Spool, data_set: bytes, syntax: str, may_say: Callable[[str], DimseDestination | None]) -> int:
    """Settle what a report says and return the status to answer; raises SpoolError.

    `may_say` returns the destination of a name when whoever reports may speak for it.
    """
    try:
        report = read_data_set(data_set, syntax)
    except Malformed as error:
        log.warning("commitment_report_malformed reason=%r", str(error))
        return INVALID_ARGUMENT
    name, asked = spool.reader.transaction(report.transaction_uid)
    if not name:  # a second report of one that is settled, most of all: our answer to the first one was lost
        log.info("commitment_report_settled transaction=%s", report.transaction_uid)
        return SUCCESS
    destination = may_say(name)
    if destination is None:
        log.error("commitment_report_from_stranger dest=%s transaction=%s", name, report.transaction_uid)
        return NOT_AUTHORIZED
    settle(spool, name, findings_of(report, asked), EVIDENCE, destination.retry_first_s)
    return SUCCESS


class CommitmentScu:
    """Asks one archive to commit to what it was sent."""

    evidence = EVIDENCE

    def __init__(self, settings: DimseDestination, calling_ae_title: str, spool: Spool) -> None:
        """Raises IdentityError when the `tls` table cannot be used."""
        self._settings = settings
        self._peer = witness_of(settings, calling_ae_title)
        self._spool = spool

    def ask(self, sent: Sequence[Sent], beat: Callable[[], None]) -> Findings:
        """Send one N-ACTION, and wait a while for the report; what it says is settled, so that nothing is returned."""
        try:
            requestor = Requestor(self._peer, _CONTEXTS)
        except PeerFailed as error:
            raise Unanswered(str(error)) from error
        try:
            self._await_reports(requestor, self._request(requestor, sent), beat)
        except PeerFailed as error:
            requestor.abort()
            self._again_soon(sent)
            raise Unanswered(str(error)) from error
        except SpoolError:
            requestor.abort()
            raise
        requestor.release()
        return Findings()

    def _request(self, requestor: Requestor, sent: Sequence[Sent]) -> str:
        """Ask, and return the Transaction UID."""
        pair = next((pair for pair in _CONTEXTS if pair in requestor.accepted), None)
        if pair is None:
            raise PeerFailed(
                'the archive offers no storage commitment: use confirm = "query" or "stored", or confirm_at'
            )
        transaction_uid = f"2.25.{uuid4().int}"
        seqs = [one.seq for one in sent]
        again_at = time.time() + self._settings.confirm_timeout_s
        self._spool.change(lambda ledger: ledger.ask(seqs, self._settings.name, again_at, transaction_uid))
        references = tuple(Reference(one.sop_class_uid, one.sop_instance_uid) for one in sent)
        answer = requestor.request(
            requestor.accepted[pair],
            N_ACTION_RQ,
            STORAGE_COMMITMENT,
            write_data_set(Report(transaction_uid, references), pair[1]),
            instance=WELL_KNOWN_INSTANCE,
            type_id=REQUEST_COMMITMENT,
        )
        if answer.status != SUCCESS:
            raise PeerFailed(
                f"the archive refused to be asked: N-ACTION answered 0x{answer.status:04X} {answer.comment}"
            )
        log.info("commitment_asked dest=%s objects=%d", self._settings.name, len(sent))
        return transaction_uid

    def _again_soon(self, sent: Sequence[Sent]) -> None:
        """Nobody will report: ask anew when the back-off ends."""
        seqs = [one.seq for one in sent]
        self._spool.change(lambda ledger: ledger.ask(seqs, self._settings.name, 0.0))

    def _await_reports(self, requestor: Requestor, transaction_uid: str, beat: Callable[[], None]) -> None:
        """Take reports until nothing is open of what was asked. None may come: then the archive will call us."""
        syntaxes = {context_id: syntax for (_, syntax), context_id in requestor.accepted.items()}
        deadline = time.monotonic() + self._settings.report_wait_s
        while (left := deadline - time.monotonic()) > 0 and self._spool.reader.transaction(transaction_uid)[0]:
            beat()
            try:
                got = requestor.await_request(min(left, BEAT_S))
                if got is not None:
                    message, command = got
                    syntax = syntaxes.get(message.context_id, IMPLICIT_LE)
                    requestor.respond(message, command, self._status_of(command, message.data_set, syntax))
            except PeerFailed:
                return

    def _status_of(self, command: Command, data_set: bytes | None, syntax: str) -> int:
        if command.field != N_EVENT_REPORT_RQ or data_set is None:
            return NO_SUCH_EVENT_TYPE
        ours = self._settings
        try:
            return take_report(self._spool, data_set, syntax, lambda name: ours if name == ours.name else None)
        except SpoolError:
            return PROCESSING_FAILURE


def report_service(spool: Spool, settings: Callable[[], Settings]) -> Service:
    """Return the service by which archives report on associations that they open."""

    def may_say(facts: AssociationFacts, name: str) -> DimseDestination | None:
        destination = next((one for one in settings().destination if one.name == name), None)
        if not isinstance(destination, DimseDestination):
            return None
        return destination if is_archive(destination, facts.calling_ae_title, facts.address) else None

    def answer(request: Request, data_set: bytes) -> Iterable[Response]:
        if request.abstract_syntax != STORAGE_COMMITMENT:
            return (Response(NO_SUCH_EVENT_TYPE, "not a storage commitment report"),)
        try:
            status = take_report(spool, data_set, request.transfer_syntax, lambda name: may_say(request.facts, name))
        except SpoolError:
            return (Response(PROCESSING_FAILURE, "ledger fault"),)
        return (Response(status),)

    return gathered(answer)
