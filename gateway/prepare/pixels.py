"""Where the pixel data of an Explicit VR Little Endian data set is, and what it says about itself. Reads no pixel.

The walk is iterative and bounded: values are stepped over by their lengths, nested sequences by counting.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from gateway.dicom.part10 import ITEM, ITEM_END, LONG_VRS, MAX_DEPTH, SEQUENCE_END, UNDEFINED
from gateway.model.errors import PrepareError
from gateway.prepare.codecs import PixelFacts

PIXEL_DATA, PLANAR_CONFIGURATION = 0x7FE00010, 0x00280006
PHOTOMETRIC_INTERPRETATION, IMAGE_GROUP_LENGTH = 0x00280004, 0x00280000
LOSSY_COMPRESSION, LOSSY_RATIO, LOSSY_METHOD = 0x00282110, 0x00282112, 0x00282114
PIXEL_TABLES = (0x7FE00000, 0x7FE00001, 0x7FE00002)
"""Group length, Extended Offset Table and its lengths (PS3.3 C.7.6.3.1.8): wrong when the pixels are coded anew."""
_WATCHED = frozenset(
    (
        *(IMAGE_GROUP_LENGTH, PHOTOMETRIC_INTERPRETATION, PLANAR_CONFIGURATION),
        *(LOSSY_COMPRESSION, LOSSY_RATIO, LOSSY_METHOD),
        *(*PIXEL_TABLES, PIXEL_DATA),
    )
)
MAX_FRAMES = 1 << 20
MAX_FRAME_BYTES = 256 << 20
"""A worker holds a frame a few times over, and has 1 GiB; larger frames are passed on."""
_US = {0x00280002: "samples", 0x00280010: "rows", 0x00280011: "columns", 0x00280100: "bits", 0x00280103: "signed"}
_TEXT = {0x00280004: "photometric", 0x00280008: "frames", 0x00282110: "lossy"}


@dataclass(frozen=True, slots=True)
class Element:
    """A top-level element: where its head and its value begin, in bytes from the start of the file."""

    tag: int
    vr: bytes
    head_at: int
    value_at: int
    length: int
    """0xFFFFFFFF: undefined."""


def head(file: BinaryIO) -> Element | None:
    """Read one element's head and stand at its value; None at the end of the file; raises PrepareError."""
    at = file.tell()
    start = file.read(8)
    if not start:
        return None
    if len(start) < 8:
        raise PrepareError("the data set ends in the middle of an element")
    group, number = struct.unpack_from("<HH", start)
    tag, vr = group << 16 | number, start[4:6]
    if group == 0xFFFE:
        return Element(tag, b"", at, at + 8, struct.unpack_from("<I", start, 4)[0])
    if vr in LONG_VRS:
        more = file.read(4)
        if len(more) < 4:
            raise PrepareError("the data set ends in the middle of an element")
        return Element(tag, vr, at, at + 12, struct.unpack("<I", more)[0])
    if not (vr.isalpha() and vr.isupper()):
        raise PrepareError("an element has no VR")
    return Element(tag, vr, at, at + 8, struct.unpack_from("<H", start, 6)[0])


def skip_sequence(file: BinaryIO) -> None:
    """Step over a sequence of undefined length, standing at its first item; raises PrepareError."""
    open_until = [SEQUENCE_END]
    while open_until:
        element = head(file)
        if element is None:
            raise PrepareError("a sequence has no end")
        if element.tag == open_until[-1]:
            open_until.pop()
        elif element.length == UNDEFINED:
            if element.vr == b"UN":
                raise PrepareError("a sequence in Implicit VR")  # PS3.5 6.2.2: its content has no VRs
            open_until.append(ITEM_END if element.tag == ITEM else SEQUENCE_END)
            if len(open_until) > 2 * MAX_DEPTH:
                raise PrepareError("sequences nested too deeply")
        elif element.tag != ITEM:
            file.seek(element.length, 1)


