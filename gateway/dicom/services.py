"""What the loop needs to know about whoever stands behind it: who may come in, and which services are offered.

A service is a function from a request to a receiver of its data set; what the receiver returns at the end are the
responses. The loop knows no service: storage, worklist, print or query are entries in a door's table.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from gateway.dicom.command import Command, Response
from gateway.model.errors import Refused

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
SOP_CLASS_NOT_SUPPORTED = 0x0122
UNRECOGNIZED_OPERATION = 0x0211
OUT_OF_RESOURCES = 0xA700
CANNOT_UNDERSTAND = 0xC000

MAX_IDENTIFIER_BYTES = 1 << 20
"""For the data set of a request that is no object: an identifier, an attribute list."""


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


@dataclass(frozen=True, slots=True)
class Request:
    """A DIMSE request on an accepted presentation context."""

    facts: AssociationFacts
    abstract_syntax: str
    transfer_syntax: str
    command: Command


class Receiver(Protocol):
    """Takes one request's data set, fragment by fragment. After it raised Refused it is over, not called again."""

    def write(self, fragment: memoryview) -> None:
        """Append bytes, valid only during the call; raises Refused: the rest is drained and its status answered."""

    def finish(self) -> Iterable[Response]:
        """The data set is whole, or there is none: return the responses, the final one last; raises Refused."""
        ...

    def abandon(self) -> None:
        """The sender broke off, or we failed; nothing of it may stay."""


Service = Callable[[Request], Receiver]
"""Opens a place for a request's data set; raises Refused."""


@dataclass(frozen=True, slots=True)
class Errand:
    """A request of ours that goes to whoever opened an association, when that is idle."""

    abstract_syntax: str
    field: int
    instance: str
    type_id: int
    data_set: Callable[[str], bytes]
    """From a Transfer Syntax UID."""
    done: Callable[[int | None], None]
    """Told the status that was answered; None: none was."""


class Door(Protocol):
    """Everything behind a listener."""

    @property
    def services(self) -> Mapping[int, Service]:
        """By command field of the request (PS3.7 E.1)."""
        ...

    def admit(self, facts: AssociationFacts) -> Rejection | None:
        """Judge an association before it is taken; None: welcome."""

    def offers(self, abstract_syntax: str) -> bool:
        """True when a presentation context for this SOP class is accepted."""
        ...

    def errand(self, facts: AssociationFacts, abstract_syntaxes: Collection[str]) -> Errand | None:
        """Return what is to be said to this peer in one of the agreed SOP classes; None: nothing."""


class _Gathered:
    """A receiver for services whose data set is small."""

    def __init__(self, answer: Callable[[Request, bytes], Iterable[Response]], request: Request) -> None:
        self._answer = answer
        self._request = request
        self._data_set = bytearray()

    def write(self, fragment: memoryview) -> None:
        if len(self._data_set) + len(fragment) > MAX_IDENTIFIER_BYTES:
            raise Refused(OUT_OF_RESOURCES, "the data set is too long for this service")
        self._data_set += fragment

    def finish(self) -> Iterable[Response]:
        return self._answer(self._request, bytes(self._data_set))

    def abandon(self) -> None:
        self._data_set.clear()


def gathered(answer: Callable[[Request, bytes], Iterable[Response]]) -> Service:
    """Make a service of a function from a request and its whole, bounded data set to responses."""
    return lambda request: _Gathered(answer, request)


verification: Service = gathered(lambda request, data_set: [Response(SUCCESS)])
"""C-ECHO (PS3.4 Annex A)."""
