"""The requesting side of one association: opened with what we need, C-STORE bodies streamed, answers awaited.

Our own small loop instead of pynetdicom's: its send_c_store() takes a whole data set in memory and queues it for a
second thread, so that neither memory nor the moment of the last fragment (contract D3) would be in our hands.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from gateway.dicom.command import MAX_COMMAND_BYTES, NO_DATA_SET, data_pdu
from gateway.dicom.negotiation import APPLICATION_CONTEXT, FIXED_BYTES, RELEASE_RP, RELEASE_RQ, Malformed, abort_pdu
from gateway.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from gateway.dicom.pdu_stream import Control, Fragment, Patience, PduStream, PeerClosed

MAX_CONTEXTS = 128
MAX_PDU_BYTES = 128 * 1024
OUR_MAX_PDU_BYTES = 64 * 1024

REJECTED = {
    (1, 1): "no reason given",
    (1, 2): "application context not supported",
    (1, 3): "calling AE title not recognised: the archive must be told ours",
    (1, 7): "called AE title not recognised: check ae_title of the destination",
    (2, 1): "no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}
"""(source, reason) of an A-ASSOCIATE-RJ (PS3.8 table 9-21)."""


class PeerFailed(Exception):
    """The peer or the line broke the association; the text says how, for a person."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom to call."""

    host: str
    port: int
    called_ae_title: str
    calling_ae_title: str
    timeout_s: float
    tls: ssl.SSLContext | None = None
    server_name: str | None = None


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(value)) + value


def _title(text: str) -> bytes:
    return text.encode("latin-1", "replace")[:16].ljust(16)


def request_pdu(peer: Peer, contexts: Sequence[tuple[str, str]]) -> bytes:
    """Return an A-ASSOCIATE-RQ that proposes one Transfer Syntax per context (PS3.8 9.3.2)."""
    proposed = b"".join(
        _item(
            0x20,
            bytes((2 * index + 1, 0, 0, 0))
            + _item(0x30, abstract.encode("latin-1"))
            + _item(0x40, syntax.encode("latin-1")),
        )
        for index, (abstract, syntax) in enumerate(contexts)
    )
    user = (
        _item(0x51, struct.pack(">I", OUR_MAX_PDU_BYTES))
        + _item(0x52, IMPLEMENTATION_CLASS_UID.encode())
        + _item(0x55, IMPLEMENTATION_VERSION_NAME.encode())
    )
    titles = _title(peer.called_ae_title) + _title(peer.calling_ae_title) + b"\0" * 32
    body = struct.pack(">HH", 1, 0) + titles + _item(0x10, APPLICATION_CONTEXT) + proposed + _item(0x50, user)
    return struct.pack(">BBI", 0x01, 0, len(body)) + body


def read_accept(body: bytes) -> tuple[set[int], int]:
    """Return (ids of accepted contexts, the peer's maximum PDU length); raises Malformed."""
    accepted, max_pdu, at = set(), 0, FIXED_BYTES
    while at + 4 <= len(body):
        kind, length = body[at], struct.unpack_from(">H", body, at + 2)[0]
        value = body[at + 4 : at + 4 + length]
        if len(value) < length:
            raise Malformed("an item is longer than the answer")
        if kind == 0x21 and length >= 4 and value[2] == 0:
            accepted.add(value[0])
        elif kind == 0x50:
            inner = 0
            while inner + 4 <= length:
                size = struct.unpack_from(">H", value, inner + 2)[0]
                if value[inner] == 0x51 and size == 4 and inner + 8 <= length:
                    max_pdu = struct.unpack_from(">I", value, inner + 4)[0]
                inner += 4 + size
        at += 4 + length
    return accepted, max_pdu


def _element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, number, len(value)) + value


def _uid(text: str) -> bytes:
    value = text.encode("latin-1", "replace")
    return value + b"\0" * (len(value) % 2)


def command_bytes(field: int, message_id: int, sop_class_uid: str, sop_instance_uid: str = "") -> bytes:
    """Return a C-STORE-RQ or C-ECHO-RQ command set (PS3.7 9.3)."""
    elements = [
        _element(0x0002, _uid(sop_class_uid)),
        _element(0x0100, struct.pack("<H", field)),
        _element(0x0110, struct.pack("<H", message_id)),
    ]
    if sop_instance_uid:
        elements += [
            _element(0x0700, struct.pack("<H", 0)),
            _element(0x0800, struct.pack("<H", 0x0001)),
            _element(0x1000, _uid(sop_instance_uid)),
        ]
    else:
        elements.append(_element(0x0800, struct.pack("<H", NO_DATA_SET)))
    body = b"".join(elements)
    return _element(0x0000, struct.pack("<I", len(body))) + body


