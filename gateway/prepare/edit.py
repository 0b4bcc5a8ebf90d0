"""Changes what stands beside the pixels, and copies all else: what no step changed comes out byte for byte.

The header is laid out by our own bounded walk and handed to pydicom as raw elements, which it reads only when a step
asks for them. An element that pydicom would spell as before keeps its bytes, also within a sequence that did change;
pixels are copied in blocks. The Transfer Syntax stays.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom.config import IGNORE
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.tag import BaseTag
from pydicom.valuerep import VR

from gateway.dicom.attributes import ENCODED_VRS, SPECIFIC_CHARACTER_SET
from gateway.dicom.part10 import ITEM, ITEM_END, SEQUENCE_END, UNDEFINED
from gateway.model.errors import PrepareError
from gateway.model.transfer_syntax import DEFLATED_LE
from gateway.prepare.character_set import (
    Terms,
    encodings_of,
    expressible,
    go_over,
    level_terms,
    quietly,
    strictly,
    terms_of,
    texts_of,
)
from gateway.prepare.deflate import deflate, inflate
from gateway.prepare.layout import PIXELS, Coding, Layout, Place, coding_of

BLOCK_BYTES = 1 << 20
SOP_INSTANCE_UID, STUDY_INSTANCE_UID = 0x00080018, 0x0020000D
_LENGTH_TO_END = 0x00080001
Step = Callable[[Dataset], None]
"""Changes a data set, shown without its pixels, in place; raises PrepareError when it cannot."""
Changes = dict[int, bytes | None]
"""By tag, the new bytes of an element; None: it goes."""
_PYDICOM = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, NotImplementedError, RecursionError),
    *(OSError, EOFError, BytesLengthException),
)
"""What pydicom raises for bytes in memory that are not what they say."""


@dataclass(frozen=True, slots=True)
class Edited:
    """What became of a data set."""

    sha256: str
    length: int
    sop_instance_uid: str
    """The new one; empty when no step changed it, as below."""
    study_instance_uid: str


@dataclass(frozen=True, slots=True)
class _Was:
    """An element as it came."""

    place: Place
    raw: RawDataElement


_Level = Mapping[int, _Was]


class _Inexpressible(Exception):
    """A new value has letters that the data set's character sets lack."""


class Header:
    """All of a data set but its pixels."""

    def __init__(self, file: BinaryIO, coding: Coding) -> None:
        """Read it from here on; raises PrepareError when it cannot be followed or has no bound."""
        self.coding = coding
        self.places = Layout(file, coding).level()
        self._level = {place.tag: _was(file, place, coding) for place in self.places if place.tag not in PIXELS}
        self.dataset = self.fresh()
        """What steps change."""

    def fresh(self) -> Dataset:
        """Return the data set as it came."""
        return Dataset({BaseTag(tag): was.raw for tag, was in self._level.items()})

    def apply(self, steps: Iterable[Step]) -> None:
        """Let each step change the data set; raises PrepareError."""
        with _followed(), strictly():
            for step in steps:
                step(self.dataset)

    def changes(self) -> Changes:
        """Return what differs now; goes over to ISO_IR 192 when a new value needs it. Raises PrepareError."""
        with _followed(), strictly():
            try:
                return _Speller(self.coding).changes(self.dataset, self._level, (), ())
            except _Inexpressible:
                go_over(self.fresh())  # every letter that came must be certain, also where a step has read it already
                go_over(self.dataset)
                return _Speller(self.coding).changes(self.dataset, self._level, (), ())

    def new_uid(self, tag: int, changes: Changes) -> str:
        """Return the UID that `changes` gives this attribute; empty when it stays."""
        if tag not in changes:
            return ""
        with _followed(), quietly():
            return str(self.dataset[tag].value or "") if tag in self.dataset else ""


def edit(path: Path, offset: int, transfer_syntax_uid: str, out: Path, steps: Sequence[Step]) -> Edited:
    """Write the data set at `offset` of `path` to `out`, changed by `steps`; raises PrepareError, OSError."""
    plain = out.with_name(f"{out.name}.plain")
    try:
        with _opened(path, offset, transfer_syntax_uid, out.with_name(f"{out.name}.inflated")) as stream:
            header = Header(stream, coding_of(transfer_syntax_uid))
            header.apply(steps)
            changes = header.changes()
            with open(plain, "wb") as target:
                for block in spliced(header.places, changes, lambda place: _blocks(stream, place)):
                    target.write(block)
        if transfer_syntax_uid != DEFLATED_LE:
            plain.rename(out)
        elif changes:
            with open(plain, "rb") as source, open(out, "wb") as target:
                deflate(source, target)
        else:
            _copy(path, offset, out)
    finally:
        plain.unlink(missing_ok=True)
    uids = (header.new_uid(tag, changes) for tag in (SOP_INSTANCE_UID, STUDY_INSTANCE_UID))
    return Edited(*_digest(out), *uids)


