"""Where the elements of a data set stand, in whichever Transfer Syntax (PS3.5 7.1, 7.5, Annex A). Reads no value.

Iterative, and bounded in bytes, elements and depth, nested ones included, before anything is made of them: what a
parser would make of the bytes takes a hundred times their room.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import lru_cache
from typing import BinaryIO

from gateway.dicom.part10 import ITEM, ITEM_END, LONG_VRS, MAX_DEPTH, SEQUENCE_END, SHORT_VRS, UNDEFINED
from gateway.model.errors import PrepareError
from gateway.model.transfer_syntax import is_big_endian, is_implicit

MAX_HEADER_BYTES = 64 << 20
MAX_ELEMENTS = 500_000
"""A worker has 1 GiB, and holds what pydicom makes of all of them in two thirds of it."""
MAX_FRAGMENTS = 1 << 20
PIXEL_DATA = 0x7FE00010
PIXELS = frozenset({0x7FE00008, 0x7FE00009, PIXEL_DATA})
"""Float, Double Float and Pixel Data."""
_ITEM_MARKS = (struct.pack("<HH", 0xFFFE, 0xE000), struct.pack(">HH", 0xFFFE, 0xE000))
_DELIMITERS = frozenset({ITEM, ITEM_END, SEQUENCE_END})


@dataclass(frozen=True, slots=True)
class Coding:
    """How elements are spelled."""

    implicit: bool
    big_endian: bool

    @property
    def order(self) -> str:
        """The byte order, as `struct` has it."""
        return ">" if self.big_endian else "<"


def coding_of(transfer_syntax_uid: str) -> Coding:
    """Return the coding of a data set, of a deflated one when it is inflated."""
    return Coding(is_implicit(transfer_syntax_uid), is_big_endian(transfer_syntax_uid))


_UNKNOWN_SEQUENCE = Coding(implicit=True, big_endian=False)
"""What a UN of undefined length holds (PS3.5 6.2.2)."""


@dataclass(frozen=True, slots=True)
class Place:
    """One element, in bytes from the start of the stream."""

    tag: int
    vr: str
    """Empty in Implicit VR."""
    head_at: int
    value_at: int
    value_end: int
    end: int
    """Behind the delimiter, where there is one."""
    sequence: Coding | None
    """How its items are spelled; None: no sequence."""


@dataclass(slots=True)
class _Head:
    tag: int
    vr: str
    length: int


@dataclass(slots=True)
class _Open:
    """A sequence, or an item, that has begun."""

    in_items: bool
    end: int | None
    coding: Coding
    seen: set[int] = field(default_factory=set)


class Layout:
    """A walk over one stream; raises PrepareError for what cannot be followed, is there twice, or has no bound."""

    def __init__(self, file: BinaryIO, coding: Coding) -> None:
        self._file = file
        self._coding = coding
        here = file.tell()
        self._size = file.seek(0, 2)
        file.seek(here)
        self._elements = 0
        self._bytes = 0

    def level(self, end: int | None = None, *, in_item: bool = False) -> list[Place]:
        """Return the elements from here to `end`; None: to the delimiter of the item that we stand in, or to the end
        of all."""
        places: list[Place] = []
        seen: set[int] = set()
        while end is None or self._file.tell() < end:
            at = self._file.tell()
            head = self._head(self._coding)
            if head is None or (in_item and head.tag == ITEM_END):
                break
            self._note(head.tag, seen)
            place = self._place(at, head)
            if place.end > (self._size if end is None else end):
                raise PrepareError("the data set ends in the middle of an element")
            if place.tag not in PIXELS:
                self._bytes += place.end - place.head_at
                if self._bytes > MAX_HEADER_BYTES:
                    raise PrepareError(f"there is more than {MAX_HEADER_BYTES >> 20} MiB beside the pixels")
            places.append(place)
            self._file.seek(place.end)
        return places

    def items(self, end: int) -> list[list[Place]]:
        """Return the elements of each item of the sequence whose first item begins here and whose last ends there."""
        found: list[list[Place]] = []
        while self._file.tell() < end:
            head = self._head(self._coding)
            if head is None or head.tag != ITEM:
                raise PrepareError("a sequence holds something that is no item")
            if head.length == UNDEFINED:
                found.append(self.level(in_item=True))
            else:
                found.append(self.level(self._file.tell() + head.length))
        return found

    def _head(self, coding: Coding) -> _Head | None:
        start = self._file.read(8)
        if not start:
            return None
        if len(start) < 8:
            raise PrepareError("the data set ends in the middle of an element")
        group, element = struct.unpack_from(f"{coding.order}HH", start)
        if coding.implicit or group == 0xFFFE:
            return _Head(group << 16 | element, "", struct.unpack_from(f"{coding.order}I", start, 4)[0])
        vr = start[4:6]
        if vr in SHORT_VRS:
            return _Head(group << 16 | element, vr.decode(), struct.unpack_from(f"{coding.order}H", start, 6)[0])
        if vr not in LONG_VRS:
            raise PrepareError("an element has no VR")
        more = self._file.read(4)
        if len(more) < 4:
            raise PrepareError("the data set ends in the middle of an element")
        return _Head(group << 16 | element, vr.decode(), struct.unpack(f"{coding.order}I", more)[0])

    def _note(self, tag: int, seen: set[int]) -> None:
        if tag in _DELIMITERS:
            raise PrepareError("an item outside a sequence")
        if tag in seen:
            raise PrepareError("an element is there twice")
        seen.add(tag)
        self._count(1)

    def _count(self, elements: int) -> None:
        self._elements += elements
        if self._elements > MAX_ELEMENTS:
            raise PrepareError(f"there are more than {MAX_ELEMENTS} elements")

    def _place(self, at: int, head: _Head) -> Place:
        value_at = self._file.tell()
        inner = self._inner(head, self._coding)
        if inner is not None:
            value_end = self._pass_sequence(head, inner)
            return Place(head.tag, head.vr, at, value_at, value_end, self._file.tell(), inner)
        if head.length == UNDEFINED and head.tag == PIXEL_DATA:
            value_end = self._pass_fragments()
            return Place(head.tag, head.vr, at, value_at, value_end, self._file.tell(), None)
        self._pass_value(head)
        end = self._file.tell()
        return Place(head.tag, head.vr, at, value_at, end, end, None)

    def _inner(self, head: _Head, coding: Coding) -> Coding | None:
        """Return how the items of a sequence are spelled, standing at the first; None: it is none."""
        if head.tag in PIXELS:
            return None
        if head.length == UNDEFINED and head.vr in ("UN", ""):
            return _UNKNOWN_SEQUENCE if head.vr else coding
        if head.vr == "SQ":
            return coding
        # Without VR the dictionary knows; but there are makers who put text where it has a sequence.
        if not head.vr and _vr_of(head.tag) == "SQ" and (not head.length or self._is_item_next()):
            return coding
        return None

    def _is_item_next(self) -> bool:
        at = self._file.tell()
        mark = self._file.read(4)
        self._file.seek(at)
        return mark in _ITEM_MARKS

    def _pass_value(self, head: _Head) -> None:
        if head.length == UNDEFINED:
            raise PrepareError("a value has no length")
        if head.vr in ("", "UN") and head.length >= 8 and self._is_item_next():
            self._count(head.length // 8)  # a sequence, for those who know: of as many elements as it has room for
        self._file.seek(head.length, 1)

    def _pass_fragments(self) -> int:
        """Step over encapsulated pixels (PS3.5 A.4); return where their delimiter begins."""
        for _ in range(MAX_FRAGMENTS):
            at = self._file.tell()
            item = self._head(self._coding)
            if item is not None and item.tag == SEQUENCE_END:
                return at
            if item is None or item.tag != ITEM or item.length == UNDEFINED:
                break
            self._file.seek(item.length, 1)
        raise PrepareError("the fragments cannot be followed")

    def _pass_sequence(self, head: _Head, inner: Coding) -> int:
        """Step over a sequence and all that is in it; return where its last item ends."""
        value_end = 0
        opened = [self._opened(head, inner, in_items=True)]
        while opened:
            within, at = opened[-1], self._file.tell()
            value_end = at
            if within.end is not None and at >= within.end:
                if at > within.end:
                    raise PrepareError("an element is longer than what holds it")
                opened.pop()
                continue
            found = self._head(within.coding)
            if found is None:
                raise PrepareError("a sequence has no end")
            if within.end is None and found.tag == (SEQUENCE_END if within.in_items else ITEM_END):
                opened.pop()
            elif within.in_items:
                if found.tag != ITEM:
                    raise PrepareError("a sequence holds something that is no item")
                self._count(1)
                opened.append(self._opened(found, within.coding, in_items=False))
            else:
                self._note(found.tag, within.seen)
                deeper = self._inner(found, within.coding)
                if found.tag == PIXEL_DATA and found.length == UNDEFINED:  # of an icon
                    self._pass_fragments()
                elif deeper is None:
                    self._pass_value(found)
                else:
                    opened.append(self._opened(found, deeper, in_items=True))
            if len(opened) > 2 * MAX_DEPTH:
                raise PrepareError("sequences nested too deeply")
        return value_end

    def _opened(self, head: _Head, coding: Coding, *, in_items: bool) -> _Open:
        return _Open(in_items, None if head.length == UNDEFINED else self._file.tell() + head.length, coding)


@lru_cache(maxsize=8192)
def _vr_of(tag: int) -> str:
    from pydicom.datadict import dictionary_VR

    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return ""
