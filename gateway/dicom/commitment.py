"""Data sets of the Storage Commitment Push Model (PS3.4 Annex J): written small, read bounded.

A reader of our own, since they come from the network: it looks at each byte once, and follows only so many levels.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.dicom.negotiation import Malformed
from gateway.dicom.part10 import ITEM, ITEM_END, LONG_VRS, SEQUENCE_END, UNDEFINED, element_bytes
from gateway.model.transfer_syntax import is_big_endian, is_implicit

WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1.1"
"""Storage Commitment Push Model SOP Instance (PS3.4 J.3.5)."""
ALL_COMMITTED, SOME_FAILED = 1, 2
"""Event Type IDs of the report (PS3.4 table J.3-2)."""
REQUEST_COMMITMENT = 1
"""Action Type ID (PS3.4 table J.3-1)."""
PROCESSING_FAILURE, NO_SUCH_INSTANCE = 0x0110, 0x0112
RESOURCE_LIMITATION, CLASS_NOT_SUPPORTED, CONFLICT, DUPLICATE = 0x0213, 0x0122, 0x0119, 0x0131
FAILURES = {
    PROCESSING_FAILURE: "processing failure",
    NO_SUCH_INSTANCE: "no such object instance",
    RESOURCE_LIMITATION: "resource limitation",
    CLASS_NOT_SUPPORTED: "referenced SOP class not supported",
    CONFLICT: "class and instance conflict",
    DUPLICATE: "duplicate transaction UID",
}
"""Failure Reasons (PS3.3 C.14.1.1)."""
MAX_LEVELS = 8
_TRANSACTION_UID, _FAILED, _REFERENCED = 0x00081195, 0x00081198, 0x00081199
_SOP_CLASS, _SOP_INSTANCE, _FAILURE_REASON = 0x00081150, 0x00081155, 0x00081197


@dataclass(frozen=True, slots=True)
class Reference:
    """A SOP Instance that is asked about."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a request asks for (then `failed` is empty), or what a report says."""

    transaction_uid: str
    references: tuple[Reference, ...]
    failed: tuple[tuple[Reference, int], ...] = ()
    """Each with its Failure Reason."""


_Element = bytes | list[dict[int, "_Element"]]


class _Reader:
    """Walks a data set, sequences included, whose lengths are given or not."""

    def __init__(self, data: bytes, transfer_syntax_uid: str) -> None:
        self._data = data
        self._implicit = is_implicit(transfer_syntax_uid)
        self._order = ">" if is_big_endian(transfer_syntax_uid) else "<"

    def elements(self, at: int, end: int, level: int = 0, *, open_end: bool = False) -> tuple[dict[int, _Element], int]:
        """Return the elements from `at`, and where they end; `open_end`: at an item delimiter before `end`."""
        found: dict[int, _Element] = {}
        while at < end:
            tag, vr, length, at = self._head(at, end)
            if tag == ITEM_END and open_end:
                return found, at
            if vr == b"SQ" or length == UNDEFINED or (not vr and tag in (_FAILED, _REFERENCED)):
                found[tag], at = self._items(at, end, length, level + 1)
                continue
            if length > end - at:
                raise Malformed("an element is longer than what holds it")
            found[tag], at = self._data[at : at + length], at + length
        if open_end:
            raise Malformed("an item without end")
        return found, at

    def _head(self, at: int, end: int) -> tuple[int, bytes, int, int]:
        if end - at < 8:
            raise Malformed("the data set ends within an element")
        group, number = struct.unpack_from(f"{self._order}HH", self._data, at)
        vr = self._data[at + 4 : at + 6]
        if self._implicit or group == 0xFFFE:
            return group << 16 | number, b"", struct.unpack_from(f"{self._order}I", self._data, at + 4)[0], at + 8
        if vr not in LONG_VRS:
            return group << 16 | number, vr, struct.unpack_from(f"{self._order}H", self._data, at + 6)[0], at + 8
        if end - at < 12:
            raise Malformed("the data set ends within an element")
        return group << 16 | number, vr, struct.unpack_from(f"{self._order}I", self._data, at + 8)[0], at + 12

    def _items(self, at: int, end: int, length: int, level: int) -> tuple[list[dict[int, _Element]], int]:
        if level > MAX_LEVELS:
            raise Malformed("sequences nested too deeply")
        open_end = length == UNDEFINED
        if not open_end and length > end - at:
            raise Malformed("a sequence is longer than what holds it")
        end = end if open_end else at + length
        items: list[dict[int, _Element]] = []
        while at < end:
            tag, _, size, at = self._head(at, end)
            if tag == SEQUENCE_END and open_end:
                return items, at
            if tag != ITEM or (size != UNDEFINED and size > end - at):
                raise Malformed("something else than an item in a sequence")
            item, at = self.elements(at, end if size == UNDEFINED else at + size, level, open_end=size == UNDEFINED)
            items.append(item)
        if open_end:
            raise Malformed("a sequence without end")
        return items, at

    def number(self, value: _Element | None) -> int:
        """Return a US value; 0 without one."""
        usable = isinstance(value, bytes) and len(value) >= 2
        return int(struct.unpack_from(f"{self._order}H", value)[0]) if usable else 0  # type: ignore[arg-type]


def _uid(value: _Element | None) -> str:
    return value.decode("latin-1").strip("\0 ") if isinstance(value, bytes) else ""


def _reference(item: Mapping[int, _Element]) -> Reference:
    return Reference(_uid(item.get(_SOP_CLASS)), _uid(item.get(_SOP_INSTANCE)))


def read_data_set(data: bytes, transfer_syntax_uid: str) -> Report:
    """Read a request or a report; raises Malformed."""
    reader = _Reader(data, transfer_syntax_uid)
    found, _ = reader.elements(0, len(data))
    referenced, failed = found.get(_REFERENCED, []), found.get(_FAILED, [])
    if isinstance(referenced, bytes) or isinstance(failed, bytes):
        raise Malformed("a list of instances is no sequence")
    transaction_uid = _uid(found.get(_TRANSACTION_UID))
    if not transaction_uid:
        raise Malformed("no Transaction UID")
    return Report(
        transaction_uid,
        tuple(_reference(item) for item in referenced),
        tuple((_reference(item), reader.number(item.get(_FAILURE_REASON))) for item in failed),
    )


def write_data_set(report: Report, transfer_syntax_uid: str) -> bytes:
    """Return a request or a report in one of the native Transfer Syntaxes; items have their lengths given."""
    order = ">" if is_big_endian(transfer_syntax_uid) else "<"

    def element(tag: int, vr: bytes, value: bytes) -> bytes:
        return element_bytes(tag, vr, value, transfer_syntax_uid)

    def uid(tag: int, text: str) -> bytes:
        return element(tag, b"UI", text.encode("latin-1", "replace"))

    def item(reference: Reference, more: bytes = b"") -> bytes:
        content = uid(_SOP_CLASS, reference.sop_class_uid) + uid(_SOP_INSTANCE, reference.sop_instance_uid) + more
        return struct.pack(f"{order}HHI", ITEM >> 16, ITEM & 0xFFFF, len(content)) + content

    def sequence(tag: int, items: Iterable[bytes]) -> bytes:
        content = b"".join(items)
        return element(tag, b"SQ", content) if content else b""

    def reason(number: int) -> bytes:
        return element(_FAILURE_REASON, b"US", struct.pack(f"{order}H", number))

    return (
        uid(_TRANSACTION_UID, report.transaction_uid)
        + sequence(_FAILED, (item(reference, reason(number)) for reference, number in report.failed))
        + sequence(_REFERENCED, (item(reference) for reference in report.references))
    )