def elements(file: BinaryIO) -> Iterator[Element]:
    """Yield the top-level elements, standing at each one's value; an encapsulated Pixel Data is the last one."""
    while (element := head(file)) is not None:
        yield element
        if element.length == UNDEFINED:
            if element.tag == PIXEL_DATA:
                return
            if element.vr == b"UN":
                raise PrepareError("a sequence in Implicit VR")
            file.seek(element.value_at)
            skip_sequence(file)
        else:
            file.seek(element.value_at + element.length)


@dataclass(frozen=True, slots=True)
class PixelPlace:
    """Pixel Data, what describes it, and what a change of its Transfer Syntax touches beside it."""

    facts: PixelFacts
    data: Element
    beside: Mapping[int, Element]
    """By tag, what stands before Pixel Data and may have to change with it."""
    lossy: str
    """Lossy Image Compression (0028,2110); "" when it is not there."""
    lossy_at: int
    """Where the first element behind (0028,2114) begins."""


def find_pixels(file: BinaryIO) -> PixelPlace:
    """Find Pixel Data; raises PrepareError when there is none, twice, or its description is not whole."""
    found: dict[str, int | str] = {"frames": 1, "planar": 0, "lossy": ""}
    places: dict[int, Element] = {}
    lossy_at = None
    for element in elements(file):
        if lossy_at is None and element.tag > LOSSY_METHOD:
            lossy_at = element.head_at
        if element.tag in _WATCHED:
            if element.tag in places:
                raise PrepareError("an element is there twice")
            if element.length == UNDEFINED and element.tag != PIXEL_DATA:
                raise PrepareError("an attribute of the pixels has no length")
            places[element.tag] = element
        if element.tag in _US or element.tag == PLANAR_CONFIGURATION:
            value = file.read(element.length)
            if len(value) != 2:
                raise PrepareError("an attribute of the pixels is not one number")
            found[_US.get(element.tag, "planar")] = struct.unpack("<H", value)[0]
        elif element.tag in _TEXT and element.length <= 64:
            found[_TEXT[element.tag]] = file.read(element.length).decode("latin-1").strip(" \0")
    if PIXEL_DATA not in places or lossy_at is None:
        raise PrepareError("there is no Pixel Data")
    try:
        facts = PixelFacts(
            rows=int(found["rows"]),
            columns=int(found["columns"]),
            samples=int(found["samples"]),
            bits=int(found["bits"]),
            signed=bool(found["signed"]),
            by_plane=int(found["planar"]) == 1 and int(found["samples"]) > 1,
            frames=int(found["frames"] or 1),
            photometric=str(found["photometric"]),
        )
    except (KeyError, ValueError) as error:
        raise PrepareError("the description of the pixels is not whole") from error
    data = places.pop(PIXEL_DATA)
    beside = {tag: element for tag, element in places.items() if element.head_at < data.head_at}
    return PixelPlace(facts, data, beside, str(found["lossy"]), lossy_at)


SINGLE = frozenset(("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"))
COLOUR = frozenset(("RGB", "YBR_FULL"))


def why_not_coded(facts: PixelFacts) -> str | None:
    """Return why no codec works on pixels of this form, in either direction; None when one may."""
    if facts.bits not in (8, 16):
        return f"Bits Allocated {facts.bits}"
    if not (facts.rows and facts.columns and 0 < facts.frames <= MAX_FRAMES):
        return "an image without pixels"
    if facts.frame_bytes > MAX_FRAME_BYTES:
        return "the frames are too large"
    return None


def why_not_exact(facts: PixelFacts) -> str | None:
    """Return why these pixels are not encoded but passed on as they are; None when they can be exact."""
    if facts.photometric not in {1: SINGLE, 3: COLOUR}.get(facts.samples, ()):
        return colour_of(facts)
    return why_not_coded(facts)


def colour_of(facts: PixelFacts) -> str:
    """Say what the samples are."""
    return f"{facts.samples} samples of {facts.photometric or 'unknown colour'}"
