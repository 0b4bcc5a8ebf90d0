"""DIMSE command sets (PS3.7 6.3, Annex E): always Implicit VR Little Endian, read bounded, written in order."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from gateway.dicom.negotiation import Malformed

C_STORE_RQ, C_FIND_RQ, C_ECHO_RQ, C_CANCEL_RQ = 0x0001, 0x0020, 0x0030, 0x0FFF
N_EVENT_REPORT_RQ, N_ACTION_RQ = 0x0100, 0x0130
RESPONSE = 0x8000
NO_DATA_SET = 0x0101
DATA_SET_FOLLOWS = 0x0001
MAX_COMMAND_BYTES = 16 * 1024
_TYPE_ID = {N_EVENT_REPORT_RQ: 0x1002, N_ACTION_RQ: 0x1008}
MAX_COMMENT = 64
"""Characters of an Error Comment, a Long String."""
MIN_PDV_BYTES, MAX_PDV_BYTES = 1024, 64 * 1024
"""A peer that announces less than the first gets more than it announced: it could not read the command either."""


@dataclass(frozen=True, slots=True)
class Command:
    """What a request says."""

    field: int
    message_id: int
    has_data_set: bool
    affected_sop_class_uid: str
    affected_sop_instance_uid: str
    priority: int
    type_id: int
    """Event Type ID or Action Type ID (PS3.7 10.1.1, 10.1.4); 0 without one."""
    answers: int = 0
    """Of a response: the Message ID of the request."""
    status: int = 0
    """Of a response."""


@dataclass(frozen=True, slots=True)
class Response:
    """A DIMSE response; `comment` tells the peer's log why (0000,0902), `data_set` is in the context's syntax."""

    status: int
    comment: str = ""
    data_set: bytes | None = None


def read_command(body: bytes) -> Command:
    """Read a command set; raises Malformed."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 8 <= len(body):
        group, element, length = struct.unpack_from("<HHI", body, at)
        if length > len(body) - at - 8:
            raise Malformed("a command element is longer than the command")
        if group == 0:
            found[element] = body[at + 8 : at + 8 + length]
        at += 8 + length

    def number(element: int, default: int | None = None) -> int:
        value = found.get(element, b"")
        if len(value) < 2:
            if default is None:
                raise Malformed("the command lacks an element")
            return default
        return int(struct.unpack_from("<H", value)[0])

    def uid(element: int) -> str:
        return found.get(element, b"").decode("latin-1").strip("\0 ")

    return Command(
        number(0x0100),
        number(0x0110, 0),
        number(0x0800, NO_DATA_SET) != NO_DATA_SET,
        uid(0x0002) or uid(0x0003),
        uid(0x1000) or uid(0x1001),
        number(0x0700, 0),
        number(0x1002, 0) or number(0x1008, 0),
        number(0x0120, 0),
        number(0x0900, 0),
    )


def _element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, number, len(value)) + value


def _padded(text: str, pad: bytes) -> bytes:
    value = text.encode("latin-1", "replace")
    return value + pad * (len(value) % 2)


def request_command(field: int, message_id: int, sop_class_uid: str, instance: str = "", type_id: int = 0) -> bytes:
    """Return the command set of a request (PS3.7 9.3, 10.3); all but C-ECHO have a data set.

    `type_id` is that of an N-EVENT-REPORT or an N-ACTION; the latter is requested of an instance, not about one.
    """
    requested = field == N_ACTION_RQ
    parts = {
        0x0003 if requested else 0x0002: _padded(sop_class_uid, b"\0"),
        0x0100: struct.pack("<H", field),
        0x0110: struct.pack("<H", message_id),
        0x0800: struct.pack("<H", NO_DATA_SET if field == C_ECHO_RQ else DATA_SET_FOLLOWS),
    }
    if field in (C_STORE_RQ, C_FIND_RQ):
        parts[0x0700] = struct.pack("<H", 0)
    if instance:
        parts[0x1001 if requested else 0x1000] = _padded(instance, b"\0")
    if field in _TYPE_ID:
        parts[_TYPE_ID[field]] = struct.pack("<H", type_id)
    body = b"".join(_element(number, value) for number, value in sorted(parts.items()))
    return _element(0x0000, struct.pack("<I", len(body))) + body


def request_pdus(context_id: int, command: bytes, data_set: bytes, max_pdu_bytes: int) -> bytes:
    """Return the P-DATA-TF PDUs of a request with a data set, cut as in `response_pdus`."""
    return data_pdu(context_id, 0x03, command) + _data_set_pdus(context_id, data_set, max_pdu_bytes)


def response_pdus(context_id: int, request: Command, response: Response, max_pdu_bytes: int) -> bytes:
    """Return the P-DATA-TF PDUs of a response; its data set is cut to what the peer takes (PS3.8 D.1, 0: no limit)."""
    elements = [
        _element(0x0002, _padded(request.affected_sop_class_uid, b"\0")) if request.affected_sop_class_uid else b"",
        _element(0x0100, struct.pack("<H", request.field | RESPONSE)),
        _element(0x0120, struct.pack("<H", request.message_id)),
        _element(0x0800, struct.pack("<H", NO_DATA_SET if response.data_set is None else DATA_SET_FOLLOWS)),
        _element(0x0900, struct.pack("<H", response.status)),
        _element(0x0902, _padded(response.comment[:MAX_COMMENT], b" ")) if response.comment else b"",
    ]
    if request.affected_sop_instance_uid:
        elements.append(_element(0x1000, _padded(request.affected_sop_instance_uid, b"\0")))
    if request.field in _TYPE_ID and response.status == 0:
        elements.append(_element(_TYPE_ID[request.field], struct.pack("<H", request.type_id)))
    body = b"".join(elements)
    pdus = data_pdu(context_id, 0x03, _element(0x0000, struct.pack("<I", len(body))) + body)
    if response.data_set is None:
        return pdus
    return pdus + _data_set_pdus(context_id, response.data_set, max_pdu_bytes)


def _data_set_pdus(context_id: int, data_set: bytes, max_pdu_bytes: int) -> bytes:
    size = max(MIN_PDV_BYTES, min(max_pdu_bytes or MAX_PDV_BYTES, MAX_PDV_BYTES) - 6)
    pieces = [data_set[at : at + size] for at in range(0, len(data_set), size)] or [b""]
    last = len(pieces) - 1
    return b"".join(data_pdu(context_id, 0x02 * (n == last), piece) for n, piece in enumerate(pieces))


def data_pdu(context_id: int, flags: int, payload: bytes | memoryview) -> bytes:
    """Return a P-DATA-TF PDU of one PDV (PS3.8 9.3.5); flags: 1 a command, 2 the last fragment."""
    return struct.pack(">BBIIBB", 0x04, 0, len(payload) + 6, len(payload) + 2, context_id, flags) + payload
