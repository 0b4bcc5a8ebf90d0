"""The requesting side of one association: opened with what we need, C-STORE bodies streamed, answers awaited.

Our own small loop instead of pynetdicom's: its send_c_store() takes a whole data set in memory and queues it for a
second thread, so that neither memory nor the moment of the last fragment (contract D3) would be in our hands.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf

from gateway.dicom.command import (
    C_ECHO_RQ,
    C_STORE_RQ,
    MAX_COMMAND_BYTES,
    RESPONSE,
    Command,
    Response,
    data_pdu,
    read_command,
    request_command,
    request_pdus,
    response_pdus,
)
from gateway.dicom.negotiation import (
    APPLICATION_CONTEXT,
    FIXED_BYTES,
    RELEASE_RP,
    RELEASE_RQ,
    Malformed,
    abort_pdu,
    role_item,
)
from gateway.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from gateway.dicom.pdu_stream import Control, Fragment, Patience, PduStream, PeerClosed

MAX_CONTEXTS = 128
MAX_PDU_BYTES = 128 * 1024
OUR_MAX_PDU_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 1 << 20
"""Of one answer's data set, or of a request that the peer sends to us."""
PENDING = frozenset((0xFF00, 0xFF01))
MAX_PENDING = 100_000
"""Matches of one query."""
MAX_MATCHES_BYTES = 64 << 20
"""Of all of them."""
MAX_WAITING = 16
"""Requests of the peer that wait while we wait for its answer."""

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


class _Silent(Exception):
    """Nothing began in the time that the caller would wait; the association goes on."""


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


def request_pdu(peer: Peer, contexts: Sequence[tuple[str, str]], scp_of: Collection[str] = ()) -> bytes:
    """Return an A-ASSOCIATE-RQ that proposes one Transfer Syntax per context (PS3.8 9.3.2).

    `scp_of` names the SOP classes whose SCP we would be, though it is we who call (PS3.7 D.3.3.4).
    """
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
        + b"".join(role_item(sop_class_uid, scu=False, scp=True) for sop_class_uid in scp_of)
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


@dataclass(frozen=True, slots=True)
class Message:
    """A message from the peer."""

    context_id: int
    command: bytes
    data_set: bytes | None

    @property
    def elements(self) -> dict[int, bytes]:
        """The command's elements by number."""
        return _elements(self.command)


@dataclass(frozen=True, slots=True)
class Answer:
    """The final status, the Error Comment, and the data sets of all responses."""

    status: int
    comment: str
    data_sets: tuple[bytes, ...] = ()


