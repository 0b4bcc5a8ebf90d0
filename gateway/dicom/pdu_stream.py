"""PDUs off a socket: blocking reads with absolute deadlines, one reused buffer, data handed out as it arrives."""

from __future__ import annotations

import mmap
import socket
import struct
import time
from dataclasses import dataclass

from gateway.dicom.negotiation import Malformed

BUFFER_BYTES = 512 * 1024
MAX_CONTROL_BYTES = 1 << 20
"""A request with 128 contexts of 20 syntaxes each has some 200 KB."""
MAX_DATA_PDU_BYTES = 1 << 24
"""Larger than announced is tolerated up to here: some peers ignore what we announce, and streaming costs nothing."""
P_DATA = 0x04


@dataclass(frozen=True, slots=True)
class Patience:
    """How long we wait for a peer, in seconds."""

    idle_s: float = 60.0
    """Between messages; modalities hold associations open between images."""
    artim_s: float = 10.0
    """For the request after the connection, and for the close at the end (PS3.8 9.1.5)."""
    pdu_s: float = 30.0
    """From a control PDU's first byte to its last; for P-DATA-TF the span in which `min_bytes_per_s` must be met.

    Counted afresh after each span: a deadline that grew with the claimed length would be a gift to a slow attacker.
    """
    min_bytes_per_s: float = 1024.0
    reply_s: float = 30.0
    """For a peer that does not read what we answer."""
    handshake_s: float = 10.0
    finish_s: float = 5.0
    """For a message that is under way when the gateway is told to stop."""


class PeerClosed(Exception):
    """The connection ended."""


class Unrecognized(Malformed):
    """Not a PDU of the Upper Layer: another protocol, or another standard's port."""


@dataclass(frozen=True, slots=True)
class Control:
    """A whole PDU that is not P-DATA-TF."""

    kind: int
    body: bytes


@dataclass(slots=True)
class Fragment:
    """A piece of a PDV; `payload` is valid until the next call."""

    context_id: int
    is_command: bool
    ends_message: bool
    """True for the last piece of the PDV that has the last-fragment flag (PS3.8 E.2)."""
    payload: memoryview


class PduStream:
    """Reads what the peer sends. Used by one thread."""

    def __init__(self, connection: socket.socket, patience: Patience) -> None:
        self._connection = connection
        self._patience = patience
        self._buffer = memoryview(mmap.mmap(-1, BUFFER_BYTES))
        """Mapped, not allocated: an idle association touches one page of it."""
        self._start = self._end = 0
        self._pdu_left = self._pdv_left = 0
        self._context_id = self._flags = 0
        self._deadline = 0.0
        self._enough = patience.min_bytes_per_s * patience.pdu_s
        self._since = 0
        self.cut_at = float("inf")
        """Monotonic time after which no wait goes on, whatever its own deadline: set when the end is decided."""

    def _receive(self) -> None:
        """Get more bytes; raises PeerClosed, TimeoutError."""
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == BUFFER_BYTES:
            self._buffer[: self._end - self._start] = bytes(self._buffer[self._start : self._end])
            self._start, self._end = 0, self._end - self._start
        left = min(self._deadline, self.cut_at) - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        try:
            count = self._connection.recv_into(self._buffer[self._end :])
        except TimeoutError:
            raise
        except OSError as error:
            raise PeerClosed from error
        if not count:
            raise PeerClosed
        self._end += count
        if self._pdu_left or self._pdv_left:
            self._since += count
            if self._since >= self._enough:
                self._since, self._deadline = 0, time.monotonic() + self._patience.pdu_s

    def _need(self, count: int) -> int:
        """Have `count` bytes in one piece; step over them and return where they are."""
        while self._end - self._start < count:
            self._receive()
        at = self._start
        self._start += count
        return at

    @property
    def idle(self) -> bool:
        """True between PDUs, with nothing of the next one here."""
        return not self._pdu_left and not self._pdv_left and self._start == self._end

    def read(self, first_byte_within_s: float) -> Control | Fragment:
        """Return the next PDU, or the next piece of data; raises PeerClosed, TimeoutError, Malformed, Unrecognized."""
        if not self._pdv_left:
            if not self._pdu_left:
                control = self._begin_pdu(first_byte_within_s)
                if control is not None:
                    return control
            self._begin_pdv()
        if self._pdv_left and self._start == self._end:
            self._receive()
        count = min(self._pdv_left, self._end - self._start)
        payload = self._buffer[self._start : self._start + count]
        self._start += count
        self._pdv_left -= count
        flags = self._flags
        return Fragment(self._context_id, bool(flags & 1), bool(flags & 2) and not self._pdv_left, payload)

    def _begin_pdu(self, first_byte_within_s: float) -> Control | None:
        if self._start == self._end:
            self._deadline = time.monotonic() + first_byte_within_s
            self._receive()
        self._since, self._deadline = 0, time.monotonic() + self._patience.pdu_s
        if not 1 <= self._buffer[self._start] <= 7:
            raise Unrecognized("unknown PDU type")
        kind, length = struct.unpack_from(">BxI", self._buffer, self._need(6))
        if length > (MAX_DATA_PDU_BYTES if kind == P_DATA else MAX_CONTROL_BYTES):
            raise Malformed("PDU too long")
        if kind == P_DATA:
            if length < 6:
                raise Malformed("P-DATA-TF without a PDV")
            self._pdu_left = length
            return None
        return Control(kind, self._body(length))

    def _body(self, length: int) -> bytes:
        """Gather a control PDU as it arrives; memory grows with what came, not with what was claimed."""
        body = bytearray()
        while len(body) < length:
            if self._start == self._end:
                self._receive()
            count = min(length - len(body), self._end - self._start)
            body += self._buffer[self._start : self._start + count]
            self._start += count
        return bytes(body)

    def _begin_pdv(self) -> None:
        if self._pdu_left < 6:
            raise Malformed("a PDV is shorter than its header")
        at = self._need(6)
        length, self._context_id, self._flags = struct.unpack_from(">IBB", self._buffer, at)
        if length < 2 or length + 4 > self._pdu_left:
            raise Malformed("a PDV is longer than its PDU")
        self._pdv_left = length - 2
        self._pdu_left -= length + 4
