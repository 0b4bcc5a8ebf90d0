"""PDUs off a socket, and bytes onto it: absolute deadlines, one reused buffer, data handed out as it arrives.

The socket does not block; only who finds it not ready waits. A time-out of the socket would cost two more system calls
for each read and write, with the interpreter lock given away in each.
"""

from __future__ import annotations

import mmap
import select
import socket
import ssl
import struct
import time
from contextlib import suppress
from dataclasses import dataclass

from gateway.dicom.negotiation import Malformed

BUFFER_BYTES = 512 * 1024
MAX_CONTROL_BYTES = 1 << 20
"""A request with 128 contexts of 20 syntaxes each has some 200 KB."""
MAX_DATA_PDU_BYTES = 1 << 24
"""Larger than announced is tolerated up to here: some peers ignore what we announce, and streaming costs nothing."""
P_DATA = 0x04
COMMAND, LAST = 0x01, 0x02
"""Bits of a PDV's Message Control Header (PS3.8 E.2)."""
MAX_POLL_S = 3600.0
"""As poll() counts in milliseconds in an int; who is more patient waits again."""


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
    """Reads what the peer sends, and writes to it. Used by one thread."""

    def __init__(self, connection: socket.socket, patience: Patience) -> None:
        connection.setblocking(False)
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

    def _wait(self, event: int, deadline: float) -> None:
        """Wait until the socket is ready; raises TimeoutError."""
        ready = select.poll()
        ready.register(self._connection, event)
        while (left := deadline - time.monotonic()) > 0:
            if ready.poll(min(left, MAX_POLL_S) * 1000):
                return
        raise TimeoutError

    def send(self, data: bytes | memoryview, within_s: float) -> None:
        """Write all of `data`; raises TimeoutError, or OSError when the connection broke."""
        deadline = time.monotonic() + within_s
        left = memoryview(data)
        while left:
            try:
                left = left[self._connection.send(left) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait(select.POLLOUT, deadline)
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN, deadline)

    def _receive(self) -> None:
        """Get more bytes; raises PeerClosed, TimeoutError."""
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == BUFFER_BYTES:
            self._buffer[: self._end - self._start] = bytes(self._buffer[self._start : self._end])
            self._start, self._end = 0, self._end - self._start
        until = min(self._deadline, self.cut_at)
        if time.monotonic() >= until:  # asked before each read: a peer that drips always has something ready
            raise TimeoutError
        while True:
            try:
                count = self._connection.recv_into(self._buffer[self._end :])
                break
            except (BlockingIOError, ssl.SSLWantReadError):
                self._wait(select.POLLIN, until)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT, until)
            except OSError as error:
                raise PeerClosed from error
        if not count:
            raise PeerClosed
        if isinstance(self._connection, ssl.SSLSocket):
            count += self._more_records(self._end + count)
        self._end += count
        if self._pdu_left or self._pdv_left:
            self._since += count
            if self._since >= self._enough:
                self._since, self._deadline = 0, time.monotonic() + self._patience.pdu_s

    def _more_records(self, end: int) -> int:
        """Read what else is here of TLS, which gives one record of 16 KiB at a time; return how much that is."""
        at = end
        with suppress(OSError):  # nothing more, or what the next read will say again
            while at < BUFFER_BYTES and (count := self._connection.recv_into(self._buffer[at:])):
                at += count
        return at - end

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
        at, count = self._start, min(self._pdv_left, self._end - self._start)
        self._start += count
        self._pdv_left -= count
        if not self._flags:
            count += self._join(at + count)
        payload = self._buffer[at : at + count]
        flags = self._flags
        return Fragment(self._context_id, bool(flags & COMMAND), bool(flags & LAST) and not self._pdv_left, payload)

    def _join(self, behind: int) -> int:
        """Move the data of the PDUs that are here already to `behind`, over their headers; return how much that is.

        What is done for each piece costs more than moving 64 KiB. Whatever is not plainly the next fragment of the
        same data set is left to be read in the ordinary way.
        """
        to = behind
        while not (self._pdv_left or self._pdu_left or self._flags) and self._end - self._start > 12:
            kind, pdu, pdv, context_id, flags = struct.unpack_from(">BxIIBB", self._buffer, self._start)
            alone = kind == P_DATA and 2 < pdv == pdu - 4 and pdu <= MAX_DATA_PDU_BYTES
            if not alone or context_id != self._context_id or flags not in (0, LAST):
                break
            at = self._start + 12
            count = min(pdv - 2, self._end - at)
            self._buffer[to : to + count] = self._buffer[at : at + count]
            self._start, to = at + count, to + count
            self._flags, self._pdv_left = flags, pdv - 2 - count
            self._since, self._deadline = 0, time.monotonic() + self._patience.pdu_s
        return to - behind

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
