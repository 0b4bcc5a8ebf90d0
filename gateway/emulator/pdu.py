"""DICOM as bytes: PDUs of the upper layer (PS3.8 9.3) and command sets (PS3.7 6.3). Pure, and able to lie."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
COMMAND, LAST = 1, 2
"""Bits of a PDV's message control header (PS3.8 E.2)."""
C_STORE, C_FIND, N_EVENT_REPORT, N_SET, N_ACTION, N_CREATE, C_CANCEL = (
    0x0001,
    0x0020,
    0x0100,
    0x0120,
    0x0130,
    0x0140,
    0x0FFF,
)
RESPONSE = 0x8000
NO_DATA_SET = 0x0101
APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
# Elements of group 0000.
CLASS, REQUESTED_CLASS, FIELD, MESSAGE, ANSWERED, PRIORITY, DATA_SET, STATUS = (
    0x0002,
    0x0003,
    0x0100,
    0x0110,
    0x0120,
    0x0700,
    0x0800,
    0x0900,
)
INSTANCE, REQUESTED_INSTANCE, EVENT_TYPE, ACTION_TYPE = 0x1000, 0x1001, 0x1002, 0x1008


@dataclass(frozen=True, slots=True)
class Context:
    """One presentation context that is proposed."""

    number: int
    abstract: bytes
    syntaxes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """One command set and its data set, as they came."""

    command: dict[int, bytes]
    data: bytes
    context: int

    def number(self, element: int) -> int:
        """Return an element of the command set as a number; 0 when it is not there."""
        return int.from_bytes(self.command.get(element, b""), "little")

    def uid(self, element: int) -> str:
        """Return an element of the command set as a UID."""
        return self.command.get(element, b"").decode("latin-1").strip("\0 ")


def pdu(kind: int, body: bytes = bytes(4)) -> bytes:
    """Return one PDU."""
    return struct.pack(">BxI", kind, len(body)) + body


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def associate_rq(
    contexts: Sequence[Context], calling: bytes, called: bytes, max_pdu: int, reserved: int = 0, roles: bytes = b""
) -> bytes:
    """Return an A-ASSOCIATE-RQ; both titles have 16 bytes."""
    body = struct.pack(">Hxx", 1) + called + calling + bytes([reserved]) * 32 + _item(0x10, APPLICATION_CONTEXT)
    for one in contexts:
        syntaxes = b"".join(_item(0x40, uid) for uid in one.syntaxes)
        body += _item(0x20, bytes((one.number, 0, 0, 0)) + _item(0x30, one.abstract) + syntaxes)
    user = _item(0x51, struct.pack(">I", max_pdu)) + _item(0x52, b"2.25.77") + roles + _item(0x55, b"EMULATOR")
    return pdu(ASSOCIATE_RQ, body + _item(0x50, user))


def proposed(body: bytes) -> Iterator[tuple[Context | None, bytes]]:
    """Yield each context that an A-ASSOCIATE-RQ proposes, and each role selection item of it as it came."""
    for kind, value in _parts(body[68:]):
        if kind == 0x20:
            parts = list(_parts(value[4:]))
            abstract = next((one for sub, one in parts if sub == 0x30), b"")
            yield Context(value[0], abstract, tuple(one for sub, one in parts if sub == 0x40)), b""
        elif kind == 0x50:
            for sub, one in _parts(value):
                if sub == 0x54:
                    yield None, _item(0x54, one)


def _parts(body: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(body):
        length = int.from_bytes(body[at + 2 : at + 4], "big")
        yield body[at], body[at + 4 : at + 4 + length]
        at += 4 + length


def answered_context(number: int, syntax: bytes | None) -> bytes:
    """Return what an A-ASSOCIATE-AC says of a context: the Transfer Syntax that was taken, or that none was."""
    result = 0 if syntax is not None else 4
    return _item(
        0x21, bytes((number, 0, result, 0)) + _item(0x40, syntax if syntax is not None else b"1.2.840.10008.1.2")
    )


def associate_ac(fixed: bytes, contexts: bytes, max_pdu: int, roles: bytes) -> bytes:
    """Return the body of an A-ASSOCIATE-AC; `fixed` are the first 68 bytes of the request."""
    user = _item(0x51, struct.pack(">I", max_pdu)) + _item(0x52, b"2.25.77") + roles + _item(0x55, b"EMULATOR")
    return fixed + _item(0x10, APPLICATION_CONTEXT) + contexts + _item(0x50, user)


def roles(abstract: str, *, scu: bool, scp: bool) -> bytes:
    """Return a role selection item (PS3.7 D.3.3.4)."""
    uid = abstract.encode()
    return _item(0x54, struct.pack(">H", len(uid)) + uid + bytes((scu, scp)))


def accepted(body: bytes) -> tuple[dict[int, str], int]:
    """Return of an A-ASSOCIATE-AC what each accepted context took as Transfer Syntax, and the peer's longest PDU."""
    found: dict[int, str] = {}
    longest, at = 0, 68
    while at + 4 <= len(body):
        kind, length = body[at], int.from_bytes(body[at + 2 : at + 4], "big")
        value, at = body[at + 4 : at + 4 + length], at + 4 + length
        if kind == 0x21 and value[2] == 0:
            found[value[0]] = value[8:].decode("latin-1").strip("\0 ")
        elif kind == 0x50 and value[:1] == b"\x51":
            longest = int.from_bytes(value[4:8], "big")
    return found, longest


def pdv(context: int, flags: int, payload: bytes) -> bytes:
    """Return one PDV item."""
    return struct.pack(">IBB", len(payload) + 2, context, flags) + payload


def even(text: str | bytes) -> bytes:
    """Return a UID as a command set has it."""
    value = text.encode("latin-1") if isinstance(text, str) else text
    return value + b"\0" * (len(value) % 2)


def us(value: int) -> bytes:
    """Return an unsigned short."""
    return struct.pack("<H", value)


def command(elements: dict[int, bytes]) -> bytes:
    """Return a command set, Implicit VR Little Endian, with its group length."""
    body = b"".join(struct.pack("<HHI", 0, key, len(value)) + value for key, value in sorted(elements.items()))
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def read_command(content: bytes) -> dict[int, bytes]:
    """Return the elements of a command set, as far as they can be followed."""
    found, at = {}, 0
    while at + 8 <= len(content):
        _, element, length = struct.unpack_from("<HHI", content, at)
        found[element] = content[at + 8 : at + 8 + length]
        at += 8 + length
    return found


def message(
    context: int, elements: dict[int, bytes], data: bytes | None, piece: int, *, one: bool = False
) -> Iterator[bytes]:
    """Yield the PDUs of one message; `piece` is the longest payload of a PDV, `one` joins the first two PDVs."""
    elements = {DATA_SET: us(NO_DATA_SET if data is None else 0x0001), **elements}
    first = pdv(context, COMMAND | LAST, command(elements))
    if data is None or not one:
        yield pdu(P_DATA, first)
        first = b""
    if data is not None:
        for at in range(0, max(1, len(data)), piece):
            flags = LAST if at + piece >= len(data) else 0
            yield pdu(P_DATA, first + pdv(context, flags, data[at : at + piece]))
            first = b""


def items(body: bytes) -> list[tuple[int, int, bytes]]:
    """Return (context, flags, payload) of each PDV of a P-DATA-TF."""
    found, at = [], 0
    while at + 6 <= len(body):
        length, context, flags = struct.unpack_from(">IBB", body, at)
        found.append((context, flags, body[at + 6 : at + 4 + length]))
        at += 4 + length
    return found
