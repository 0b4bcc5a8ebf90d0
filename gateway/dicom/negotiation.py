"""A-ASSOCIATE-RQ read, A-ASSOCIATE-AC and -RJ written (PS3.8 9.3, PS3.7 Annex D). Pure, bounded, tolerant.

Reserved bytes are not tested (PS3.8 9.3.1), AE titles may be blank, items we do not know are stepped over.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from gateway.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from gateway.model.transfer_syntax import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, VERIFICATION_SOP_CLASS

APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
ACCEPTANCE, ABSTRACT_SYNTAX_NOT_SUPPORTED, TRANSFER_SYNTAXES_NOT_SUPPORTED = 0, 3, 4
FIXED_BYTES = 68

_NOT_STORAGE = (
    "1.2.840.10008.1.3.10",  # Media Storage Directory
    "1.2.840.10008.1.9",  # Study Content Notification
    "1.2.840.10008.1.20.",  # Storage Commitment
    "1.2.840.10008.1.40",  # Procedural Event Logging
    "1.2.840.10008.1.42",  # Substance Administration Logging
    "1.2.840.10008.3.1.2.",  # Detached management, MPPS
    "1.2.840.10008.5.1.4.1.2.",  # Query/Retrieve
    "1.2.840.10008.5.1.4.31",  # Modality Worklist
    "1.2.840.10008.5.1.4.32.",  # General Purpose Worklist
    "1.2.840.10008.5.1.4.33",  # Instance Availability Notification
    "1.2.840.10008.5.1.4.34.4.",  # Unified Procedure Step, trial
    "1.2.840.10008.5.1.4.34.5",
    "1.2.840.10008.5.1.4.34.6.",  # Unified Procedure Step
    "1.2.840.10008.5.1.4.37.",  # Relevant Patient Information
    "1.2.840.10008.5.1.4.41",  # Product Characteristics
    "1.2.840.10008.5.1.4.42",  # Substance Approval
    *(f"1.2.840.10008.5.1.4.{n}.{q}" for n in (38, 39, 43, 44, 45) for q in (2, 3, 4)),  # their query models
)
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model SOP Class (PS3.4 Annex J)."""
READABLE = frozenset((IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE))
"""Transfer Syntaxes of data sets that we must understand ourselves; what is stored is not among them."""
_PRINT = "1.2.840.10008.5.1.1."
_STORED_PRINT = frozenset(f"{_PRINT}{n}" for n in (27, 29, 30))


def is_storage(abstract_syntax: str) -> bool:
    """True for every SOP class that is not known to be something else: new and private ones are storage to us."""
    if abstract_syntax == VERIFICATION_SOP_CLASS or not abstract_syntax:
        return False
    if abstract_syntax.startswith(_PRINT):
        return abstract_syntax in _STORED_PRINT
    return not abstract_syntax.startswith(_NOT_STORAGE)


class Malformed(Exception):
    """The bytes are not what the standard says they should be."""


@dataclass(frozen=True, slots=True)
class ProposedContext:
    """One presentation context of a request."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """What an A-ASSOCIATE-RQ asks for."""

    called_ae_title: str
    calling_ae_title: str
    contexts: tuple[ProposedContext, ...]
    max_pdu_bytes: int
    """0: the peer sets no limit (PS3.8 D.1)."""
    roles: dict[str, tuple[bool, bool]]
    """SOP Class UID -> whether the requestor would be (SCU, SCP) of it (PS3.7 D.3.3.4)."""
    titles: bytes
    """The 64 bytes of titles and reserved field, to be sent back as they came."""


@dataclass(frozen=True, slots=True)
class Context:
    """What became of a proposed context."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str
    result: int


def _items(body: bytes) -> list[tuple[int, bytes]]:
    items, at = [], 0
    while at + 4 <= len(body):
        kind, length = body[at], struct.unpack_from(">H", body, at + 2)[0]
        if at + 4 + length > len(body):
            raise Malformed("an item is longer than what holds it")
        items.append((kind, body[at + 4 : at + 4 + length]))
        at += 4 + length
    return items


def _text(value: bytes) -> str:
    return value.decode("latin-1").replace("\0", " ").strip()


