"""A data set becomes the bytes that a scanner sends, with what is wrong about them."""

from __future__ import annotations

import struct
import threading
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO

from pydicom import config
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from gateway.emulator.profile import IMPLICIT, Data

BIG_ENDIAN = "1.2.840.10008.1.2.2"
GARBAGE = b"behind the end of the data set\0\0"


class _Unjudged:
    """While anybody is inside, pydicom warns of no value and refuses none. Its setting is the whole process's, so that
    whoever leaves last puts it back."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._before = (config.WARN, config.RAISE)

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                settings = config.settings
                self._before = (settings.reading_validation_mode, settings.writing_validation_mode)
                settings.reading_validation_mode = settings.writing_validation_mode = config.IGNORE
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                config.settings.reading_validation_mode, config.settings.writing_validation_mode = self._before


UNJUDGED = _Unjudged()


@dataclass(frozen=True, slots=True)
class Encoded:
    """One object as it goes over the wire."""

    content: bytes
    sha256: str


def declare(dataset: Dataset, data: Data) -> None:
    """Name the Specific Character Set that a scanner writes in; none for the letters that need none."""
    if data.character_set:
        dataset.SpecificCharacterSet = data.character_set.split("\\")


def encode(dataset: Dataset, syntax: str, data: Data) -> Encoded:
    """Encode in a Transfer Syntax, or in another when the scanner is mistaken. Raises ValueError for what cannot be."""
    told = data.encode_as
    implicit = told == "implicit" if told else syntax == IMPLICIT or (data.syntax is not None and syntax == data.syntax)
    little = told != "big" and syntax != BIG_ENDIAN
    if "wrong-vr" in data.defects:
        dataset.add_new(0x00400555, "LO", "this is no sequence")
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = implicit, little
    with UNJUDGED:
        write_dataset(file, dataset)
    content = file.getvalue()
    if data.uid_form == "odd":
        uid = str(dataset.SOPInstanceUID).encode()
        even, odd = (_element(0x00080018, b"UI", value, implicit=implicit) for value in (uid + b"\0", uid))
        content = content.replace(even, odd, 1)
    content = damaged(content, data.defects, implicit=implicit)
    return Encoded(content, sha256(content).hexdigest())


def _element(tag: int, vr: bytes, value: bytes, *, implicit: bool) -> bytes:
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    return head + (struct.pack("<I", len(value)) if implicit else vr + struct.pack("<H", len(value))) + value


def damaged(content: bytes, defects: Collection[str], *, implicit: bool) -> bytes:
    """Return a little-endian data set with these defects."""
    if not defects:
        return content  # which may have gigabytes
    front = {
        "stray-item": struct.pack("<HHI", 0xFFFE, 0xE000, 0),
        "meta-element": _element(0x00020010, b"UI", b"1.2.840.10008.1.2\0", implicit=implicit),
        "odd-length": _element(0x00071001, b"LO", b"three", implicit=implicit),
    }
    behind = {
        "unordered": _element(0x00080201, b"SH", b"+0100 ", implicit=implicit),
        "trailing": GARBAGE,
    }
    out = BytesIO()
    for name, block in front.items():
        if name in defects:
            out.write(block)
    out.write(content)
    for name, block in behind.items():
        if name in defects:
            out.write(block)
    return out.getvalue()
