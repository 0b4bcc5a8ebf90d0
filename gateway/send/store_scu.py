"""`kind = "dimse"`: C-STORE as Storage SCU (PS3.4 Annex B), TLS by the `tls` table."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gateway.config.destinations import DimseDestination
from gateway.dicom.requestor import MAX_CONTEXTS, PeerFailed, Requestor
from gateway.dicom.status import verdict_of
from gateway.identity.peers import peer_of
from gateway.model.errors import SpoolError, Stopped
from gateway.model.transfer_syntax import EXPLICIT_LE, IMPLICIT_LE, VERIFICATION_SOP_CLASS
from gateway.model.verdict import Blame, Verdict
from gateway.send.courier import Consignment

VERIFICATION = (VERIFICATION_SOP_CLASS, IMPLICIT_LE)
MAX_REMEMBERED = MAX_CONTEXTS - 1


class StoreScu:
    """Carries instances over one association, kept open while there is work."""

    def __init__(self, settings: DimseDestination, calling_ae_title: str) -> None:
        """Raises IdentityError when the `tls` table cannot be used."""
        self._peer = peer_of(settings, calling_ae_title)
        self._wanted: dict[tuple[str, str], None] = {}
        self._proposed: set[tuple[str, str]] = set()
        self._requestor: Requestor | None = None
        self._linger_s = settings.linger_s
        self._used_at = 0.0

    def prepare(self, offers: Sequence[tuple[str, str]]) -> None:
        """Learn what is waiting: each class also in the two native syntaxes, for renditions."""
        for sop_class_uid, syntax in offers:
            for pair in ((sop_class_uid, syntax), (sop_class_uid, EXPLICIT_LE), (sop_class_uid, IMPLICIT_LE)):
                self._wanted.pop(pair, None)
                self._wanted[pair] = None
        while len(self._wanted) > MAX_REMEMBERED:
            del self._wanted[next(iter(self._wanted))]

    def _open(self, pair: tuple[str, str]) -> Requestor:
        if self._requestor is not None and pair not in self._proposed:
            self.close()
        if self._requestor is None:
            contexts = [VERIFICATION, *(wanted for wanted in self._wanted if wanted != VERIFICATION)]
            self._requestor = Requestor(self._peer, contexts)
            self._proposed = set(contexts)
        return self._requestor

    def deliver(self, consignment: Consignment) -> Verdict:
        """Carry one instance; an association that went stale while idle is opened again once."""
        stale = self._requestor is not None and time.monotonic() - self._used_at > 1.0
        try:
            verdict = self._try(consignment)
        except PeerFailed as error:
            self._drop()
            if not stale:
                return Verdict.deferred(Blame.DESTINATION, text=str(error))
            try:
                verdict = self._try(consignment)
            except PeerFailed as again:
                self._drop()
                return Verdict.deferred(Blame.DESTINATION, text=str(again))
        self._used_at = time.monotonic()
        return verdict

    def _try(self, consignment: Consignment) -> Verdict:
        pair = (consignment.sop_class_uid, consignment.transfer_syntax_uid)
        self.prepare([pair])
        requestor = self._open(pair)
        context_id = requestor.accepted.get(pair)
        if context_id is None:
            others = self.accepts(consignment.sop_class_uid)
            if others:
                return Verdict.refused(text="the archive does not take this Transfer Syntax", syntax_refused=True)
            return Verdict.refused(
                text="the archive takes neither this Transfer Syntax nor a native one for the SOP class",
                syntax_refused=True,
            )
        try:
            status, comment = requestor.store(
                context_id, consignment.sop_class_uid, consignment.sop_instance_uid, consignment.body()
            )
        except (SpoolError, Stopped):
            self._drop()
            raise
        return verdict_of(status, comment)

    def accepts(self, sop_class_uid: str) -> frozenset[str] | None:
        """Return what the open association has agreed for a SOP class; None while it was not proposed."""
        if self._requestor is None or not any(abstract == sop_class_uid for abstract, _ in self._proposed):
            return None
        return frozenset(syntax for abstract, syntax in self._requestor.accepted if abstract == sop_class_uid)

    def probe(self) -> Verdict:
        """C-ECHO; a peer that takes the association but does not offer Verification is well too."""
        self.close()
        try:
            requestor = self._open(VERIFICATION)
            context_id = requestor.accepted.get(VERIFICATION)
            if context_id is not None:
                status = requestor.echo(context_id)
                if status != 0:
                    return Verdict.deferred(Blame.DESTINATION, status, f"C-ECHO answered 0x{status:04X}")
        except PeerFailed as error:
            self._drop()
            return Verdict.deferred(Blame.DESTINATION, text=str(error))
        self._used_at = time.monotonic()
        return Verdict.accepted(text="association and C-ECHO succeeded")

    def _drop(self) -> None:
        requestor, self._requestor = self._requestor, None
        self._proposed = set()
        if requestor is not None:
            requestor.abort()

    def close(self) -> None:
        """Release the association."""
        requestor, self._requestor = self._requestor, None
        self._proposed = set()
        if requestor is not None:
            requestor.release()