def header_of(path: Path, offset: int, transfer_syntax_uid: str, out: Path) -> Dataset:
    """Return the data set at `offset` of `path` without its pixels, to be looked at. Writes beside `out` when it must
    inflate. Raises PrepareError, OSError."""
    with _opened(path, offset, transfer_syntax_uid, out.with_name(f"{out.name}.inflated")) as stream:
        return Header(stream, coding_of(transfer_syntax_uid)).fresh()


def preview(
    path: Path, offset: int, transfer_syntax_uid: str, folder: Path, steps: Sequence[Step]
) -> tuple[Dataset, Dataset]:
    """Return what the data set's header says, and what it would say after `steps`; what nobody touched is the same raw
    element in both. Writes to `folder` when it must inflate. Raises PrepareError, OSError."""
    with _opened(path, offset, transfer_syntax_uid, folder / "inflated") as stream:
        header = Header(stream, coding_of(transfer_syntax_uid))
        header.apply(steps)
        header.changes()
        return header.fresh(), header.dataset


@contextmanager
def _opened(path: Path, offset: int, transfer_syntax_uid: str, inflated: Path) -> Iterator[BinaryIO]:
    """Open a data set at its beginning, a deflated one by way of the file `inflated`."""
    try:
        with open(path, "rb") as source:
            source.seek(offset)
            if transfer_syntax_uid != DEFLATED_LE:
                yield source
                return
            with open(inflated, "w+b") as stream:
                inflate(source, stream)
                stream.seek(0)
                yield stream
    except (zlib.error, struct.error) as error:
        raise PrepareError("the data set cannot be followed") from error
    finally:
        inflated.unlink(missing_ok=True)


def spliced(places: Sequence[Place], changes: Changes, bytes_of: Callable[[Place], Iterable[bytes]]) -> Iterator[bytes]:
    """Yield a data set, or an item's, with the changes in their places. Lengths of groups that changed are left out
    (PS3.5 7.2)."""
    present = {place.tag for place in places}
    new = sorted(tag for tag in changes if tag not in present)
    groups = {tag >> 16 for tag in changes}
    for place in places:
        while new and new[0] < place.tag:
            yield changes[new.pop(0)] or b""
        if place.tag in changes:
            yield changes[place.tag] or b""
        elif not changes or not (
            place.tag == _LENGTH_TO_END or (place.tag & 0xFFFF == 0 and place.tag >> 16 in groups)
        ):
            yield from bytes_of(place)
    for tag in new:
        yield changes[tag] or b""


