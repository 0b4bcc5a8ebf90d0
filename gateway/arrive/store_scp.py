"""The door for scanners: C-STORE as Storage SCP (PS3.4 Annex B)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping

from gateway.admit.policy import Objection, is_archive, is_modality, objection
from gateway.arrive.reception import Arrival, Reception
from gateway.config.destinations import DimseDestination
from gateway.config.schema import ListenerSettings, Settings
from gateway.dicom.command import C_ECHO_RQ, C_STORE_RQ, Response
from gateway.dicom.negotiation import STORAGE_COMMITMENT, is_storage
from gateway.dicom.services import (
    CANNOT_UNDERSTAND,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
    AssociationFacts,
    Errand,
    Rejection,
    Request,
    Service,
    verification,
)
from gateway.model.errors import Refused, SpoolError
from gateway.model.instance import Door, Origin
from gateway.model.transfer_syntax import VERIFICATION_SOP_CLASS
from gateway.spool.capacity import Room
from gateway.spool.spool import Spool

log = logging.getLogger("gateway.arrive")

DATA_SET_DOES_NOT_MATCH = 0xB007
"""A warning (PS3.4 table B.2-1): stored all the same."""

REJECTION = {
    Objection.CALLED_AE_TITLE: Rejection(1, 1, 7),
    Objection.SENDER: Rejection(1, 1, 3),
    Objection.NO_ROOM: Rejection(2, 3, 2),
}
"""Result, source, reason of A-ASSOCIATE-RJ (PS3.8 table 9-21)."""


class StoreReceiver:
    """One C-STORE's data set on its way into custody."""

    def __init__(self, arrival: Arrival) -> None:
        self._arrival = arrival

    def write(self, fragment: memoryview) -> None:
        """Append bytes; raises Refused."""
        self._arrival.write(fragment)

    def finish(self) -> Iterable[Response]:
        """Answer the C-STORE: success or warning means the bytes are already ours; raises Refused."""
        return (Response(DATA_SET_DOES_NOT_MATCH if self._arrival.finish().uid_differs else SUCCESS),)

    def abandon(self) -> None:
        """Forget half an object."""
        self._arrival.abandon()


class StoreScp:
    """The policy and the spool behind one listener."""

    def __init__(
        self,
        listener: ListenerSettings,
        settings: Callable[[], Settings],
        spool: Spool,
        reception: Reception,
        beside: Mapping[int, Service],
        errand: Callable[[AssociationFacts, Collection[str]], Errand | None],
    ) -> None:
        """`beside`: services of other rooms behind the same listener, by command field; `errand` as in `Door`."""
        self.errand = errand
        self.rejected: Counter[tuple[str, Objection]] = Counter()
        """Associations that were not taken, by the sender's name in the configuration (empty: none) and the reason."""
        self._listener = listener
        self._settings = settings
        self._spool = spool
        self._reception = reception
        self.services: Mapping[int, Service] = {C_ECHO_RQ: verification, C_STORE_RQ: self.store, **beside}

    def offers(self, abstract_syntax: str) -> bool:
        """Verification, storage commitment, and every storage class, known or not."""
        return abstract_syntax in (VERIFICATION_SOP_CLASS, STORAGE_COMMITMENT) or is_storage(abstract_syntax)

    def admit(self, facts: AssociationFacts) -> Rejection | None:
        """Judge an association before it is taken."""
        settings = self._settings()
        try:
            room = Room.TIGHT if self._spool.committer.fault else self._spool.capacity().room
        except SpoolError:
            room = Room.FULL
        reason = objection(
            settings.admit,
            settings.modality,
            list(self._listener.called_ae_titles),
            calling=facts.calling_ae_title,
            called=facts.called_ae_title,
            address=facts.address,
            room=room,
        )
        if reason is None:
            if facts.called_ae_title not in (settings.gateway.ae_title, *self._listener.called_ae_titles):
                log.warning("called_ae_title_differs from=%s called=%r", facts.address, facts.called_ae_title)
            return None
        if self._may_report(facts):  # asked last: it may look up a host name, which no scanner is to wait for
            return None
        known = (m.name for m in settings.modality if is_modality(m, facts.calling_ae_title, facts.address))
        self.rejected[next(known, ""), reason] += 1
        log.warning("association_rejected from=%s port=%d reason=%r", facts.address, facts.listener_port, reason.value)
        return REJECTION[reason]

    def _may_report(self, facts: AssociationFacts) -> bool:
        """True for an archive that owes us evidence: its reports make room. An object of its is refused by itself."""
        return any(
            is_archive(destination, facts.calling_ae_title, facts.address)
            for destination in self._settings().destination
            if isinstance(destination, DimseDestination) and destination.confirm == "commitment"
        )

    def store(self, request: Request) -> StoreReceiver:
        """Open a place for an object; raises Refused."""
        facts, command = request.facts, request.command
        if not is_storage(request.abstract_syntax):
            raise Refused(SOP_CLASS_NOT_SUPPORTED, "not a storage context")
        if not command.has_data_set:
            raise Refused(SOP_CLASS_NOT_SUPPORTED, "C-STORE without a data set")
        if not command.affected_sop_instance_uid:
            raise Refused(CANNOT_UNDERSTAND, "C-STORE without a SOP Instance UID")
        origin = Origin(
            Door.DIMSE,
            facts.address,
            facts.calling_ae_title,
            facts.called_ae_title,
            facts.listener_port,
            command.priority,
        )
        sop_class_uid = command.affected_sop_class_uid or request.abstract_syntax
        arrival = self._reception.begin(
            origin, sop_class_uid, command.affected_sop_instance_uid, request.transfer_syntax
        )
        return StoreReceiver(arrival)