class Requestor:
    """One open association. Used by one thread; every method but `abort` and `release` may raise PeerFailed."""

    def __init__(self, peer: Peer, contexts: Sequence[tuple[str, str]]) -> None:
        self._peer = peer
        self._message_id = 0
        self._connection = self._connect()
        wait = replace(Patience(), pdu_s=peer.timeout_s, reply_s=peer.timeout_s)
        self._stream = PduStream(self._connection, wait)
        self.accepted: dict[tuple[str, str], int] = {}
        """Context id by (SOP Class UID, Transfer Syntax UID)."""
        try:
            self._say(request_pdu(peer, contexts))
            ids, max_pdu = self._answer()
        except PeerFailed:
            self.abort()
            raise
        self.accepted = {pair: 2 * index + 1 for index, pair in enumerate(contexts) if 2 * index + 1 in ids}
        self._pdv_bytes = min(max_pdu or MAX_PDU_BYTES, MAX_PDU_BYTES) - 6
        if self._pdv_bytes < 64:
            self.abort()
            raise PeerFailed(f"the peer takes PDUs of {max_pdu} bytes only")

    def _connect(self) -> socket.socket:
        peer = self._peer
        try:
            plain = socket.create_connection((peer.host, peer.port), timeout=min(peer.timeout_s, 20.0))
        except OSError as error:
            raise PeerFailed(f"cannot connect: {error.strerror or error}") from error
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if peer.tls is None:
            return plain
        try:
            return peer.tls.wrap_socket(plain, server_hostname=peer.server_name or peer.host)
        except (OSError, ValueError) as error:
            plain.close()
            reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)
            raise PeerFailed(f"TLS failed: {reason}") from error

    def _say(self, *blocks: bytes | memoryview) -> None:
        self._connection.settimeout(self._peer.timeout_s)
        try:
            for block in blocks:
                self._connection.sendall(block)
        except TimeoutError as error:
            raise PeerFailed("the peer stopped reading") from error
        except OSError as error:
            raise PeerFailed(f"the connection broke: {error.strerror or error}") from error

    def _read(self) -> Control | Fragment:
        try:
            return self._stream.read(self._peer.timeout_s)
        except PeerClosed as error:
            raise PeerFailed("the peer closed the connection") from error
        except TimeoutError as error:
            raise PeerFailed(f"the peer was silent for {self._peer.timeout_s:g} s") from error
        except Malformed as error:
            raise PeerFailed(f"the peer sent nonsense: {error}") from error

    def _answer(self) -> tuple[set[int], int]:
        got = self._read()
        if isinstance(got, Control) and got.kind == 0x02:
            try:
                return read_accept(got.body)
            except (Malformed, struct.error) as error:
                raise PeerFailed("the peer's answer cannot be read") from error
        if isinstance(got, Control) and got.kind == 0x03 and len(got.body) >= 4:
            reason = REJECTED.get((got.body[2], got.body[3]), f"source {got.body[2]}, reason {got.body[3]}")
            raise PeerFailed(f"association rejected: {reason}")
        raise PeerFailed("the peer aborted instead of answering")

    def _reply(self) -> tuple[int, str]:
        """Wait for the response to the message that was sent; return (status, error comment)."""
        command = bytearray()
        while True:
            got = self._read()
            if isinstance(got, Control):
                if got.kind == 0x05:
                    self._say(RELEASE_RP)
                raise PeerFailed("the peer aborted" if got.kind == 0x07 else "the peer ended the association")
            if not got.is_command:
                continue
            command += got.payload
            if len(command) > MAX_COMMAND_BYTES:
                raise PeerFailed("the peer's response has no end")
            if got.ends_message:
                found = _elements(bytes(command))
                answered = int.from_bytes(found.get(0x0120, b""), "little")
                if answered == self._message_id:
                    comment = found.get(0x0902, b"").decode("latin-1").strip()
                    return int.from_bytes(found.get(0x0900, b"\x10\x01")[:2], "little"), comment
                command.clear()

    def store(
        self, context_id: int, sop_class_uid: str, sop_instance_uid: str, body: Iterable[memoryview | bytes]
    ) -> tuple[int, str]:
        """Send one instance and return (status, error comment); what `body` raises passes through.

        The last fragment is marked only when `body` has ended, so that breaking off leaves the peer with half.
        """
        self._message_id = self._message_id % 65535 + 1
        command = command_bytes(0x0001, self._message_id, sop_class_uid, sop_instance_uid)
        self._say(data_pdu(context_id, 0x03, command))
        waiting: memoryview | bytes = b""
        for block in body:
            view = memoryview(block)
            for start in range(0, len(view), self._pdv_bytes):
                if waiting:
                    self._say(data_pdu(context_id, 0x00, waiting))
                waiting = view[start : start + self._pdv_bytes]
            waiting = bytes(waiting)
        self._say(data_pdu(context_id, 0x02, waiting))
        return self._reply()

    def echo(self, context_id: int) -> int:
        """Return the status of a C-ECHO."""
        self._message_id = self._message_id % 65535 + 1
        self._say(data_pdu(context_id, 0x03, command_bytes(0x0030, self._message_id, "1.2.840.10008.1.1")))
        return self._reply()[0]

    def release(self) -> None:
        """End in order; an answer is awaited for a moment only."""
        try:
            self._say(RELEASE_RQ)
            deadline = time.monotonic() + 2.0
            while time.monotonic() < deadline:
                got = self._stream.read(2.0)
                if isinstance(got, Control):
                    break
        except (PeerFailed, PeerClosed, TimeoutError, Malformed):
            pass  # it is over in any case
        self._connection.close()

    def abort(self) -> None:
        """Break off, so that the peer cannot take what it got for whole."""
        try:
            self._say(abort_pdu(source=0))
        except PeerFailed:
            pass
        self._connection.close()


def _elements(body: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 8 <= len(body):
        group, element, length = struct.unpack_from("<HHI", body, at)
        if group == 0:
            found[element] = body[at + 8 : at + 8 + length]
        at += 8 + length
    return found
