"""Areas of native pixels made black, frame by frame, all other bytes copied (PS3.15 E.3.1, PS3.3 C.7.6.3).

Where the text stands is told by rules of the configuration: it is not looked for.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import BinaryIO

import numpy as np
from pydicom.dataset import Dataset

from gateway.config.deidentify import Blacken
from gateway.dicom.part10 import UNDEFINED
from gateway.model.errors import PrepareError
from gateway.prepare.codecs import PixelFacts
from gateway.prepare.deidentify import BURNED_IN, ROWS, text_of
from gateway.prepare.pixels import MAX_FRAME_BYTES, MAX_FRAMES, colour_of, elements, find_pixels
from gateway.prepare.splice import copy_range

MODALITY, MANUFACTURER, MODEL, STATION, COLUMNS = 0x00080060, 0x00080070, 0x00081090, 0x00081010, 0x00280011
BITS_STORED, HIGH_BIT = 0x00280101, 0x00280102
LUT_DESCRIPTORS = (0x00281101, 0x00281102, 0x00281103)
LUT_DATA = (0x00281201, 0x00281202, 0x00281203)
MAX_LUT_BYTES = 2 * 65536
Rectangle = tuple[int, int, int, int]
"""x, y, width, height in pixels, from the upper left."""
Line = list[tuple[int, int]]
"""First and last column plus one of what is black in a row."""


def areas(dataset: Dataset, rules: Sequence[Blacken]) -> tuple[Rectangle, ...]:
    """Return what to blacken in the image that `dataset`, not yet de-identified, describes; none for what is no image.

    Raises PrepareError when no rule knows such images, or all that do say they hold no text, and the image does.
    """
    if ROWS not in dataset:
        return ()
    matching = [rule for rule in rules if _matches(rule, dataset)]
    if not matching:
        raise PrepareError("no blacken rule is made for images of this kind")
    found = tuple(dict.fromkeys(area for rule in matching for area in rule.rectangles))
    if not found and text_of(dataset, BURNED_IN).upper() == "YES":
        raise PrepareError("Burned In Annotation is YES, and no blacken rule says where")
    return found


def _matches(rule: Blacken, dataset: Dataset) -> bool:
    asked = (
        (rule.modality, MODALITY),
        (rule.manufacturer, MANUFACTURER),
        (rule.model, MODEL),
        (rule.station, STATION),
    )
    if any(wanted is not None and wanted.strip() != text_of(dataset, tag) for wanted, tag in asked):
        return False
    return rule.size is None or [str(side) for side in rule.size] == [text_of(dataset, tag) for tag in (COLUMNS, ROWS)]


def blacken(source: BinaryIO, target: BinaryIO, rectangles: Sequence[Rectangle]) -> None:
    """Copy an Explicit VR Little Endian data set, the rectangles of every frame black.

    Needs memory for one row, of single bits for eight frames.
    A rectangle that leaves the image is cut to it. The bits beside Bits Stored become zero inside: they may hold an
    overlay. Raises PrepareError when the pixels are compressed, or it is not certain what black is.
    """
    start = source.tell()
    place = find_pixels(source)
    source.seek(start)
    values = _more_facts(source)
    facts, data = place.facts, place.data
    if data.length == UNDEFINED:
        raise PrepareError("compressed pixels are not blackened")
    if not (facts.rows and facts.columns and 0 < facts.frames <= MAX_FRAMES):
        raise PrepareError("an image without pixels")
    layout = _layout(facts, values)
    total = layout.frame_bits * facts.frames
    if data.length - -(-total // 8) not in (0, 1):
        raise PrepareError("Pixel Data is not as long as its description says")
    copy_range(source, target, start, data.value_at)
    cut = [_cut(rectangle, facts, layout) for rectangle in rectangles]
    lines = [[(x, x + width) for x, y, width, height in cut if y <= row < y + height] for row in range(facts.rows)]
    if facts.bits == 1:
        _bits(source, target, facts, layout.planes[0][0], lines)
    else:
        runs = [(line, len(list(rows))) for line, rows in groupby(lines)]
        for _ in range(facts.frames):
            for fill in layout.planes:
                _plane(source, target, layout, fill, runs)
    copy_range(source, target, data.value_at + -(-total // 8), None)


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the samples lie, and what black is."""

    planes: tuple[bytes, ...]
    """For each plane of a frame, the bytes of a black unit; of single bits, the bit."""
    unit: int
    """Pixels in a unit: 2 where two share their chrominance, else 1."""
    row_bytes: int
    """Length of a row in one plane; 0 for single bits."""
    frame_bits: int


def _layout(facts: PixelFacts, values: dict[int, bytes]) -> _Layout:
    columns, photometric = facts.columns, facts.photometric
    pixels = facts.rows * columns
    if facts.bits == 1 and facts.samples == 1 and photometric in ("MONOCHROME1", "MONOCHROME2"):
        return _Layout((bytes([photometric == "MONOCHROME1"]),), 1, 0, pixels)
    if facts.bits not in (8, 16, 32):
        raise PrepareError(f"not blackened: Bits Allocated {facts.bits}")
    shares = photometric == "YBR_FULL_422" and facts.samples == 3 and facts.bits == 8
    if shares and columns % 2 == 0 and not facts.by_plane:
        return _Layout((bytes((0, 0, 128, 128)),), 2, columns * 2, pixels * 16)  # Y Y Cb Cr (C.7.6.3.1.2)
    black = _black(facts, values)
    if len(black) != facts.samples:
        raise PrepareError("not blackened: the samples are not those of their colour")
    one = facts.bits // 8
    samples = [sample.to_bytes(one, "little") for sample in black]
    planes = tuple(samples) if facts.by_plane else (b"".join(samples),)
    return _Layout(planes, 1, columns * len(planes[0]), pixels * facts.samples * facts.bits)


