"""The acceptor's side of the DICOM Upper Layer, as a table (PS3.8 9.2). No I/O.

States and actions carry the standard's numbers; the actions of several rows of its table that differ only in who is
told are one here, since this side has no other user than the association that reads the table.
"""

from __future__ import annotations

from enum import Enum, StrEnum


class State(StrEnum):
    """PS3.8 9.2.1, those an acceptor can be in."""

    AWAITING_REQUEST = "Sta2"
    DECIDING = "Sta3"
    ESTABLISHED = "Sta6"
    AWAITING_RELEASE = "Sta7"
    AWAITING_CLOSE = "Sta13"
    CLOSED = "Sta1"


class Event(Enum):
    """What comes from the peer, from ourselves, or from the clock (PS3.8 9.2.2)."""

    ASSOCIATE_RQ = 0x01
    ASSOCIATE_AC = 0x02
    ASSOCIATE_RJ = 0x03
    P_DATA = 0x04
    RELEASE_RQ = 0x05
    RELEASE_RP = 0x06
    ABORT = 0x07
    ACCEPT = "accept"
    REJECT = "reject"
    INVALID_PDU = "invalid"
    UNRECOGNIZED_PDU = "unrecognized"
    TIME_OUT = "time-out"
    IDLE = "idle"
    CONNECTION_CLOSED = "closed"
    GIVE_UP = "give up"


class Action(StrEnum):
    """What to do (PS3.8 9.2.3)."""

    DECIDE = "AE-6: look at the request"
    SEND_ACCEPT = "AE-7: send A-ASSOCIATE-AC"
    SEND_REJECT = "AE-8: send A-ASSOCIATE-RJ, start ARTIM"
    TAKE_DATA = "DT-2: a fragment for the message"
    ASK_RELEASE = "AR-1: send A-RELEASE-RQ"
    SEND_RELEASE = "AR-4: send A-RELEASE-RP, start ARTIM"
    SEND_ABORT = "AA-8: send A-ABORT, start ARTIM"
    CLOSE = "AA-3, AA-4: close"
    IGNORE = "AA-6: ignore, wait for the close"


_UNEXPECTED = (
    Event.ASSOCIATE_RQ,
    Event.ASSOCIATE_AC,
    Event.ASSOCIATE_RJ,
    Event.P_DATA,
    Event.RELEASE_RQ,
    Event.RELEASE_RP,
    Event.INVALID_PDU,
    Event.UNRECOGNIZED_PDU,
)

TABLE: dict[tuple[State, Event], tuple[Action, State]] = {
    **{(State.AWAITING_REQUEST, event): (Action.SEND_ABORT, State.AWAITING_CLOSE) for event in _UNEXPECTED},
    **{(State.ESTABLISHED, event): (Action.SEND_ABORT, State.AWAITING_CLOSE) for event in _UNEXPECTED},
    **{(State.AWAITING_CLOSE, event): (Action.IGNORE, State.AWAITING_CLOSE) for event in _UNEXPECTED},
    (State.AWAITING_REQUEST, Event.ASSOCIATE_RQ): (Action.DECIDE, State.DECIDING),
    (State.DECIDING, Event.ACCEPT): (Action.SEND_ACCEPT, State.ESTABLISHED),
    (State.DECIDING, Event.REJECT): (Action.SEND_REJECT, State.AWAITING_CLOSE),
    (State.DECIDING, Event.INVALID_PDU): (Action.SEND_ABORT, State.AWAITING_CLOSE),
    (State.ESTABLISHED, Event.P_DATA): (Action.TAKE_DATA, State.ESTABLISHED),
    (State.ESTABLISHED, Event.RELEASE_RQ): (Action.SEND_RELEASE, State.AWAITING_CLOSE),
    (State.ESTABLISHED, Event.IDLE): (Action.ASK_RELEASE, State.AWAITING_RELEASE),
    **{(State.AWAITING_RELEASE, event): (Action.SEND_ABORT, State.AWAITING_CLOSE) for event in _UNEXPECTED},
    (State.AWAITING_RELEASE, Event.RELEASE_RP): (Action.CLOSE, State.CLOSED),
    (State.AWAITING_RELEASE, Event.RELEASE_RQ): (Action.SEND_RELEASE, State.AWAITING_CLOSE),
    (State.AWAITING_RELEASE, Event.P_DATA): (Action.IGNORE, State.AWAITING_RELEASE),
    (State.AWAITING_RELEASE, Event.TIME_OUT): (Action.CLOSE, State.CLOSED),
    (State.AWAITING_RELEASE, Event.GIVE_UP): (Action.CLOSE, State.CLOSED),
    (State.ESTABLISHED, Event.TIME_OUT): (Action.SEND_ABORT, State.AWAITING_CLOSE),
    (State.ESTABLISHED, Event.GIVE_UP): (Action.SEND_ABORT, State.AWAITING_CLOSE),
    (State.AWAITING_REQUEST, Event.TIME_OUT): (Action.CLOSE, State.CLOSED),
    (State.AWAITING_CLOSE, Event.TIME_OUT): (Action.CLOSE, State.CLOSED),
    (State.AWAITING_REQUEST, Event.GIVE_UP): (Action.CLOSE, State.CLOSED),
    (State.AWAITING_CLOSE, Event.GIVE_UP): (Action.CLOSE, State.CLOSED),
    **{
        (state, event): (Action.CLOSE, State.CLOSED)
        for state in (
            State.AWAITING_REQUEST,
            State.DECIDING,
            State.ESTABLISHED,
            State.AWAITING_RELEASE,
            State.AWAITING_CLOSE,
        )
        for event in (Event.ABORT, Event.CONNECTION_CLOSED)
    },
}

ABORT_WHY: dict[Event, tuple[int, int]] = {
    Event.GIVE_UP: (0, 0),
    Event.TIME_OUT: (2, 0),
    Event.UNRECOGNIZED_PDU: (2, 1),
    Event.INVALID_PDU: (2, 6),
}
"""Source and reason of the A-ABORT that an event brings (PS3.8 table 9-26)."""
UNEXPECTED_PDU = (2, 2)
"""For every other event: a PDU that its state does not expect."""


def step(state: State, event: Event) -> tuple[Action, State]:
    """Return what to do and the state after; a pair that the table does not have is a bug (KeyError)."""
    return TABLE[state, event]
