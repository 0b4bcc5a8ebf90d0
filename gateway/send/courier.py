"""The protocol of a destination kind, and what it is handed.

A courier is used by one thread. It opens by itself when it is given work, stays open while there is more, and never
raises for what a peer did: that is a `Verdict`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.model.verdict import Verdict

Body = Callable[[], Iterator[memoryview | bytes]]
"""Opens the data set and yields its bytes in blocks. The last block comes only after the whole was re-hashed and
found to match; otherwise the iterator raises CustodyRot, and the courier must break off so that the peer cannot take
what it got for whole (contract D3). So it must when the iterator raises Stopped: the lane is to end."""


@dataclass(frozen=True, slots=True)
class Consignment:
    """One instance on its way to one destination, in one Transfer Syntax."""

    object_id: str
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    """May be empty when the data set could not be read."""
    transfer_syntax_uid: str
    length: int
    """Bytes that `body` yields in all."""
    body: Body
    unsent: Body | None = None
    """The same bytes for who reads them but does not send them, as a signature does; None: `body` serves."""


class Courier(Protocol):
    """Carries consignments to one destination."""

    def prepare(self, offers: Sequence[tuple[str, str]]) -> None:
        """Learn which (SOP Class UID, Transfer Syntax UID) pairs are waiting, so that one opening serves them all."""

    def deliver(self, consignment: Consignment) -> Verdict:
        """Carry one instance and return what the peer said; raises CustodyRot, SpoolError or Stopped only."""
        ...

    def accepts(self, sop_class_uid: str) -> frozenset[str] | None:
        """Transfer Syntax UIDs the peer is known to take for this SOP class; None while it is not known."""
        ...

    def probe(self) -> Verdict:
        """Ask whether the destination is well, as cheaply as its protocol allows (C-ECHO, OPTIONS)."""
        ...

    def close(self) -> None:
        """End politely what is open; safe to call at any time, from the courier's own thread."""
