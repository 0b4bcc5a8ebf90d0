"""The door for scanners: C-STORE as Storage SCP (PS3.4 Annex B)."""

from __future__ import annotations

import logging
from collections.abc import Callable

from gateway.admit.policy import Objection, objection
from gateway.arrive.reception import Arrival, Reception
from gateway.config.schema import ListenerSettings, Settings
from gateway.dicom.services import AssociationFacts, Rejection
from gateway.model.errors import SpoolError
from gateway.model.instance import Door, Origin
from gateway.spool.capacity import Room
from gateway.spool.spool import Spool

log = logging.getLogger("gateway.arrive")

SUCCESS = 0x0000
DATA_SET_DOES_NOT_MATCH = 0xB007
"""A warning (PS3.4 table B.2-1): stored all the same."""

REJECTION = {
    Objection.CALLED_AE_TITLE: Rejection(1, 1, 7),
    Objection.SENDER: Rejection(1, 1, 3),
    Objection.NO_ROOM: Rejection(2, 3, 2),
}
"""Result, source, reason of A-ASSOCIATE-RJ (PS3.8 table 9-21)."""


class StoreScpSink:
    """One C-STORE's data set on its way into custody."""

    def __init__(self, arrival: Arrival) -> None:
        self._arrival = arrival

    def write(self, fragment: memoryview) -> None:
        """Append bytes; raises Refused."""
        self._arrival.write(fragment)

    def finish(self) -> int:
        """Answer the C-STORE: success or warning means the bytes are already ours; raises Refused."""
        return DATA_SET_DOES_NOT_MATCH if self._arrival.finish().uid_differs else SUCCESS

    def abandon(self) -> None:
        """Forget half an object."""
        self._arrival.abandon()


class StoreScp:
    """The policy and the spool behind one listener."""

    def __init__(
        self, listener: ListenerSettings, settings: Callable[[], Settings], spool: Spool, reception: Reception
    ) -> None:
        self._listener = listener
        self._settings = settings
        self._spool = spool
        self._reception = reception

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
            return None
        log.warning("association_rejected from=%s port=%d reason=%r", facts.address, facts.listener_port, reason.value)
        return REJECTION[reason]

    def store(
        self,
        facts: AssociationFacts,
        context: tuple[str, str],
        affected_sop_class_uid: str,
        affected_sop_instance_uid: str,
        message_priority: int,
    ) -> StoreScpSink:
        """Open a place for an object; raises Refused."""
        origin = Origin(Door.DIMSE, facts.address, facts.calling_ae_title, facts.called_ae_title, facts.listener_port)
        sop_class_uid = affected_sop_class_uid or context[0]
        return StoreScpSink(self._reception.begin(origin, sop_class_uid, affected_sop_instance_uid, context[1]))
