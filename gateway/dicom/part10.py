"""Part 10 files and data set headers, without decoding: PS3.10 section 7, PS3.5 section 7.

The header scanner is iterative and bounded: it looks at no more than the bytes it is given, at no more than
`MAX_DEPTH` nested sequences, and stops at the last tag it wants. A parser for everything met hostile input badly.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO, NamedTuple

from gateway.model.instance import Header
from gateway.model.transfer_syntax import (
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    is_big_endian,
    is_implicit,
)

IMPLEMENTATION_CLASS_UID = "2.25.113246862219370283204412360124116216237"
IMPLEMENTATION_VERSION_NAME = "DICOM_EDGE_GW_1"
PREFIX_BYTES = 64 * 1024
"""As much of a data set as the scanner is shown; real headers have what routing needs in the first 4 KiB."""
MAX_DEPTH = 64
MAX_META_BYTES = 1 << 20

LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
SHORT_VRS = frozenset(
    {
        b"AE",
        b"AS",
        b"AT",
        b"CS",
        b"DA",
        b"DS",
        b"DT",
        b"FD",
        b"FL",
        b"IS",
        b"LO",
        b"LT",
        b"PN",
        b"SH",
        b"SL",
        b"SS",
    }
    | {b"ST", b"TM", b"UI", b"UL", b"US"}
)
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_STRUCTURE = frozenset((ITEM, ITEM_END, SEQUENCE_END))
_WANTED = {
    0x00080016: "sop_class_uid",
    0x00080018: "sop_instance_uid",
    0x00080060: "modality",
    0x0020000D: "study_instance_uid",
    0x0020000E: "series_instance_uid",
}
MAX_VALUE_BYTES = 128
"""As much of one value as is looked at."""


def _text(value: bytes) -> str:
    """Return a UID or code string without its padding, whatever bytes it has."""
    return value.decode("latin-1").strip("\0 ")


@dataclass(frozen=True, slots=True)
class MetaFacts:
    """What a file's File Meta Information says; empty strings where it is silent."""

    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    dataset_offset: int
    """Where the data set begins, in bytes from the start of the file."""
    private: bytes | None = None
    """Private Information (0002,0102)."""


def element_bytes(tag: int, vr: bytes, value: bytes, transfer_syntax_uid: str = EXPLICIT_LE) -> bytes:
    """Return an element in a native Transfer Syntax, its value padded to an even length (PS3.5 6.2, 7.1)."""
    order = ">" if is_big_endian(transfer_syntax_uid) else "<"
    if len(value) % 2:
        value += b"\0" if vr in (b"UI", b"OB") else b" "
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    if is_implicit(transfer_syntax_uid):
        return head + struct.pack(f"{order}I", len(value)) + value
    if vr in LONG_VRS:
        return head + vr + struct.pack(f"{order}HI", 0, len(value)) + value
    return head + vr + struct.pack(f"{order}H", len(value)) + value


@lru_cache(maxsize=256)
def _uid_element(tag: int, uid: str) -> bytes:
    """Return an element that is the same in the meta of most objects."""
    return element_bytes(tag, b"UI", uid.encode("latin-1", "replace"))


_VERSION = element_bytes(0x00020001, b"OB", b"\x00\x01")
_IMPLEMENTATION = _uid_element(0x00020012, IMPLEMENTATION_CLASS_UID) + element_bytes(
    0x00020013, b"SH", IMPLEMENTATION_VERSION_NAME.encode()
)


