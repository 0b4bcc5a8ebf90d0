"""DICOM on the wire, for tests alone: an independent writer and reader that can also lie (PS3.8 9.3, PS3.7 6.3)."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import struct
import time
from pathlib import Path
from typing import NamedTuple

VERIFICATION, CT = "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
COMMAND, LAST = 1, 2
"""Bits of a PDV's message control header (PS3.8 E.2)."""
C_STORE_RQ, C_ECHO_RQ, C_FIND_RQ, C_CANCEL_RQ, RSP = 0x0001, 0x0030, 0x0020, 0x0FFF, 0x8000
STORAGE = ((1, CT, (EXPLICIT,)), (3, CT, (IMPLICIT,)), (5, VERIFICATION, (IMPLICIT,)))
"""What most tests propose: (context id, Abstract Syntax, Transfer Syntaxes)."""
LONG_VRS = ("OB", "OW", "SQ", "UN", "UT", "UC", "UR")
NEVER = 0xFFFFFFFF


def raw(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")


def pdu(kind: int, body: bytes = b"\0" * 4, length: int | None = None) -> bytes:
    return struct.pack(">BBI", kind, 0, len(body) if length is None else length) + body


def item(kind: int, value: bytes, length: int | None = None) -> bytes:
    return struct.pack(">BBH", kind, 0, len(value) if length is None else length) + value


def context(number: int, abstract: str | bytes, syntaxes: tuple[str | bytes, ...]) -> bytes:
    parts = item(0x30, raw(abstract)) + b"".join(item(0x40, raw(uid)) for uid in syntaxes)
    return item(0x20, bytes((number, 0, 0, 0)) + parts)


def associate_rq(contexts=STORAGE, *, calling="WIRE", called="EDGEGW", max_pdu=16384, user=b"", reserved=b"") -> bytes:
    """An A-ASSOCIATE-RQ; titles shorter than 16 are padded with spaces, `user` goes behind the usual user items."""
    head = struct.pack(">HH", 1, 0) + raw(called).ljust(16)[:16] + raw(calling).ljust(16)[:16]
    usual = item(0x51, struct.pack(">I", max_pdu)) + item(0x52, b"1.2.3.4")
    body = item(0x10, b"1.2.840.10008.3.1.1.1") + b"".join(context(*one) for one in contexts)
    return pdu(ASSOCIATE_RQ, head + reserved.ljust(32, b"\0") + body + item(0x50, usual + user))


def pdv(number: int, flags: int, payload: bytes, length: int | None = None) -> bytes:
    return struct.pack(">IBB", len(payload) + 2 if length is None else length, number, flags) + payload


def p_data(*pdvs: bytes) -> bytes:
    return pdu(P_DATA, b"".join(pdvs))


def command(*elements: tuple[int, bytes]) -> bytes:
    body = b"".join(struct.pack("<HHI", 0, number, len(value)) + value for number, value in elements)
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def us(value: int) -> bytes:
    return struct.pack("<H", value)


def even(uid: str | bytes) -> bytes:
    return raw(uid) + b"\0" * (len(raw(uid)) % 2)


def store_command(
    uid: str | bytes | None, message_id: int = 1, sop_class: str | bytes = CT, priority: int = 0
) -> bytes:
    elements = [(0x0002, even(sop_class)), (0x0100, us(C_STORE_RQ)), (0x0110, us(message_id)), (0x0700, us(priority))]
    elements += [(0x0800, us(1))] + ([] if uid is None else [(0x1000, even(uid))])
    return command(*elements)


def plain_command(field: int = C_ECHO_RQ, message_id: int = 1, sop_class: str = VERIFICATION) -> bytes:
    """A request without a data set."""
    return command((0x0002, even(sop_class)), (0x0100, us(field)), (0x0110, us(message_id)), (0x0800, us(0x0101)))


def store(uid, body: bytes, number: int = 1, message_id: int = 1, piece: int = 16000, sop_class=CT) -> list[bytes]:
    """The PDUs of a C-STORE: the command, then the data set in pieces."""
    pieces = [body[at : at + piece] for at in range(0, len(body), piece)] or [b""]
    flags = [0] * (len(pieces) - 1) + [LAST]
    head = p_data(pdv(number, COMMAND | LAST, store_command(uid, message_id, sop_class)))
    return [head] + [p_data(pdv(number, flag, one)) for flag, one in zip(flags, pieces, strict=True)]


def echo(number: int = 5, message_id: int = 1) -> bytes:
    return p_data(pdv(number, COMMAND | LAST, plain_command(message_id=message_id)))


def explicit(tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    """A data element in Explicit VR Little Endian, its length perhaps a lie."""
    count = len(value) if length is None else length
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    return head + (struct.pack("<HI", 0, count) if vr in LONG_VRS else struct.pack("<H", count & 0xFFFF)) + value


def implicit(tag: int, value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


def data_set(uid: str, more: bytes = b"", sop_class: str = CT) -> bytes:
    """A small Explicit VR Little Endian data set that names its class and instance, then `more`."""
    return explicit(0x00080016, "UI", even(sop_class)) + explicit(0x00080018, "UI", even(uid)) + more


class Answer(NamedTuple):
    """A response's command set."""

    field: int
    message_id: int
    status: int
    sop_instance_uid: str


def answers(body: bytes) -> list[Answer]:
    """The responses in one P-DATA-TF."""
    found, at = [], 0
    while at + 6 <= len(body):
        (length,) = struct.unpack_from(">I", body, at)
        payload, at = body[at + 6 : at + 4 + length], at + 4 + length
        values, place = {}, 0
        while place + 8 <= len(payload):
            _, number, count = struct.unpack_from("<HHI", payload, place)
            values[number] = payload[place + 8 : place + 8 + count]
            place += 8 + count
        numbers = [int.from_bytes(values.get(key, b""), "little") for key in (0x0100, 0x0120, 0x0900)]
        found.append(Answer(*numbers, values.get(0x1000, b"").decode("latin-1").strip("\0 ")))
    return found


def abort_reason(got: tuple[int, bytes] | None) -> tuple[int, int] | None:
    """(source, reason) of an A-ABORT; None for anything else."""
    return (got[1][2], got[1][3]) if got is not None and got[0] == ABORT else None


class Wire:
    """One raw connection; what it read is remembered, so that nobody can overlook a success."""

    def __init__(self, port: int, source: str = "127.0.0.2", tls: ssl.SSLContext | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10, (source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.answered: list[Answer] = []
        self._buffer = bytearray()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, *blocks: bytes) -> Wire:
        self.socket.settimeout(30)
        self.socket.sendall(b"".join(blocks))
        return self

    def try_send(self, *blocks: bytes) -> bool:
        """False when the peer does not take any more."""
        try:
            self.send(*blocks)
        except OSError:
            return False
        return True

    def read(self, within_s: float = 30.0) -> tuple[int, bytes] | None:
        """The next PDU (type, body); None when the peer closed; TimeoutError when neither came."""
        deadline = time.monotonic() + within_s
        while (whole := self._whole()) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"neither a PDU nor a close within {within_s} s")
            self.socket.settimeout(left)
            try:
                block = self.socket.recv(65536)
            except (ConnectionResetError, ssl.SSLError):
                block = b""
            if not block:
                return None
            self._buffer += block
        if whole[0] == P_DATA:
            self.answered += answers(whole[1])
        return whole

    def _whole(self) -> tuple[int, bytes] | None:
        if len(self._buffer) < 6:
            return None
        kind, length = struct.unpack_from(">BxI", self._buffer)
        if len(self._buffer) < 6 + length:
            return None
        body = bytes(self._buffer[6 : 6 + length])
        del self._buffer[: 6 + length]
        return kind, body

    def rest(self, within_s: float = 30.0) -> list[tuple[int, bytes]]:
        """Every PDU until the peer closes."""
        got, deadline = [], time.monotonic() + within_s
        while (one := self.read(max(0.01, deadline - time.monotonic()))) is not None:
            got.append(one)
        return got

    def associate(self, contexts=STORAGE, **told) -> Wire:
        """Open an association; fails when it is not accepted."""
        self.send(associate_rq(contexts, **told))
        got = self.read()
        assert got is not None and got[0] == ASSOCIATE_AC, f"not accepted: {got}"
        return self

    def status(self, within_s: float = 30.0) -> int:
        """The status of the next response; fails when something else comes."""
        got = self.read(within_s)
        assert got is not None and got[0] == P_DATA, f"no response but {got}"
        return self.answered[-1].status

    def store(self, uid, body: bytes, number: int = 1, message_id: int = 1, sop_class=CT, piece: int = 16000) -> int:
        self.send(*store(uid, body, number, message_id, piece, sop_class))
        return self.status()

    def release(self) -> None:
        self.send(pdu(RELEASE_RQ))
        got = self.read()
        assert got is not None and got[0] == RELEASE_RP, f"not released: {got}"
        self.close()

    def half_close(self) -> None:
        """Say that nothing more comes (FIN), and stay able to read."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the peer was faster

    def reset(self) -> None:
        """Break off with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()


def verify(port: int, source: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> float:
    """One C-ECHO on an association of its own: how long it took, in seconds."""
    started = time.monotonic()
    with Wire(port, source, tls) as wire:
        wire.associate(((5, VERIFICATION, (IMPLICIT,)),)).send(echo())
        status = wire.status()
        assert status == 0, f"C-ECHO answered 0x{status:04X}"
        wire.release()
    return time.monotonic() - started


class Custody(NamedTuple):
    """An object on a shelf, read by this file alone."""

    preamble: bytes
    label: dict
    body: bytes
    path: Path


def read_custody(path: Path) -> Custody:
    """Part a stored file into preamble, label (0002,0102) and data set."""
    content, at, label = path.read_bytes(), 144, b"{}"
    assert content[128:140] == b"DICM\x02\x00\x00\x00UL\x04\x00", f"no Part 10 file: {path.name}"
    end = at + int.from_bytes(content[140:144], "little")
    while at < end:
        if content[at + 4 : at + 6] in (b"OB", b"UN"):
            start, (count,) = at + 12, struct.unpack_from("<I", content, at + 8)
        else:
            start, (count,) = at + 8, struct.unpack_from("<H", content, at + 6)
        if content[at + 2 : at + 4] == b"\x02\x01":
            label = content[start : start + count]
        at = start + count
    return Custody(content[:128], json.loads(label), content[at:], path)


def shelves(data_dir: Path) -> dict[str, Custody]:
    """SHA-256 of the data set -> object, of everything on the shelves."""
    found = (read_custody(path) for path in (data_dir / "objects").rglob("*.dcm"))
    return {hashlib.sha256(one.body).hexdigest(): one for one in found}


class Message(NamedTuple):
    """A C-STORE whose data set was sent to its last fragment."""

    message_id: int
    sop_instance_uid: str
    body: bytes


def fragments(sent: bytes) -> list[tuple[int, bytes]]:
    """(message control header, payload) of every PDV that is there to its end, as far as the bytes can be followed."""
    found, at = [], 0
    while at + 6 <= len(sent) and 1 <= sent[at] <= 7:
        kind, length = struct.unpack_from(">BxI", sent, at)
        at, end = at + 6, at + 6 + length
        while kind == P_DATA and at < end:
            if at + 6 > len(sent):
                return found
            count, _, flags = struct.unpack_from(">IBB", sent, at)
            if count < 2 or at + 4 + count > min(end, len(sent)):
                return found
            found.append((flags, sent[at + 6 : at + 4 + count]))
            at += 4 + count
        at = end
    return found


def read_elements(content: bytes) -> dict[int, bytes]:
    """The elements of group 0000 in a command set, as far as they can be followed."""
    found, at = {}, 0
    while at + 8 <= len(content):
        group, number, count = struct.unpack_from("<HHI", content, at)
        if group == 0:
            found[number] = content[at + 8 : at + 8 + count]
        at += 8 + count
    return found


def whole_messages(sent: bytes) -> list[Message]:
    """Every C-STORE that a tolerant reader finds whole in what was sent: no other may ever be told a success."""
    found, order, current = [], bytearray(), None
    for flags, payload in fragments(sent):
        if flags & COMMAND:
            order += payload
            if flags & LAST:
                values, order, current = read_elements(bytes(order)), bytearray(), None
                numbers = [int.from_bytes(values.get(key, b"")[:2], "little") for key in (0x0100, 0x0110)]
                uids = [values.get(key, b"").decode("latin-1").strip("\0 ") for key in (0x1000, 0x1001)]
                if numbers[0] == C_STORE_RQ:
                    current = (numbers[1], uids[0] or uids[1], bytearray())
        elif current is not None:
            current[2].extend(payload)
            if flags & LAST:
                found.append(Message(current[0], current[1], bytes(current[2])))
                current = None
    return found