class _Speller:
    """Writes elements as pydicom does, where they are not as they were."""

    def __init__(self, coding: Coding) -> None:
        self._coding = coding

    def changes(self, now: Dataset, before: _Level, was_terms: Terms, terms: Terms) -> Changes:
        """Return what differs between a data set, or an item, and what it was; the terms are those outside of it."""
        declared = before.get(SPECIFIC_CHARACTER_SET)
        was_terms = terms_of(declared.raw if declared else None, was_terms)
        terms = level_terms(now, terms)
        found: Changes = {tag: None for tag in before if tag not in now}
        for tag in now.keys():  # noqa: SIM118 - a Dataset iterates over elements, and would read them all
            spelled = self._respelled(now, tag, before.get(int(tag)), was_terms, terms)
            if spelled is not None:
                found[int(tag)] = spelled
        return found

    def _respelled(self, now: Dataset, tag: BaseTag, was: _Was | None, was_terms: Terms, terms: Terms) -> bytes | None:
        """Return an element's bytes; None: as they were."""
        element = now.get_item(tag)
        if isinstance(element, RawDataElement):
            if was is not None and (element is was.raw or element.value == was.raw.value):
                return None
            if element.is_implicit_VR == self._coding.implicit:
                return self._leaf(element, terms)
        read = now[tag]
        if read.VR == VR.SQ:
            return self._sequence(read, now, was, was_terms, terms)
        if read.VR in ENCODED_VRS and not all(expressible(text, terms) for text in texts_of(read)):
            if was is not None and self._says_the_same(read, was, now, was_terms):
                return None
            raise _Inexpressible
        spelled = self._leaf(read, terms)
        return None if was is not None and spelled == self._as_it_was(was, now, was_terms) else spelled

    @staticmethod
    def _says_the_same(read: DataElement, was: _Was, now: Dataset, terms: Terms) -> bool:
        """True for a text that was only looked at; to spell one that does not fit in would spoil it."""
        fresh = convert_raw_data_element(was.raw, encoding=encodings_of(terms), ds=now)
        return fresh.VR == read.VR and texts_of(fresh) == texts_of(read)

    def _as_it_was(self, was: _Was, now: Dataset, terms: Terms) -> bytes | None:
        """Return what pydicom makes of an element that nobody touched; None when it cannot."""
        try:
            element = convert_raw_data_element(was.raw, encoding=encodings_of(terms), ds=now)
            if element.VR == VR.SQ:
                return self._spelled(element, [], b"", terms, terms)[0]
            return self._leaf(element, terms)
        except (*_PYDICOM, Warning):
            return None

    def _leaf(self, element: DataElement | RawDataElement, terms: Terms) -> bytes:
        if not isinstance(element, RawDataElement) and element.VR == VR.PN:
            # A PersonName keeps the bytes of its first encoding, also for a later one in another character set.
            element = DataElement(element.tag, VR.PN, texts_of(element), validation_mode=IGNORE)
        file = self._file()
        write_data_element(file, element, encodings_of(terms))
        return bytes(file.getvalue())

    def _file(self) -> DicomBytesIO:
        file = DicomBytesIO()
        file.is_implicit_VR, file.is_little_endian = self._coding.implicit, not self._coding.big_endian
        return file

    def _sequence(
        self, element: DataElement, now: Dataset, was: _Was | None, was_terms: Terms, terms: Terms
    ) -> bytes | None:
        if was is None:
            return self._spelled(element, [], b"", was_terms, terms)[0]
        if was.place.sequence == self._coding:
            data = was.raw.value or b""
            spelled, changed = self._spelled(element, _items(was), data, was_terms, terms)
            return spelled if changed else None
        # It came as a UN, or was none: its bytes serve for nothing else.
        spelled = self._spelled(element, [], b"", terms, terms)[0]
        return None if spelled == self._as_it_was(was, now, was_terms) else spelled

    def _spelled(
        self, element: DataElement, before: Sequence[_Level], data: bytes, was_terms: Terms, terms: Terms
    ) -> tuple[bytes, bool]:
        """Return a sequence's bytes, and whether they say something new; `data` holds what it was."""
        items, changed = list(element.value), len(element.value) != len(before)
        parts = [self._sequence_head(int(element.tag))]
        for index, item in enumerate(items):
            level = before[index] if index < len(before) else {}
            changes = self.changes(item, level, was_terms, terms)
            changed = changed or bool(changes)
            places = [was.place for was in level.values()]
            parts.append(self._mark(ITEM, UNDEFINED))
            parts += spliced(places, changes, lambda place: [data[place.head_at : place.end]])
            parts.append(self._mark(ITEM_END, 0))
        parts.append(self._mark(SEQUENCE_END, 0))
        return b"".join(parts), changed

    def _sequence_head(self, tag: int) -> bytes:
        order = self._coding.order
        vr = b"" if self._coding.implicit else b"SQ\0\0"
        return struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF) + vr + struct.pack(f"{order}I", UNDEFINED)

    def _mark(self, tag: int, length: int) -> bytes:
        return struct.pack(f"{self._coding.order}HHI", tag >> 16, tag & 0xFFFF, length)


def _was(file: BinaryIO, place: Place, coding: Coding) -> _Was:
    file.seek(place.value_at)
    value = file.read(place.value_end - place.value_at)
    inner = place.sequence or coding
    vr = "SQ" if place.sequence else place.vr or None
    fragments = place.sequence is None and place.end > place.value_end
    length = UNDEFINED if fragments else len(value)
    raw = RawDataElement(BaseTag(place.tag), vr, length, value, place.value_at, inner.implicit, not inner.big_endian)
    return _Was(place, raw)


def _items(was: _Was) -> list[_Level]:
    """Return the elements of each item of a sequence, their places within its value."""
    inner, value = was.place.sequence, was.raw.value or b""
    if inner is None:
        return []
    file = BytesIO(value)
    levels = Layout(file, inner).items(len(value))
    return [{place.tag: _was(file, place, inner) for place in level} for level in levels]


@contextmanager
def _followed() -> Iterator[None]:
    """Say without a value what pydicom cannot read, or a character set not explain."""
    try:
        yield
    except Warning as error:
        raise PrepareError("there are letters that its Specific Character Set does not explain") from error
    except MemoryError as error:
        raise PrepareError("the data set takes too much memory") from error
    except _PYDICOM as error:
        raise PrepareError(f"the data set cannot be read: {type(error).__name__}") from error


def _blocks(file: BinaryIO, place: Place) -> Iterator[bytes]:
    file.seek(place.head_at)
    left = place.end - place.head_at
    while left:
        block = file.read(min(left, BLOCK_BYTES))
        if not block:
            raise PrepareError("the data set ends in the middle of an element")
        left -= len(block)
        yield block


def _copy(path: Path, offset: int, out: Path) -> None:
    with open(path, "rb") as source, open(out, "wb") as target:
        source.seek(offset)
        while block := source.read(BLOCK_BYTES):
            target.write(block)


def _digest(path: Path) -> tuple[str, int]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return digest, file.tell()
