"""Sends objects one by one over associations that are opened and ended as this scanner does, and writes down what
was acknowledged."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TextIO

from pydicom.dataset import Dataset

from gateway.emulator.encoding import encode
from gateway.emulator.link import Link, Over
from gateway.emulator.pdu import Context
from gateway.emulator.profile import EXPLICIT, IMPLICIT, Data, Network

NOT_ANSWERED = -1
STORAGE_LIKE = "1.2.840.10008.5.1.4.1.1."
"""What a crowd of contexts is made of: numbers behind it, whether they are SOP classes or not."""
UID_TAIL = {"space": b" ", "two-nul": b"\0\0"}
"""What padded UIDs end in, in the negotiation and in commands."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One C-STORE as the scanner saw it."""

    study_instance_uid: str
    sop_instance_uid: str
    sha256: str
    """Of the data set bytes as they went over the wire."""
    status: int
    """DIMSE status; -1 when no answer came."""
    seconds: float

    @property
    def acknowledged(self) -> bool:
        """True for success and for the warnings with which an SCP keeps the instance."""
        return self.status == 0 or self.status & 0xF000 == 0xB000


@dataclass(slots=True)
class Console:
    """What the operator of this scanner would complain of."""

    slow: int = 0
    """Answers that took too long."""
    given_up: int = 0
    """Associations that took too long, or had a context refused."""
    aborted: int = 0
    """Associations that the peer aborted."""
    broken: dict[str, int] = field(default_factory=dict)
    """How associations failed, and how often."""


def contexts(wanted: Sequence[tuple[str, Sequence[str]]], network: Network, data: Data) -> list[Context]:
    """Return the presentation contexts for (SOP class, its Transfer Syntaxes), as this scanner proposes them."""
    tail = UID_TAIL.get(data.uid_form, b"")
    pairs = [*wanted, *((uid, network.syntaxes) for uid in network.extra_classes)]
    groups: list[tuple[str, list[str]]] = []
    for abstract, syntaxes in pairs:
        groups += [(abstract, list(syntaxes))] if network.contexts == "one" else [(abstract, [uid]) for uid in syntaxes]
    groups += [(f"{STORAGE_LIKE}{500 + n}", network.syntaxes[:1]) for n in range(max(0, network.crowd - len(groups)))]
    return [
        Context(2 * number + 1, abstract.encode() + tail, tuple(uid.encode() + tail for uid in syntaxes))
        for number, (abstract, syntaxes) in enumerate(groups[:128])
    ]


class Sender:
    """The storage SCU of one scanner."""

    def __init__(
        self,
        place: tuple[str, int],
        network: Network,
        data: Data,
        called: str,
        wanted: Sequence[tuple[str, Sequence[str]]],
        *,
        log: TextIO | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        """`wanted` are SOP classes and Transfer Syntaxes; `log` gets one JSON line for each acknowledged instance."""
        self._place, self._network, self._data, self._called = place, network, data, called
        self._contexts = contexts(wanted, network, data)
        self._log, self._timeout_s = log, timeout_s
        self._link: Link | None = None
        self._opened = self._number = 0
        self._cut: set[str] = set()
        self.console = Console()

    def store(self, dataset: Dataset, *, stat: bool = False) -> Sent:
        """Send one instance, on an association that is opened when there is none; `stat` asks for priority HIGH."""
        started = time.monotonic()
        self._number += 1
        digest, status = "", NOT_ANSWERED
        try:
            link = self._opened_link()
            context, syntax = self._chosen(link, dataset)
            encoded = encode(dataset, syntax, self._data)
            digest = encoded.sha256
            status = self._send(link, dataset, context, encoded.content, stat=stat)
        except Over as over:
            self._ended(str(over))
        if not digest:
            digest = encode(dataset, self._syntaxes(dataset)[0], self._data).sha256
        seconds = time.monotonic() - started
        uid = str(dataset.SOPInstanceUID).strip("\0 ")
        sent = Sent(str(dataset.StudyInstanceUID).strip("\0 "), uid, digest, status, seconds)
        if sent.acknowledged and self._log is not None:
            self._log.write(json.dumps(asdict(sent)) + "\n")
            self._log.flush()
        if self._network.slow_s and seconds > self._network.slow_s:
            self.console.slow += 1
        return sent

    def end(self) -> bool:
        """End the association, if one is open, as this scanner does. False when the peer aborted it."""
        link, self._link = self._link, None
        if link is None:
            return True
        link.end()
        if link.aborted:
            self.console.aborted += 1
        return not link.aborted

    def _opened_link(self) -> Link:
        link = self._link
        if link is not None and self._network.total_s and time.monotonic() - link.opened_s > self._network.total_s:
            link.abort()
            self.console.given_up += 1
        if link is not None and self._network.killed_after and link.stored >= self._network.killed_after:
            link.break_off()
        if link is not None and link.is_open:
            link.attend()
        if link is not None and link.aborted:
            self.console.aborted += 1
        if link is not None and link.is_open:
            return link
        self._link = link = Link(self._place, self._network, self._called, self._timeout_s)
        link.open(self._contexts)
        self._opened += 1
        if self._opened <= self._network.hang_up_on_accept:
            link.break_off()
            raise Over("hung up when accepted")
        if self._network.refused == "abort" and link.any_refused:
            link.abort()
            self.console.given_up += 1
            raise Over("a context was refused")
        return link

    def _syntaxes(self, dataset: Dataset) -> list[str]:
        own = str(dataset.file_meta.TransferSyntaxUID)
        if self._data.syntax is not None:
            return [self._data.syntax]
        return self._network.syntaxes if own in (IMPLICIT, EXPLICIT) else [own]

    def _chosen(self, link: Link, dataset: Dataset) -> tuple[int, str]:
        abstract = str(dataset.SOPClassUID).encode() + UID_TAIL.get(self._data.uid_form, b"")
        syntaxes = self._syntaxes(dataset)
        found = link.context(abstract, syntaxes)
        if found is None and self._network.refused == "send":
            found = link.refused(abstract, syntaxes)
        if found is None:
            raise Over("no context was accepted for the SOP class")
        return found

    def _send(self, link: Link, dataset: Dataset, context: int, content: bytes, *, stat: bool) -> int:
        uid = str(dataset.SOPInstanceUID)
        cut = bool(self._network.cut_inside and self._number % self._network.cut_inside == 0 and uid not in self._cut)
        if cut:
            self._cut.add(uid)
        tail = UID_TAIL.get(self._data.uid_form, b"")
        sop_class = str(dataset.SOPClassUID).encode() + tail
        return link.store(context, sop_class, uid.encode() + tail, content, stat=stat, cut=cut)

    def _ended(self, how: str) -> None:
        if self._link is not None and self._link.aborted:
            self.console.aborted += 1
        if self._link is not None and not self._link.is_open:
            self._link = None
        self.console.broken[how] = self.console.broken.get(how, 0) + 1
