"""As much of MQTT 5 as somebody needs who only tells: CONNECT with a will, PUBLISH, PINGREQ, DISCONNECT.

Pure. `fleet simulate` holds thousands of connections on one thread, which no client library does; the numbers are those
of the OASIS standard MQTT 5.0 (section in brackets).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

CONNACK, PUBACK, PINGRESP, DISCONNECT = 0x20, 0x40, 0xD0, 0xE0
"""First byte of the packets that may come to us (2.1.2)."""
PINGREQ = b"\xc0\x00"
FAILURE = 0x80
"""Reason codes from here on are failures (2.4)."""
MAX_INCOMING = 65536
_RECEIVE_MAXIMUM = 0x21
_SIZES = {0x24: 1, 0x25: 1, 0x28: 1, 0x29: 1, 0x2A: 1, 0x13: 2, 0x21: 2, 0x22: 2, 0x11: 4, 0x27: 4}
"""Bytes of the properties of a CONNACK that have a fixed length (2.2.2.2); all others are strings."""


class WireFault(Exception):
    """What came is not MQTT 5, or longer than anybody has a reason to send us."""


@dataclass(frozen=True, slots=True)
class Publication:
    """A message as it is published, or as the broker shall publish it when we are gone."""

    topic: str
    payload: bytes
    schema: str = ""
    qos: int = 1
    retain: bool = True
    expiry_s: int | None = None


def _length(number: int) -> bytes:
    """Variable byte integer (1.5.5)."""
    found = bytearray()
    while True:
        number, low = divmod(number, 128)
        found.append(low | (0x80 if number else 0))
        if not number:
            return bytes(found)


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack(">H", len(raw)) + raw


def _blob(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + _length(len(body)) + body


def _properties(message: Publication) -> bytes:
    """Message expiry, content type, and which schema it has (3.3.2.3)."""
    found = b"" if message.expiry_s is None else b"\x02" + struct.pack(">I", message.expiry_s)
    if message.payload:
        found += b"\x03" + _text("application/json")
        found += b"\x26" + _text("schema") + _text(f"{message.schema}.v1")
    return found


def connect(
    client_id: str,
    keepalive_s: int,
    session_expiry_s: int,
    will: Publication,
    will_delay_s: int,
    user: str | None = None,
    password: bytes | None = None,
) -> bytes:
    """Return a CONNECT that goes on with an earlier session (3.1)."""
    flags = 0x04 | will.qos << 3 | (0x20 if will.retain else 0)
    flags |= (0x80 if user is not None else 0) | (0x40 if password is not None else 0)
    properties = b"\x11" + struct.pack(">I", session_expiry_s)
    will_properties = b"\x18" + struct.pack(">I", will_delay_s) + _properties(will)
    body = _text("MQTT") + bytes((5, flags)) + struct.pack(">H", keepalive_s) + _length(len(properties)) + properties
    body += _text(client_id) + _length(len(will_properties)) + will_properties + _text(will.topic) + _blob(will.payload)
    if user is not None:
        body += _text(user)
    if password is not None:
        body += _blob(password)
    return _packet(0x10, body)


def publish(message: Publication, packet_id: int) -> bytes:
    """Return a PUBLISH; `packet_id` counts only with QoS 1 (3.3)."""
    first = 0x30 | message.qos << 1 | (1 if message.retain else 0)
    properties = _properties(message)
    body = _text(message.topic) + (struct.pack(">H", packet_id) if message.qos else b"")
    return _packet(first, body + _length(len(properties)) + properties + message.payload)


def disconnect(session_expiry_s: int) -> bytes:
    """Return a DISCONNECT without the will; the session ends so long afterwards (3.14)."""
    return _packet(DISCONNECT, b"\x00\x05\x11" + struct.pack(">I", session_expiry_s))


class Reader:
    """Cuts what comes into packets."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, block: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the first byte and the body of each whole packet; raises WireFault."""
        self._rest += block
        while (found := self._one()) is not None:
            yield found

    def _one(self) -> tuple[int, bytes] | None:
        length = shift = 0
        for at in range(1, min(5, len(self._rest))):
            length |= (self._rest[at] & 0x7F) << shift
            shift += 7
            if not self._rest[at] & 0x80:
                break
        else:
            if len(self._rest) > 4:
                raise WireFault("a length without an end")
            return None
        if length > MAX_INCOMING:
            raise WireFault("a packet that is too long")
        end = at + 1 + length
        if len(self._rest) < end:
            return None
        packet, self._rest = (self._rest[0], self._rest[at + 1 : end]), self._rest[end:]
        return packet


def welcome(body: bytes) -> tuple[int, int]:
    """Return reason code and Receive Maximum of a CONNACK (3.2); raises WireFault."""
    try:
        reason, window, at = body[1], 65535, 3
        end = at + body[2]  # more than 127 bytes of properties would take a second byte: no number is read then
        while body[2] < 128 and at < end:
            name, at = body[at], at + 1
            if name == _RECEIVE_MAXIMUM:
                window = struct.unpack_from(">H", body, at)[0]
            if name in _SIZES:
                at += _SIZES[name]
            else:
                for _ in range(2 if name == 0x26 else 1):
                    at += 2 + struct.unpack_from(">H", body, at)[0]
    except (IndexError, struct.error):
        raise WireFault("a CONNACK that is none") from None
    return reason, max(1, window)


def acknowledged(body: bytes) -> tuple[int, int]:
    """Return packet id and reason code of a PUBACK (3.4); raises WireFault."""
    if len(body) < 2:
        raise WireFault("a PUBACK that is none")
    return struct.unpack_from(">H", body)[0], body[2] if len(body) > 2 else 0
