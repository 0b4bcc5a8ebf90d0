"""Whether we stand in for an instance that a scanner asks about (contract D8). Pure."""

from __future__ import annotations

from typing import Literal

from gateway.dicom.commitment import CONFLICT, NO_SUCH_INSTANCE, PROCESSING_FAILURE
from gateway.spool.promises import COMMITTED, OPEN, Standing


def outcome_of(standing: Standing, policy: Literal["central", "local"], *, late: bool) -> int:
    """Return COMMITTED, OPEN, or a Failure Reason (PS3.3 C.14.1.1).

    `central`: committed when every destination of every instance with this UID has confirmed; `late`: the scanner
    waits no longer. What matches no route has nobody who could confirm it.
    """
    if not standing.known:
        return COMMITTED if standing.retired else NO_SUCH_INSTANCE
    if not standing.of_class:
        return CONFLICT
    if standing.quarantined:
        return PROCESSING_FAILURE
    if policy == "local" or not (standing.unconfirmed or standing.unrouted):
        return COMMITTED
    return PROCESSING_FAILURE if late else OPEN