class Requestor:
    """One open association. Used by one thread; every method but `abort` and `release` may raise PeerFailed."""

    def __init__(self, peer: Peer, contexts: Sequence[tuple[str, str]], scp_of: Collection[str] = ()) -> None:
        self._peer = peer
        self._message_id = 0
        self._connection = self._connect()
        wait = replace(Patience(), pdu_s=peer.timeout_s, reply_s=peer.timeout_s)
        self._stream = PduStream(self._connection, wait)
        self._waiting: deque[Message] = deque(maxlen=MAX_WAITING)
        self.accepted: dict[tuple[str, str], int] = {}
        """Context id by (SOP Class UID, Transfer Syntax UID)."""
        try:
            self._say(request_pdu(peer, contexts, scp_of))
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
        try:
            for block in blocks:
                self._stream.send(block, self._peer.timeout_s)
        except TimeoutError as error:
            raise PeerFailed("the peer stopped reading") from error
        except OSError as error:
            raise PeerFailed(f"the connection broke: {error.strerror or error}") from error

    def _read(self, patience_s: float | None = None) -> Control | Fragment:
        whole_wait = patience_s is None
        patience_s = self._peer.timeout_s if patience_s is None else patience_s
        try:
            return self._stream.read(patience_s)
        except PeerClosed as error:
            raise PeerFailed("the peer closed the connection") from error
        except TimeoutError as error:
            if not whole_wait and self._stream.idle:
                raise _Silent from error
            raise PeerFailed(f"the peer was silent for {patience_s:g} s") from error
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

    def _message(self, patience_s: float | None = None) -> Message:
        """Read one whole message, which must begin within `patience_s`."""
        command, data_set, whole, context_id = bytearray(), bytearray(), False, 0
        while True:
            got = self._read(None if command else patience_s)
            if isinstance(got, Control):
                if got.kind == 0x05:
                    self._say(RELEASE_RP)
                raise PeerFailed("the peer aborted" if got.kind == 0x07 else "the peer ended the association")
            into = command if got.is_command else data_set
            into += got.payload
            if len(command) > MAX_COMMAND_BYTES or len(data_set) > MAX_ANSWER_BYTES:
                raise PeerFailed("the peer's response has no end")
            context_id, whole = got.context_id, whole or (got.is_command and got.ends_message)
            if not got.ends_message or not whole:
                continue
            has_data_set = _elements(bytes(command)).get(0x0800, b"\x01\x01") != b"\x01\x01"
            if not got.is_command or not has_data_set:
                return Message(context_id, bytes(command), bytes(data_set) if has_data_set else None)

    def _reply(self) -> Answer:
        """Wait for the last response to the message that was sent; requests of the peer wait meanwhile.

        It comes within the peer's time, whatever else the peer says; only a match of a query begins a new wait.
        """
        data_sets: list[bytes] = []
        self._stream.cut_at = time.monotonic() + self._peer.timeout_s
        count = 0
        while len(data_sets) < MAX_PENDING and count < MAX_MATCHES_BYTES:
            message = self._message()
            found = message.elements
            if not int.from_bytes(found.get(0x0100, b""), "little") & RESPONSE:
                self._waiting.append(message)
            elif int.from_bytes(found.get(0x0120, b""), "little") == self._message_id:
                status = int.from_bytes(found.get(0x0900, b"\x10\x01")[:2], "little")
                if message.data_set is not None:
                    data_sets.append(message.data_set)
                    count += len(message.data_set)
                    self._stream.cut_at = time.monotonic() + self._peer.timeout_s
                if status not in PENDING:
                    self._stream.cut_at = inf
                    comment = found.get(0x0902, b"").decode("latin-1").strip()
                    return Answer(status, comment, tuple(data_sets))
        raise PeerFailed("the peer's answer has no end")

    def store(
        self, context_id: int, sop_class_uid: str, sop_instance_uid: str, body: Iterable[memoryview | bytes]
    ) -> tuple[int, str]:
        """Send one instance and return (status, error comment); what `body` raises passes through.

        The last fragment is marked only when `body` has ended, so that breaking off leaves the peer with half.
        """
        self._message_id = self._message_id % 65535 + 1
        command = request_command(C_STORE_RQ, self._message_id, sop_class_uid, sop_instance_uid)
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
        answer = self._reply()
        return answer.status, answer.comment

    def request(
        self, context_id: int, field: int, sop_class_uid: str, data_set: bytes, *, instance: str = "", type_id: int = 0
    ) -> Answer:
        """Send a request with a small data set (C-FIND, N-ACTION) and return what the peer answered in the end."""
        self._message_id = self._message_id % 65535 + 1
        command = request_command(field, self._message_id, sop_class_uid, instance, type_id)
        self._say(request_pdus(context_id, command, data_set, self._pdv_bytes + 6))
        return self._reply()

    def await_request(self, patience_s: float) -> tuple[Message, Command] | None:
        """Return a request of the peer's, one that came already or begins within `patience_s`; None: there is none."""
        while True:
            try:
                message = self._waiting.popleft() if self._waiting else self._message(patience_s)
            except _Silent:
                return None
            try:
                command = read_command(message.command)
            except Malformed as error:
                raise PeerFailed(f"the peer sent nonsense: {error}") from error
            if not command.field & RESPONSE:
                return message, command

    def respond(self, message: Message, command: Command, status: int) -> None:
        """Answer a request of the peer's."""
        self._say(response_pdus(message.context_id, command, Response(status), self._pdv_bytes + 6))

    def echo(self, context_id: int) -> int:
        """Return the status of a C-ECHO."""
        self._message_id = self._message_id % 65535 + 1
        self._say(data_pdu(context_id, 0x03, request_command(C_ECHO_RQ, self._message_id, "1.2.840.10008.1.1")))
        return self._reply().status

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