def meta_bytes(
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    *,
    source_ae: str = "",
    private: bytes | None = None,
) -> bytes:
    """Return preamble, prefix and File Meta Information (PS3.10 7.1), ready for a data set to follow verbatim."""
    elements = [
        _VERSION,
        _uid_element(0x00020002, sop_class_uid),
        element_bytes(0x00020003, b"UI", sop_instance_uid.encode("latin-1", "replace")),
        _uid_element(0x00020010, transfer_syntax_uid),
        _IMPLEMENTATION,
    ]
    if source_ae:
        elements.append(element_bytes(0x00020016, b"AE", source_ae.encode("latin-1", "replace")))
    if private is not None:
        elements.append(_uid_element(0x00020100, IMPLEMENTATION_CLASS_UID))
        elements.append(element_bytes(0x00020102, b"OB", private))
    body = b"".join(elements)
    return b"\0" * 128 + b"DICM" + element_bytes(0x00020000, b"UL", struct.pack("<I", len(body))) + body


def read_meta(file: BinaryIO) -> MetaFacts:
    """Read a file's meta, leaving the position undefined; raises ValueError when it is not a Part 10 file.

    The elements of group 0002 are walked, since (0002,0000) is wrong in files of several makers. Where it is right
    the walk ends with it: a data set may begin with elements of group 0002 too, and those are no meta of ours.
    """
    if file.read(132)[128:] != b"DICM":
        raise ValueError("no DICM prefix")
    found: dict[int, bytes] = {}
    offset, end = 132, 0
    while not (offset == end and 0x00020010 in found):
        file.seek(offset)
        head = file.read(12)
        if len(head) < 8 or head[:2] != b"\x02\x00":
            break
        tag = 0x00020000 | int.from_bytes(head[2:4], "little")
        vr = head[4:6]
        if vr in LONG_VRS:
            start, length = 12, int.from_bytes(head[8:12], "little")
        elif vr in SHORT_VRS:
            start, length = 8, int.from_bytes(head[6:8], "little")
        else:
            raise ValueError("File Meta Information is not in Explicit VR")
        if offset + start + length > MAX_META_BYTES:
            raise ValueError("File Meta Information is too long")
        file.seek(offset + start)
        found[tag] = file.read(length)
        offset += start + length
        if tag == 0x00020000:
            end = offset + int.from_bytes(found[tag], "little")
    if 0x00020010 not in found:
        raise ValueError("File Meta Information names no Transfer Syntax")
    uid = {tag: _text(found.get(tag, b"")) for tag in (0x00020002, 0x00020003, 0x00020010)}
    return MetaFacts(uid[0x00020010], uid[0x00020002], uid[0x00020003], offset, found.get(0x00020102))


def bare_syntax(prefix: bytes) -> str | None:
    """Guess the Transfer Syntax of a data set that came without meta; None when it does not look like one."""
    for uid, byte_order in ((IMPLICIT_LE, "<"), (EXPLICIT_BE, ">")):
        if len(prefix) < 8:
            return None
        group, element = struct.unpack_from(f"{byte_order}HH", prefix)
        if group not in (0x0008, 0x0004) or element > 0x1000:
            continue
        if prefix[4:6] in LONG_VRS | SHORT_VRS:
            return EXPLICIT_LE if uid == IMPLICIT_LE else EXPLICIT_BE
        if uid == IMPLICIT_LE and struct.unpack_from("<I", prefix, 4)[0] < PREFIX_BYTES:
            return IMPLICIT_LE
    return None


class RawValue(NamedTuple):
    """One element as it stands in the data set. A tuple: it is made for each wanted element of every object."""

    vr: bytes
    """Empty in Implicit VR."""
    length: int
    content: bytes
    """The first `MAX_VALUE_BYTES` at most; fewer than `length` also where the bytes shown to the scanner end."""


class _Malformed(Exception):
    """The bytes cannot be followed."""


_LITTLE_ENDIAN, _BIG_ENDIAN = ((struct.Struct(f"{order}HH2sH"), struct.Struct(f"{order}I")) for order in "<>")
"""Group, element, VR and a short length of an element; a long length."""


