"""The two lifecycles, as data: (state, event) -> state. No I/O; only `spool/ledger.py` applies them.

Custody is the life of a SOP Instance in this box. Delivery is the life of one instance on its way to one destination.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from gateway.model.errors import ImpossibleTransition


class Custody(StrEnum):
    """Where a SOP Instance stands."""

    RECEIVING = "receiving"
    IN_CUSTODY = "in_custody"
    RELEASED = "released"
    RETIRED = "retired"
    QUARANTINED = "quarantined"


class CustodyEvent(StrEnum):
    """What happens to a SOP Instance."""

    COMMITTED = "committed"
    CONFIRMED_BY_ALL = "confirmed_by_all"
    ROT_FOUND = "rot_found"
    REQUIRED_AGAIN = "required_again"
    RETENTION_OVER = "retention_over"


class Delivery(StrEnum):
    """Where one instance stands on its way to one destination."""

    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    CONFIRMED = "confirmed"
    HELD = "held"


class DeliveryEvent(StrEnum):
    """What happens to a delivery."""

    CLAIMED = "claimed"
    ACCEPTED = "accepted"
    DEFERRED = "deferred"
    REFUSED = "refused"
    EVIDENCED = "evidenced"
    MISSED = "missed"
    NEVER_KEPT = "never_kept"
    RESTARTED = "restarted"
    REROUTED = "rerouted"
    HELD_BY_OPERATOR = "held_by_operator"
    RELEASED_BY_OPERATOR = "released_by_operator"


CUSTODY: dict[tuple[Custody, CustodyEvent], Custody] = {
    (Custody.RECEIVING, CustodyEvent.COMMITTED): Custody.IN_CUSTODY,
    (Custody.IN_CUSTODY, CustodyEvent.CONFIRMED_BY_ALL): Custody.RELEASED,
    (Custody.IN_CUSTODY, CustodyEvent.ROT_FOUND): Custody.QUARANTINED,
    (Custody.RELEASED, CustodyEvent.ROT_FOUND): Custody.QUARANTINED,
    (Custody.RELEASED, CustodyEvent.REQUIRED_AGAIN): Custody.IN_CUSTODY,
    (Custody.RELEASED, CustodyEvent.RETENTION_OVER): Custody.RETIRED,
}

DELIVERY: dict[tuple[Delivery, DeliveryEvent], Delivery] = {
    (Delivery.QUEUED, DeliveryEvent.CLAIMED): Delivery.SENDING,
    (Delivery.QUEUED, DeliveryEvent.HELD_BY_OPERATOR): Delivery.HELD,
    (Delivery.QUEUED, DeliveryEvent.REROUTED): Delivery.QUEUED,
    (Delivery.SENDING, DeliveryEvent.ACCEPTED): Delivery.SENT,
    (Delivery.SENDING, DeliveryEvent.DEFERRED): Delivery.QUEUED,
    (Delivery.SENDING, DeliveryEvent.REFUSED): Delivery.HELD,
    (Delivery.SENDING, DeliveryEvent.RESTARTED): Delivery.QUEUED,
    (Delivery.SENT, DeliveryEvent.EVIDENCED): Delivery.CONFIRMED,
    (Delivery.SENT, DeliveryEvent.MISSED): Delivery.QUEUED,
    (Delivery.SENT, DeliveryEvent.NEVER_KEPT): Delivery.HELD,
    (Delivery.HELD, DeliveryEvent.RELEASED_BY_OPERATOR): Delivery.QUEUED,
}

S = TypeVar("S", Custody, Delivery)
E = TypeVar("E", CustodyEvent, DeliveryEvent)


def after(table: dict[tuple[S, E], S], state: S, event: E) -> S:
    """Return the state after `event`; raises ImpossibleTransition for a pair that is not in the table."""
    try:
        return table[state, event]
    except KeyError:
        raise ImpossibleTransition(f"{event.value} cannot happen in state {state.value}") from None


def diagram() -> str:
    """Return both tables as Mermaid state diagrams; ARCHITECTURE.md holds this text, and a test compares them."""
    lines = []
    for title, table in (("Custody", CUSTODY), ("Delivery", DELIVERY)):
        lines += [f"%% {title}", "stateDiagram-v2"]
        lines += [f"    {state.name} --> {target.name}: {event.value}" for (state, event), target in table.items()]
        lines.append("")
    return "\n".join(lines)
