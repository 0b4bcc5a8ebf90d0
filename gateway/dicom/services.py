"""What the engine needs to know about whoever stands behind it: who may come in, and where data sets go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class AssociationFacts:
    """Who speaks to us. The AE titles are as the peer says; blank is tolerated."""

    address: str
    calling_ae_title: str
    called_ae_title: str
    listener_port: int
    tls_peer_name: str | None = None
    """From the client's verified certificate (first DNS name, else common name); None without one."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 table 9-21)."""

    result: int
    source: int
    reason: int


class StoreSink(Protocol):
    """Takes one data set, fragment by fragment. After it raised Refused it is over, and is not called again."""

    def write(self, fragment: memoryview) -> None:
        """Append bytes, valid only during the call; raises Refused: the rest is drained and its status answered."""

    def finish(self) -> int:
        """The data set is whole: return the status to answer; raises Refused."""
        ...

    def abandon(self) -> None:
        """The sender broke off, or we failed; nothing of it may stay."""


class StorageDoor(Protocol):
    """The Storage SCP behind a listener."""

    def admit(self, facts: AssociationFacts) -> Rejection | None:
        """Judge an association before it is taken; None: welcome."""

    def store(
        self,
        facts: AssociationFacts,
        context: tuple[str, str],
        affected_sop_class_uid: str,
        affected_sop_instance_uid: str,
        message_priority: int,
    ) -> StoreSink:
        """Open a place for a data set in `context` (abstract syntax, Transfer Syntax); raises Refused."""
        ...