class _Scanner:
    """Walks elements; `_levels` holds, per open sequence of undefined length, whether its content is Implicit VR."""

    def __init__(self, data: bytes, wanted: Collection[int], *, implicit: bool, big_endian: bool) -> None:
        self._data = data
        self._wanted = wanted
        self._last_wanted = max(wanted)
        self._head, self._length = _BIG_ENDIAN if big_endian else _LITTLE_ENDIAN
        self._implicit = implicit
        self._levels: list[bool] = []
        self._at = 0
        self.found: dict[int, RawValue] = {}

    def _element_head(self) -> tuple[int, bytes, int] | None:
        """Return (tag, VR, length) and step behind it; None when the bytes end here."""
        data, at = self._data, self._at
        if at + 8 > len(data):
            return None
        group, element, vr, short = self._head.unpack_from(data, at)
        tag = group << 16 | element
        if self._implicit or tag in _STRUCTURE:
            self._at = at + 8
            return tag, b"", self._length.unpack_from(data, at + 4)[0]
        if vr in SHORT_VRS:
            self._at = at + 8
            return tag, vr, short
        if vr not in LONG_VRS:
            raise _Malformed("unknown VR")
        if at + 12 > len(data):
            return None
        self._at = at + 12
        return tag, vr, self._length.unpack_from(data, at + 8)[0]

    def scan(self, *, whole: bool) -> None:
        """Fill `found`; raises _Malformed, also when bytes that are the `whole` data set end within an element."""
        while (head := self._element_head()) is not None:
            tag, vr, length = head
            if tag in _STRUCTURE:
                self._structure(tag, length)
            elif length == UNDEFINED:
                if tag > self._last_wanted and not self._levels:
                    return
                self._open(implicit=True if vr == b"UN" else self._implicit)
            else:
                if not self._levels:
                    if tag > self._last_wanted:
                        return
                    if tag in self._wanted:
                        content = self._data[self._at : self._at + min(length, MAX_VALUE_BYTES)]
                        self.found[tag] = RawValue(vr, length, content)
                self._at += length
        if whole and (self._at != len(self._data) or self._levels):
            raise _Malformed("the data set ends within an element")

    def _open(self, *, implicit: bool) -> None:
        if len(self._levels) >= MAX_DEPTH:
            raise _Malformed("sequences nested too deeply")
        self._levels.append(self._implicit)
        self._implicit = implicit

    def _structure(self, tag: int, length: int) -> None:
        if not self._levels:
            raise _Malformed("an item outside a sequence")
        if tag != ITEM:
            self._implicit = self._levels.pop()
        elif length == UNDEFINED:
            self._open(implicit=self._implicit)
        else:
            self._at += length


def scan_elements(
    prefix: bytes, transfer_syntax_uid: str, wanted: Collection[int], *, whole: bool = False
) -> tuple[dict[int, RawValue], bool]:
    """Return those of `wanted` that stand on the top level of the first bytes of a data set, and whether all of the
    bytes could be followed; `whole`: they are all it has. Never raises for what the bytes say."""
    try:
        if transfer_syntax_uid == DEFLATED_LE:
            whole = False
            prefix = zlib.decompressobj(-zlib.MAX_WBITS).decompress(prefix, PREFIX_BYTES)
    except zlib.error:
        return {}, False
    scanner = _Scanner(
        prefix, wanted, implicit=is_implicit(transfer_syntax_uid), big_endian=is_big_endian(transfer_syntax_uid)
    )
    try:
        scanner.scan(whole=whole)
    except _Malformed:
        return scanner.found, False
    return scanner.found, True


def scan_header(prefix: bytes, transfer_syntax_uid: str, *, whole: bool = False) -> Header:
    """Return what every instance is asked for; `whole`: the prefix is all of the data set. Never raises."""
    found, followed = scan_elements(prefix, transfer_syntax_uid, _WANTED, whole=whole)
    facts = {_WANTED[tag]: _text(raw.content) for tag, raw in found.items() if raw.length <= MAX_VALUE_BYTES}
    return Header(**facts, parsable=followed and bool(facts))