def _black(facts: PixelFacts, values: dict[int, bytes]) -> tuple[int, ...]:
    """Return, for each sample of a pixel, the bits that are black."""
    stored = _number(values, BITS_STORED, facts.bits)
    high = _number(values, HIGH_BIT, stored - 1)
    if not 0 < stored <= high + 1 <= facts.bits:
        raise PrepareError("not blackened: Bits Stored and High Bit do not fit")
    lowest = -(1 << stored - 1) if facts.signed else 0
    highest = lowest + (1 << stored) - 1
    middle = 1 << stored - 1
    if facts.signed and facts.photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise PrepareError("not blackened: colours with a sign")
    if facts.photometric == "PALETTE COLOR":
        meaning: tuple[int, ...] = (_darkest(values),)
    else:
        known: dict[str, tuple[int, ...]] = {
            "MONOCHROME1": (highest,),
            "MONOCHROME2": (lowest,),
            "RGB": (0, 0, 0),
            "YBR_FULL": (0, middle, middle),
        }
        if facts.photometric not in known:
            raise PrepareError(f"not blackened: {colour_of(facts)}")
        meaning = known[facts.photometric]
    shift = high + 1 - stored
    # Where nothing lies below, the sign goes on to the top, as most write it and simple readers expect.
    mask = (1 << (facts.bits if facts.signed and not shift else stored)) - 1
    return tuple((value & mask) << shift for value in meaning)


def _darkest(values: dict[int, bytes]) -> int:
    """Return the pixel value whose palette colour is nearest to black (C.7.6.3.1.5, C.7.6.3.1.6)."""
    colours, first = [], 0
    for descriptor_tag, data_tag in zip(LUT_DESCRIPTORS, LUT_DATA, strict=True):
        descriptor, data = values.get(descriptor_tag, b""), values.get(data_tag, b"")
        if len(descriptor) != 6:
            raise PrepareError("not blackened: no palette that can be read")
        count, first, bits = struct.unpack("<HHH", descriptor)
        count = count or 65536
        packed = bits == 8 and len(data) in (count, count + count % 2)
        if not packed and len(data) != 2 * count:
            raise PrepareError("not blackened: no palette that can be read")
        colours.append(np.frombuffer(data[: count if packed else 2 * count], "<u1" if packed else "<u2").astype(int))
    if len({len(colour) for colour in colours}) > 1:
        raise PrepareError("not blackened: no palette that can be read")
    return first + int(np.argmin(sum(colours)))


def _number(values: dict[int, bytes], tag: int, default: int) -> int:
    value = values.get(tag)
    return default if value is None or len(value) != 2 else int.from_bytes(value, "little")


def _more_facts(source: BinaryIO) -> dict[int, bytes]:
    """Return the values that say what the bits of a sample mean."""
    wanted = frozenset((BITS_STORED, HIGH_BIT, *LUT_DESCRIPTORS, *LUT_DATA))
    return {e.tag: source.read(e.length) for e in elements(source) if e.tag in wanted and e.length <= MAX_LUT_BYTES}


def _cut(rectangle: Rectangle, facts: PixelFacts, layout: _Layout) -> Rectangle:
    """Cut a rectangle to the image, and widen it to whole units."""
    x, y, width, height = rectangle
    x = min(x, facts.columns)
    end = min(x + width, facts.columns)
    x -= x % layout.unit
    end += -end % layout.unit
    return x, min(y, facts.rows), end - x, height


def _plane(source: BinaryIO, target: BinaryIO, layout: _Layout, fill: bytes, runs: list[tuple[Line, int]]) -> None:
    """Copy one plane of a frame."""
    for line, rows in runs:
        if not line:
            at = source.tell()
            copy_range(source, target, at, at + rows * layout.row_bytes)
            continue
        for _ in range(rows):
            row = bytearray(_read(source, layout.row_bytes))
            for first, end in line:
                units = (end - first) // layout.unit
                at = first // layout.unit * len(fill)
                row[at : at + units * len(fill)] = fill * units
            target.write(row)


def _bits(source: BinaryIO, target: BinaryIO, facts: PixelFacts, black: int, lines: list[Line]) -> None:
    """Copy frames of single bits, lowest bit of a byte first, with no gap between frames (PS3.5 8.1.1).

    So many frames are taken at a time that the last one ends with a byte.
    """
    pixels = facts.rows * facts.columns
    together = 8 // math.gcd(8, pixels)
    if pixels * together > MAX_FRAME_BYTES:
        raise PrepareError("not blackened: the frames are too large")
    for first_frame in range(0, facts.frames, together):
        frames = min(together, facts.frames - first_frame)
        count = frames * pixels
        bits = np.unpackbits(np.frombuffer(_read(source, -(-count // 8)), np.uint8), bitorder="little")
        images = bits[:count].reshape(frames, facts.rows, facts.columns)
        for row, line in enumerate(lines):
            for first, end in line:
                images[:, row, first:end] = black
        target.write(np.packbits(bits, bitorder="little").tobytes())


def _read(source: BinaryIO, length: int) -> bytes:
    value = source.read(length)
    if len(value) != length:
        raise PrepareError("the data set ends too early")
    return value
