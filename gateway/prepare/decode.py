"""Encapsulated pixels to native ones, frame by frame: Explicit VR Little Endian, colour-by-pixel.

The samples are those that every receiver gets from the code stream, so nothing is derived from this instance and its
SOP Instance UID stays, as with DCMTK and Orthanc: a new one is due where pixels are changed (PS3.3 C.7.6.1.1.2), which
whoever compressed them did. Lossy Image Compression stays "01" (C.7.6.1.1.5), and Photometric Interpretation says what
the samples are now (PS3.5 8.2).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from gateway.dicom.part10 import ITEM, SEQUENCE_END, UNDEFINED, element_bytes
from gateway.model.errors import PrepareError
from gateway.model.transfer_syntax import (
    HTJ2K,
    HTJ2K_LOSSLESS,
    HTJ2K_LOSSLESS_RPCL,
    JPEG_2000,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    LOSSY_METHODS,
)
from gateway.prepare.codecs import DECODERS, Code, PixelFacts
from gateway.prepare.pixels import (
    COLOUR,
    IMAGE_GROUP_LENGTH,
    LOSSY_COMPRESSION,
    LOSSY_METHOD,
    LOSSY_RATIO,
    MAX_FRAME_BYTES,
    MAX_FRAMES,
    PHOTOMETRIC_INTERPRETATION,
    PIXEL_TABLES,
    PLANAR_CONFIGURATION,
    SINGLE,
    PixelPlace,
    colour_of,
    find_pixels,
    head,
    why_not_coded,
)
from gateway.prepare.splice import copy_head, copy_range

MAX_NATIVE_BYTES = 0xFFFFFFFE
_JPEG_LOSSY = frozenset({JPEG_BASELINE, JPEG_EXTENDED})
_JPEG_2000 = frozenset({JPEG_2000, JPEG_2000_LOSSLESS, HTJ2K, HTJ2K_LOSSLESS, HTJ2K_LOSSLESS_RPCL})
Fragment = tuple[int, int]
"""Where it begins, and how long it is."""


def decode(source: BinaryIO, source_syntax: str, target: BinaryIO) -> None:
    """Write the data set with native pixels; one fragment a frame is understood, all fragments for a single frame.

    Raises PrepareError when there is doubt what the samples are.
    """
    start = source.tell()
    place = find_pixels(source)
    facts, decoder = place.facts, DECODERS.get(source_syntax)
    if decoder is None:
        raise PrepareError("no codec for this Transfer Syntax")
    photometric = decoded_photometric(facts, source_syntax)
    if place.data.length != UNDEFINED:
        raise PrepareError("Pixel Data is not encapsulated")
    native = facts.frame_bytes * facts.frames
    if native > MAX_NATIVE_BYTES:
        raise PrepareError("native pixels would be too long for one element")
    fragments, end = _fragments(source, place)
    ratio = native / max(1, sum(length for _, length in fragments))
    copy_head(source, target, start, place, _changes(place, source_syntax, photometric, ratio))
    vr = b"OW" if facts.bits == 16 else b"OB"
    target.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, vr, 0, native + native % 2))
    for stream in _streams(source, facts, fragments):
        if facts.samples == 3:
            _doubt_colour(stream, source_syntax, facts.photometric)
        target.write(_frame(stream, facts, decoder))
    target.write(b"\0" * (native % 2))
    copy_range(source, target, end, None)


def decoded_photometric(facts: PixelFacts, source_syntax: str) -> str:
    """Return the Photometric Interpretation of the decoded samples; raises PrepareError when these are not decoded."""
    why = why_not_coded(facts)
    if why is None and facts.samples == 1 and facts.photometric in SINGLE:
        return facts.photometric
    after = {colour: colour for colour in COLOUR}
    if source_syntax in _JPEG_LOSSY:
        after |= {"YBR_FULL": "RGB", "YBR_FULL_422": "RGB"}
    elif source_syntax in _JPEG_2000:
        after |= {"YBR_RCT": "RGB", "YBR_ICT": "RGB"}
    if why is None and facts.samples == 3 and facts.photometric in after:
        return after[facts.photometric]
    raise PrepareError(f"not decoded: {why or colour_of(facts)}")


def _changes(place: PixelPlace, source_syntax: str, photometric: str, ratio: float) -> Mapping[int, bytes | None]:
    changes: dict[int, bytes | None] = dict.fromkeys((IMAGE_GROUP_LENGTH, *PIXEL_TABLES))
    if place.facts.samples > 1:
        changes[PLANAR_CONFIGURATION] = element_bytes(PLANAR_CONFIGURATION, b"US", struct.pack("<H", 0))
    if photometric != place.facts.photometric:
        changes[PHOTOMETRIC_INTERPRETATION] = element_bytes(PHOTOMETRIC_INTERPRETATION, b"CS", photometric.encode())
    if source_syntax not in LOSSY_METHODS:
        return changes
    # JPEG is lossy whatever the data set says; of the others a stream may have lost nothing, and its maker knows.
    if source_syntax in _JPEG_LOSSY or place.lossy != "00":
        changes[LOSSY_COMPRESSION] = element_bytes(LOSSY_COMPRESSION, b"CS", b"01")
        if LOSSY_RATIO not in place.beside and LOSSY_METHOD not in place.beside:  # their values go in pairs
            changes[LOSSY_RATIO] = element_bytes(LOSSY_RATIO, b"DS", f"{ratio:.2f}".encode())
            changes[LOSSY_METHOD] = element_bytes(LOSSY_METHOD, b"CS", LOSSY_METHODS[source_syntax].encode())
    return changes


def _fragments(source: BinaryIO, place: PixelPlace) -> tuple[list[Fragment], int]:
    """Return the fragments behind the Basic Offset Table, and where what follows them begins."""
    found: list[Fragment] = []
    source.seek(place.data.value_at)
    while (item := head(source)) is not None:
        if item.tag == SEQUENCE_END:
            return found[1:], source.tell()
        if item.tag != ITEM or item.length == UNDEFINED or len(found) > MAX_FRAMES:
            raise PrepareError("the fragments cannot be followed")
        found.append((item.value_at, item.length))
        source.seek(item.length, 1)
    raise PrepareError("the fragments have no end")


def _streams(source: BinaryIO, facts: PixelFacts, fragments: list[Fragment]) -> Iterator[bytes]:
    """Yield the code stream of each frame."""
    if facts.frames > 1 and len(fragments) != facts.frames:
        raise PrepareError("the frames cannot be told apart")
    for of_frame in [fragments] if facts.frames == 1 else [[fragment] for fragment in fragments]:
        if sum(length for _, length in of_frame) > MAX_FRAME_BYTES:
            raise PrepareError("not decoded: a frame is too large")
        parts = []
        for at, length in of_frame:
            source.seek(at)
            parts.append(source.read(length))
        yield b"".join(parts)


def _frame(stream: bytes, facts: PixelFacts, decoder: Code) -> bytes:
    try:
        frame = decoder(stream, facts)
    except ImportError as error:
        raise PrepareError("JPEG takes an extra: pip install 'dicom-edge-gateway[jpeg]'") from error
    except (RuntimeError, ValueError, TypeError, AttributeError, MemoryError) as error:
        raise PrepareError(f"the codec refused a frame: {type(error).__name__}") from error
    if len(frame) != facts.frame_bytes:
        raise PrepareError("a frame is not as long as its description says")
    return frame


def _doubt_colour(stream: bytes, source_syntax: str, photometric: str) -> None:
    """Raises PrepareError when the stream says of its colours what Photometric Interpretation does not."""
    if source_syntax in _JPEG_LOSSY:
        says_ybr, must = _jpeg_says_ybr(stream), photometric != "RGB"
    elif source_syntax in _JPEG_2000 and photometric != "RGB":  # RGB comes back as RGB either way
        says_ybr, must = _is_transformed(stream), photometric in ("YBR_RCT", "YBR_ICT")
    else:
        return
    if says_ybr is not None and says_ybr is not must:
        raise PrepareError("the code stream contradicts Photometric Interpretation")


def _segments(stream: bytes, last: int, *, first_at: int) -> Iterator[tuple[int, bytes]]:
    """Yield marker and content of each segment of a JPEG or JPEG 2000 header, up to the marker `last`."""
    at = first_at
    while at + 4 <= len(stream) and stream[at] == 0xFF:
        marker, length = struct.unpack_from(">HH", stream, at)
        if marker == 0xFFFF:  # fill byte (ISO/IEC 10918-1 B.1.1.2)
            at += 1
            continue
        if marker == last or length < 2:
            return
        yield marker, stream[at + 4 : at + 2 + length]
        at += 2 + length


def _jpeg_says_ybr(stream: bytes) -> bool | None:
    """JFIF is YCbCr, Adobe's segment says which; None: neither is there."""
    says = None
    for marker, content in _segments(stream, 0xFFDA, first_at=2):
        if marker == 0xFFEE and content.startswith(b"Adobe") and len(content) >= 12:
            return content[11] != 0
        if marker == 0xFFE0 and content.startswith(b"JFIF\0"):
            says = True
    return says


def _is_transformed(stream: bytes) -> bool | None:
    """Whether a multiple component transformation was used (ISO/IEC 15444-1 A.6.1); None: not found."""
    for marker, content in _segments(stream, 0xFF90, first_at=2):
        if marker == 0xFF52 and len(content) >= 5:
            return content[4] == 1
    return None
