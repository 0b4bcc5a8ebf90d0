"""One association that a scanner requests, with its habits: what it says, how it cuts it up, how it ends."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Sequence

from gateway.emulator import pdu
from gateway.emulator.connection import close_with_reset
from gateway.emulator.pdu import Context, Message
from gateway.emulator.profile import Network

DEFAULT_PIECE = 65536
"""Of a PDV, when the peer knows no limit."""
ATTENTION_S = 0.2
"""For what the peer said meanwhile to be there to its end."""
Reported = Callable[[Message], None]
"""Hears of each N-EVENT-REPORT that comes on the association."""


class Over(Exception):
    """The association ended, or was never there; the text says how."""


class Link:
    """One association. Every wait has a deadline of `timeout_s`; what ends it is Over."""

    def __init__(
        self, place: tuple[str, int], network: Network, called: str, timeout_s: float, reported: Reported | None = None
    ) -> None:
        self._place, self._network, self._timeout_s = place, network, timeout_s
        self._called = network.called_ae_title if network.called_ae_title is not None else called
        self._reported = reported
        self._socket: socket.socket | None = None
        self._buffer = bytearray()
        self._piece = DEFAULT_PIECE
        self._message_id = 0
        self._contexts: Sequence[Context] = ()
        self.accepted: dict[int, str] = {}
        self.aborted = False
        """The peer ended it with A-ABORT."""
        self.opened_s = 0.0
        self.stored = 0

    @property
    def is_open(self) -> bool:
        """True until either side ended it."""
        return self._socket is not None

    def open(self, contexts: Sequence[Context], roles: bytes = b"") -> None:
        """Connect and be accepted. Raises Over."""
        network = self._network
        try:
            sock = socket.create_connection(self._place, self._timeout_s)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = self._secured(sock) if network.tls else sock
        except OSError as error:
            raise Over(f"no connection: {error}") from error
        self._contexts, self.opened_s = contexts, time.monotonic()
        calling, called = (_title(text, network.title_tail) for text in (network.ae_title, self._called))
        self._send(pdu.associate_rq(contexts, calling, called, network.max_pdu, network.reserved_byte, roles))
        kind, body = self._read(self._timeout_s)
        if kind != pdu.ASSOCIATE_AC:
            self.break_off()
            raise Over(f"rejected: {tuple(body[1:4])}" if kind == pdu.ASSOCIATE_RJ else f"PDU type {kind}")
        self.accepted, longest = pdu.accepted(body)
        self._piece = network.piece or (max(longest - 6, 1) if longest else DEFAULT_PIECE)

    def _secured(self, sock: socket.socket) -> socket.socket:
        """A scanner that speaks TLS of this version alone, and looks at no certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        version = ssl.TLSVersion.TLSv1 if self._network.tls == "1.0" else ssl.TLSVersion.TLSv1_2
        context.minimum_version = context.maximum_version = version
        return context.wrap_socket(sock)

    def context(self, abstract: bytes, syntaxes: Sequence[str]) -> tuple[int, str] | None:
        """Return the accepted context for a SOP class and its Transfer Syntax, by the order of `syntaxes`."""
        taken = [
            (one.number, self.accepted[one.number])
            for one in self._contexts
            if one.abstract == abstract and one.number in self.accepted
        ]
        for wanted in syntaxes:
            for number, syntax in taken:
                if syntax == wanted:
                    return number, syntax
        return None

    def refused(self, abstract: bytes, syntaxes: Sequence[str]) -> tuple[int, str] | None:
        """Return a context that was proposed for a SOP class, accepted or not."""
        for one in self._contexts:
            if one.abstract == abstract:
                return one.number, syntaxes[0]
        return None

    @property
    def any_refused(self) -> bool:
        """True when the peer did not accept each context."""
        return len(self.accepted) < len(self._contexts)

    def request(self, context: int, elements: dict[int, bytes], data: bytes | None = None) -> int:
        """Send a request and return its message ID. Raises Over."""
        self._message_id = self._message_id % 65535 + 1
        elements = {pdu.MESSAGE: pdu.us(self._message_id), **elements}
        for block in pdu.message(context, elements, data, self._piece, one=self._network.one_pdu):
            self._send(block)
        return self._message_id

    def store(
        self, context: int, sop_class: bytes, sop_uid: bytes, data: bytes, *, stat: bool, cut: bool = False
    ) -> int:
        """Store one data set and return the status. `cut` loses the connection half-way. Raises Over."""
        elements = {
            pdu.CLASS: pdu.even(sop_class),
            pdu.FIELD: pdu.us(pdu.C_STORE),
            pdu.PRIORITY: pdu.us(1 if stat else 0),
            pdu.INSTANCE: pdu.even(sop_uid),
        }
        if cut:
            blocks = list(pdu.message(context, {pdu.MESSAGE: pdu.us(1), **elements}, data, self._piece))
            for block in blocks[: max(1, len(blocks) // 2)]:
                self._send(block)
            self.break_off()
            raise Over("cut within an object")
        asked = self.request(context, elements, data)
        answer = self.answer(asked)
        self.stored += 1
        return answer.number(pdu.STATUS)

    def answer(self, message_id: int) -> Message:
        """Return the next response to a request. Raises Over, also when none comes in time."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                got = self._message(deadline)
            except TimeoutError:
                self.break_off()
                raise Over(f"no answer within {self._timeout_s:g} s") from None
            if got.number(pdu.FIELD) == pdu.N_EVENT_REPORT:
                self._acknowledge(got)
            elif got.number(pdu.ANSWERED) == message_id:
                return got

    def hear(self, seconds: float, until: Callable[[], bool]) -> None:
        """Take what the peer tells on this association until something is true, it ends, or the time is over."""
        deadline = time.monotonic() + seconds
        while self.is_open and not until() and time.monotonic() < deadline:
            try:
                got = self._message(min(deadline, time.monotonic() + 0.2))
            except TimeoutError:
                continue
            except Over:
                return
            if got.number(pdu.FIELD) == pdu.N_EVENT_REPORT:
                self._acknowledge(got)

    def attend(self) -> None:
        """Take what the peer said while nobody listened: a report, or that it is tired of waiting."""
        while self._socket is not None and select.select([self._socket], [], [], 0)[0]:
            self.hear(ATTENTION_S, lambda: False)

    def _acknowledge(self, report: Message) -> None:
        if self._reported is not None:
            self._reported(report)
        elements = {
            pdu.CLASS: report.command.get(pdu.CLASS, b""),
            pdu.FIELD: pdu.us(pdu.N_EVENT_REPORT | pdu.RESPONSE),
            pdu.ANSWERED: report.command.get(pdu.MESSAGE, b""),
            pdu.STATUS: pdu.us(0),
            pdu.INSTANCE: report.command.get(pdu.INSTANCE, b""),
            pdu.EVENT_TYPE: report.command.get(pdu.EVENT_TYPE, b""),
        }
        self._send(*pdu.message(report.context, elements, None, self._piece))

    def end(self) -> None:
        """End the association in the way of this scanner. Never raises."""
        how = self._network.end
        try:
            if how == "release":
                self.release()
            elif how == "abort":
                self._send(pdu.pdu(pdu.ABORT))
            elif how == "half-close" and self._socket is not None:
                self._socket.shutdown(socket.SHUT_WR)
            if how in ("half-close", "leave"):
                self.hear(self._network.leave_s, lambda: False)
        except (Over, OSError):
            pass
        if self._socket is not None and how == "reset":
            close_with_reset(self._socket)
            self._socket = None
        self.break_off()

    def release(self) -> None:
        """Release in order. Raises Over."""
        self._send(pdu.pdu(pdu.RELEASE_RQ))
        deadline = time.monotonic() + self._timeout_s
        while (kind := self._read(max(0.0, deadline - time.monotonic()))[0]) != pdu.RELEASE_RP:
            if kind == pdu.RELEASE_RQ:  # both at once (PS3.8 9.2)
                self._send(pdu.pdu(pdu.RELEASE_RP))
        self.break_off()

    def abort(self) -> None:
        """End it with A-ABORT."""
        try:
            self._send(pdu.pdu(pdu.ABORT))
        except Over:
            pass
        self.break_off()

    def break_off(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *blocks: bytes) -> None:
        if self._socket is None:
            raise Over("not open")
        try:
            self._socket.settimeout(self._timeout_s)
            for block in blocks:
                step = self._network.segment or len(block)
                for at in range(0, len(block), step):
                    self._socket.sendall(block[at : at + step])
        except OSError as error:
            self.break_off()
            raise Over(f"sending: {error}") from error

    def _message(self, deadline: float) -> Message:
        """The next message. Raises TimeoutError when nothing at all came, and Over."""
        order, data, told = bytearray(), bytearray(), False
        while True:
            kind, body = self._read(deadline - time.monotonic(), quiet=not order)
            if kind == pdu.RELEASE_RQ:
                self._send(pdu.pdu(pdu.RELEASE_RP))
                self.break_off()
                raise Over("released by the peer")
            if kind != pdu.P_DATA:
                raise Over(f"PDU type {kind}")
            for context, flags, payload in pdu.items(body):
                if flags & pdu.COMMAND:
                    order += payload
                    told = bool(flags & pdu.LAST)
                else:
                    data += payload
                if told:
                    found = pdu.read_command(bytes(order))
                    bare = int.from_bytes(found.get(pdu.DATA_SET, b""), "little") == pdu.NO_DATA_SET
                    if bare or flags == pdu.LAST:
                        return Message(found, bytes(data), context)

    def _read(self, within_s: float, *, quiet: bool = False) -> tuple[int, bytes]:
        """The next PDU. With `quiet`, TimeoutError says that none came, and the association goes on."""
        deadline = time.monotonic() + within_s
        while len(self._buffer) < 6 or len(self._buffer) < 6 + struct.unpack_from(">I", self._buffer, 2)[0]:
            if self._socket is None:
                raise Over("not open")
            left = deadline - time.monotonic()
            try:
                if left <= 0:
                    raise TimeoutError
                self._socket.settimeout(left)
                block = self._socket.recv(65536)
            except TimeoutError:
                if quiet and not self._buffer:
                    raise
                self.break_off()
                raise Over(f"no answer within {self._timeout_s:g} s") from None
            except OSError as error:
                self.break_off()
                raise Over(f"reading: {error}") from error
            if not block:
                self.break_off()
                raise Over("closed by the peer")
            self._buffer += block
        kind, length = struct.unpack_from(">BxI", self._buffer)
        body = bytes(self._buffer[6 : 6 + length])
        del self._buffer[: 6 + length]
        if kind == pdu.ABORT:
            self.aborted = True
            self.break_off()
            raise Over(f"aborted: {tuple(body[2:4])}")
        return kind, body


def _title(text: str, tail: str) -> bytes:
    """An AE title of 16 bytes, with spaces behind it, or something else."""
    return (text.encode("latin-1", "replace") + tail.encode("latin-1", "replace")).ljust(16)[:16]
