"""From one native Transfer Syntax to another, element by element, values untouched (PS3.5 section 7, Annex A).

Streaming: a value is copied in blocks, sequences get undefined length so that nothing is written twice. Group lengths
are left out (PS3.5 7.2), since they would be wrong.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydicom.datadict import dictionary_VR

from gateway.dicom import part10
from gateway.dicom.part10 import ITEM, ITEM_END, MAX_DEPTH, SEQUENCE_END, UNDEFINED
from gateway.model.errors import PrepareError
from gateway.model.transfer_syntax import DEFLATED_LE, is_big_endian, is_implicit
from gateway.prepare.deflate import inflate
from gateway.prepare.pool import DISK_FAULTS

BLOCK_BYTES = 1 << 20
PIXEL_REPRESENTATION = 0x00280103
LONG_VRS = frozenset(vr.decode() for vr in part10.LONG_VRS)
WORD_BYTES = {
    **dict.fromkeys(("AT", "OW", "SS", "US"), 2),
    **dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), 4),
    **dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8),
}
"""How many bytes are swapped together when the byte order changes (PS3.5 7.3)."""


@dataclass(frozen=True, slots=True)
class _Head:
    tag: int
    vr: str
    length: int


def _dictionary_vr(tag: int, *, signed: bool) -> str:
    """Return the VR of an element that came without one; UN where the dictionary does not know it."""
    try:
        vr = str(dictionary_VR(tag))
    except KeyError:
        return "UN"
    if vr == "US or SS":
        return "SS" if signed else "US"
    return {"OB or OW": "OW", "US or OW": "OW", "US or SS or OW": "OW"}.get(vr, vr)


class _Reencoder:
    """Reads one byte stream, writes the other."""

    def __init__(
        self, source: BinaryIO, target: BinaryIO, *, implicit: bool, big_endian: bool, to_implicit: bool
    ) -> None:
        self._source = source
        self._target = target
        self._big = big_endian
        self._implicit = implicit
        self._to_implicit = to_implicit
        self._signed = False
        self.digest = hashlib.sha256()
        self.length = 0

    def _write(self, block: bytes) -> None:
        self._target.write(block)
        self.digest.update(block)
        self.length += len(block)

    def _read(self, count: int) -> bytes:
        block = self._source.read(count)
        if len(block) != count:
            raise PrepareError("the data set ends in the middle of an element")
        return block

    def _head(self) -> _Head | None:
        start = self._source.read(8)
        if not start:
            return None
        if len(start) < 8:
            raise PrepareError("the data set ends in the middle of an element")
        order = ">" if self._big else "<"
        group, element = struct.unpack(f"{order}HH", start[:4])
        tag = group << 16 | element
        if self._implicit or group == 0xFFFE:
            (length,) = struct.unpack(f"{order}I", start[4:])
            return _Head(tag, "" if group == 0xFFFE else _dictionary_vr(tag, signed=self._signed), length)
        vr = start[4:6].decode("latin-1")
        if not vr.isalpha() or not vr.isupper():
            raise PrepareError("an element has no VR")
        if vr in LONG_VRS:
            return _Head(tag, vr, struct.unpack(f"{order}I", self._read(4))[0])
        return _Head(tag, vr, struct.unpack(f"{order}H", start[6:])[0])

    def _write_head(self, tag: int, vr: str, length: int) -> None:
        head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        if self._to_implicit or not vr:
            self._write(head + struct.pack("<I", length))
        elif vr in LONG_VRS or length > 0xFFFF:  # a value too long for its VR travels as UN (PS3.5 6.2.2)
            self._write(head + (vr if vr in LONG_VRS else "UN").encode() + struct.pack("<HI", 0, length))
        else:
            self._write(head + vr.encode() + struct.pack("<H", length))

    def elements(self, end: int | None, depth: int) -> None:
        """Copy elements up to `end` (a position), to an item's delimiter, or to the end of the stream."""
        if depth > MAX_DEPTH:
            raise PrepareError("sequences nested too deeply")
        while end is None or self._source.tell() < end:
            head = self._head()
            if head is None:
                if depth:
                    raise PrepareError("a sequence has no end")
                return
            if head.tag == ITEM_END:
                return
            if head.vr == "SQ" or head.length == UNDEFINED:
                self._sequence(head, depth)
            elif head.tag & 0xFFFF == 0:
                self._read(head.length)
            else:
                self._value(head)

    def _sequence(self, head: _Head, depth: int) -> None:
        implicit_before = self._implicit
        if head.vr == "UN":
            self._implicit = True  # PS3.5 6.2.2 note: UN of undefined length is a sequence in Implicit VR
        self._write_head(head.tag, "SQ", UNDEFINED)
        end = None if head.length == UNDEFINED else self._source.tell() + head.length
        while end is None or self._source.tell() < end:
            item = self._head()
            if item is None:
                raise PrepareError("a sequence has no end")
            if item.tag == SEQUENCE_END:
                break
            if item.tag != ITEM:
                raise PrepareError("a sequence holds something that is no item")
            self._write_head(ITEM, "", UNDEFINED)
            self.elements(None if item.length == UNDEFINED else self._source.tell() + item.length, depth + 1)
            self._write_head(ITEM_END, "", 0)
        self._write_head(SEQUENCE_END, "", 0)
        self._implicit = implicit_before

    def _value(self, head: _Head) -> None:
        width = WORD_BYTES.get(head.vr, 1) if self._big else 1
        if head.length % width:
            raise PrepareError("a value is not a whole number of words")
        self._write_head(head.tag, head.vr, head.length)
        left = head.length
        while left:
            block = self._read(min(left, BLOCK_BYTES))
            left -= len(block)
            if width > 1:
                block = np.frombuffer(block, dtype=f">u{width}").astype(f"<u{width}").tobytes()
            if head.tag == PIXEL_REPRESENTATION and len(block) >= 2:
                self._signed = struct.unpack("<H", block[:2])[0] == 1
            self._write(block)


def reencode(path: Path, offset: int, source_syntax: str, target_syntax: str, out: Path) -> tuple[str, int]:
    """Write the data set at `offset` of `path` to `out`; return (SHA-256, bytes). Raises PrepareError, and OSError
    for one of DISK_FAULTS."""
    inflated = out.with_name(f"{out.name}.inflated")
    try:
        with open(path, "rb") as source, open(out, "wb") as target:
            source.seek(offset)
            stream: BinaryIO = source
            if source_syntax == DEFLATED_LE:
                stream = open(inflated, "w+b")  # noqa: SIM115 - closed below, on every way out
                inflate(source, stream)
                stream.seek(0)
            try:
                coder = _Reencoder(
                    stream,
                    target,
                    implicit=is_implicit(source_syntax),
                    big_endian=is_big_endian(source_syntax),
                    to_implicit=is_implicit(target_syntax),
                )
                coder.elements(None, 0)
            finally:
                if stream is not source:
                    stream.close()
    except (OSError, zlib.error, struct.error) as error:
        if isinstance(error, OSError) and error.errno in DISK_FAULTS:
            raise
        raise PrepareError(f"re-encoding failed: {error}") from error
    finally:
        inflated.unlink(missing_ok=True)
    return coder.digest.hexdigest(), coder.length