def read_request(body: bytes) -> Request:
    """Read what follows the six header bytes of an A-ASSOCIATE-RQ; raises Malformed."""
    if len(body) < FIXED_BYTES:
        raise Malformed("the request is too short")
    contexts, max_pdu, roles = [], 0, {}
    for kind, value in _items(body[FIXED_BYTES:]):
        if kind == 0x20 and len(value) >= 4:
            parts = _items(value[4:])
            abstract = next((_text(part) for code, part in parts if code == 0x30), "")
            syntaxes = tuple(_text(part) for code, part in parts if code == 0x40)
            contexts.append(ProposedContext(value[0], abstract, syntaxes))
        elif kind == 0x50:
            for code, part in _items(value):
                if code == 0x51 and len(part) == 4:
                    max_pdu = struct.unpack(">I", part)[0]
                elif code == 0x54 and len(part) >= 4:
                    roles[_text(part[2:-2])] = (part[-2] == 1, part[-1] == 1)
    return Request(_text(body[4:20]), _text(body[20:36]), tuple(contexts), max_pdu, roles, body[4:68])


def decide(proposed: ProposedContext, *, offered: bool) -> Context:
    """Take an offered class in the requestor's first Transfer Syntax: we store any without decoding it."""
    abstract = proposed.abstract_syntax
    any_serves = abstract == VERIFICATION_SOP_CLASS or is_storage(abstract)
    syntax = next((uid for uid in proposed.transfer_syntaxes if uid and (any_serves or uid in READABLE)), "")
    result = ACCEPTANCE
    if not offered:
        result = ABSTRACT_SYNTAX_NOT_SUPPORTED
    elif not syntax:
        result = TRANSFER_SYNTAXES_NOT_SUPPORTED
    return Context(proposed.context_id, proposed.abstract_syntax, syntax, result)


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(value)) + value


def role_item(sop_class_uid: str, *, scu: bool, scp: bool) -> bytes:
    """Return a role selection item: what the requestor would be, or may be (PS3.7 D.3.3.4)."""
    uid = sop_class_uid.encode("latin-1")
    return _item(0x54, struct.pack(">H", len(uid)) + uid + bytes((scu, scp)))


def _agreed_roles(request: Request, contexts: list[Context]) -> bytes:
    """Answer to role selection for the one class that we serve in both roles; for others the default stands."""
    accepted = any(c.abstract_syntax == STORAGE_COMMITMENT and c.result == ACCEPTANCE for c in contexts)
    if STORAGE_COMMITMENT not in request.roles or not accepted:
        return b""
    scu, scp = request.roles[STORAGE_COMMITMENT]
    return role_item(STORAGE_COMMITMENT, scu=scu, scp=scp)


def accept_pdu(request: Request, contexts: list[Context], max_pdu_bytes: int) -> bytes:
    """Return the A-ASSOCIATE-AC PDU (PS3.8 9.3.3)."""
    results = b"".join(
        _item(0x21, bytes((c.context_id, 0, c.result, 0)) + _item(0x40, c.transfer_syntax.encode("latin-1")))
        for c in contexts
    )
    user = (
        _item(0x51, struct.pack(">I", max_pdu_bytes))
        + _item(0x52, IMPLEMENTATION_CLASS_UID.encode())
        + _agreed_roles(request, contexts)
        + _item(0x55, IMPLEMENTATION_VERSION_NAME.encode())
    )
    body = struct.pack(">HH", 1, 0) + request.titles + _item(0x10, APPLICATION_CONTEXT) + results + _item(0x50, user)
    return struct.pack(">BBI", 0x02, 0, len(body)) + body


def reject_pdu(result: int, source: int, reason: int) -> bytes:
    """Return the A-ASSOCIATE-RJ PDU (PS3.8 table 9-21)."""
    return struct.pack(">BBIBBBB", 0x03, 0, 4, 0, result, source, reason)


def abort_pdu(source: int = 2, reason: int = 0) -> bytes:
    """Return the A-ABORT PDU (PS3.8 9.3.8); source 2 is the service provider."""
    return struct.pack(">BBIBBBB", 0x07, 0, 4, 0, 0, source, reason)


RELEASE_RQ = struct.pack(">BBII", 0x05, 0, 4, 0)
RELEASE_RP = struct.pack(">BBII", 0x06, 0, 4, 0)
