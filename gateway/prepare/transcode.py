"""Native pixels to a lossless code stream and back, frame by frame, each frame proven before it may leave.

Only Pixel Data changes, and what its new Transfer Syntax obliges (Planar Configuration, the group length); every other
byte of an Explicit VR Little Endian data set is copied as it is. On any surprise: PrepareError, and the original goes.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from gateway.dicom.part10 import ITEM, SEQUENCE_END, UNDEFINED
from gateway.model.errors import PrepareError
from gateway.model.transfer_syntax import DEFLATED_LE, EXPLICIT_LE, NATIVE
from gateway.prepare.codecs import CODECS, Codec, PixelFacts, to_pixels
from gateway.prepare.pixels import PixelPlace, find_pixels, head, why_not_exact
from gateway.prepare.reencode import reencode

BLOCK_BYTES = 1 << 20
MAX_FRAME_BYTES = 256 << 20
"""A worker holds a frame a few times over, and has 1 GiB; larger frames are passed on."""
MAX_OFFSET = 0xFFFFFFFF


def transcode(path: Path, offset: int, source_syntax: str, target_syntax: str, out: Path) -> tuple[str, int]:
    """Write the data set at `offset` of `path` to `out` in another Transfer Syntax; return (SHA-256, bytes).

    Raises PrepareError when that cannot be done exactly.
    """
    if source_syntax in NATIVE and target_syntax in NATIVE and target_syntax != DEFLATED_LE:
        return reencode(path, offset, source_syntax, target_syntax, out)
    plain = out.with_suffix(".plain")
    try:
        with open(out, "wb") as target:
            if source_syntax not in NATIVE:
                with open(path, "rb") as source:
                    source.seek(offset)
                    _decode(source, source_syntax, target)
                if target_syntax != EXPLICIT_LE:
                    raise PrepareError("decoded pixels are written in Explicit VR Little Endian only")
            else:
                if source_syntax != EXPLICIT_LE:
                    reencode(path, offset, source_syntax, EXPLICIT_LE, plain)
                    path, offset = plain, 0
                with open(path, "rb") as source:
                    source.seek(offset)
                    if target_syntax == DEFLATED_LE:
                        _deflate(source, target)
                    else:
                        _encode(source, target_syntax, target)
        return _digest(out)
    except (OSError, struct.error, zlib.error) as error:
        raise PrepareError(f"transcoding failed: {error}") from error
    finally:
        plain.unlink(missing_ok=True)


def _digest(path: Path) -> tuple[str, int]:
    digest, length = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            length += len(block)
    return digest.hexdigest(), length


def _copy(source: BinaryIO, target: BinaryIO, start: int, end: int | None) -> None:
    source.seek(start)
    left = end - start if end is not None else None
    while left is None or left > 0:
        block = source.read(BLOCK_BYTES if left is None else min(left, BLOCK_BYTES))
        if not block:
            if left is not None:
                raise PrepareError("the data set ends too early")
            return
        target.write(block)
        left = left - len(block) if left is not None else None


def _copy_but_planar(source: BinaryIO, target: BinaryIO, start: int, place: PixelPlace) -> None:
    """Copy what stands before Pixel Data, without its group length, and with colour-by-pixel said."""
    before = [e for e in (place.planar, place.group_length) if e is not None and e.head_at < place.data.head_at]
    for element in sorted(before, key=lambda e: e.head_at):
        if element is place.group_length:
            _copy(source, target, start, element.head_at)
        else:
            _copy(source, target, start, element.value_at)
            target.write(struct.pack("<H", 0))
        start = element.value_at + element.length
    _copy(source, target, start, place.data.head_at)


def _codec(transfer_syntax_uid: str) -> Codec:
    codec = CODECS.get(transfer_syntax_uid)
    if codec is None:
        raise PrepareError("no codec for this Transfer Syntax")
    return codec


def _checked(place: PixelPlace) -> PixelFacts:
    why = why_not_exact(place.facts)
    if why is not None:
        raise PrepareError(f"not coded: {why}")
    if place.facts.frame_bytes > MAX_FRAME_BYTES:
        raise PrepareError("not coded: the frames are too large")
    return place.facts


def _encode(source: BinaryIO, target_syntax: str, target: BinaryIO) -> None:
    """Encapsulate (PS3.5 A.4): one fragment a frame, with a Basic Offset Table where there are several."""
    start = source.tell()
    place = find_pixels(source)
    facts, codec = _checked(place), _codec(target_syntax)
    native = facts.frame_bytes * facts.frames
    if place.data.length not in (native, native + native % 2):
        raise PrepareError("Pixel Data is not as long as its description says")
    _copy_but_planar(source, target, start, place)
    target.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, UNDEFINED))
    table_at = target.tell() + 8
    offsets = [0] * facts.frames if facts.frames > 1 else []
    target.write(_item(4 * len(offsets)) + bytes(4 * len(offsets)))
    first_at = target.tell()
    source.seek(place.data.value_at)
    for number in range(facts.frames):
        if offsets:
            offsets[number] = target.tell() - first_at
        frame = source.read(facts.frame_bytes)
        stream = _proven_stream(to_pixels(frame, facts) if facts.by_plane else frame, facts, codec)
        target.write(_item(len(stream)) + stream)
    if target.tell() - table_at >= native:
        raise PrepareError("the code stream is no shorter than the pixels")
    target.write(struct.pack("<HHI", SEQUENCE_END >> 16, SEQUENCE_END & 0xFFFF, 0))
    _copy(source, target, place.data.value_at + place.data.length, None)
    if offsets and offsets[-1] <= MAX_OFFSET:
        target.seek(table_at)
        target.write(struct.pack(f"<{len(offsets)}I", *offsets))
    elif offsets:
        raise PrepareError("the frames are too many for an offset table")


def _item(length: int) -> bytes:
    return struct.pack("<HHI", ITEM >> 16, ITEM & 0xFFFF, length)


def _proven_stream(frame: bytes, facts: PixelFacts, codec: Codec) -> bytes:
    """Encode a frame, and decode it again: only what comes back equal may leave."""
    try:
        stream = codec.encode(frame, facts)
        back = codec.decode(stream, facts)
    except (RuntimeError, ValueError, TypeError, AttributeError, ImportError, MemoryError) as error:
        raise PrepareError(f"the codec refused a frame: {type(error).__name__}") from error
    if back != frame:
        raise PrepareError("a frame did not come back equal")
    return stream + b"\0" * (len(stream) % 2)


def _fragments(source: BinaryIO, place: PixelPlace) -> Iterator[bytes]:
    """Yield the fragments behind the Basic Offset Table, and stand behind the end."""
    source.seek(place.data.value_at)
    first = True
    while (item := head(source)) is not None:
        if item.tag == SEQUENCE_END:
            return
        if item.tag != ITEM or item.length > MAX_FRAME_BYTES:
            raise PrepareError("the fragments cannot be followed")
        fragment = source.read(item.length)
        if len(fragment) != item.length:
            break
        if not first:
            yield fragment
        first = False
    raise PrepareError("the fragments have no end")


def _decode(source: BinaryIO, source_syntax: str, target: BinaryIO) -> None:
    """Write native pixels, colour-by-pixel; one fragment a frame is understood, all fragments for a single frame."""
    start = source.tell()
    place = find_pixels(source)
    facts, codec = _checked(place), _codec(source_syntax)
    if place.data.length != UNDEFINED:
        raise PrepareError("Pixel Data is not encapsulated")
    _copy_but_planar(source, target, start, place)
    native = facts.frame_bytes * facts.frames
    if native > MAX_OFFSET - 1:
        raise PrepareError("native pixels would be too long for one element")
    vr = b"OW" if facts.bits == 16 else b"OB"
    target.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, vr, 0, native + native % 2))
    frames = 0
    streams: Iterator[bytes] = _fragments(source, place)
    if facts.frames == 1:
        streams = iter([b"".join(streams)])
    for stream in streams:
        try:
            frame = codec.decode(stream, facts)
        except (RuntimeError, ValueError, TypeError, AttributeError, ImportError, MemoryError) as error:
            raise PrepareError(f"the codec refused a frame: {type(error).__name__}") from error
        if len(frame) != facts.frame_bytes:
            raise PrepareError("a frame is not as long as its description says")
        target.write(frame)
        frames += 1
    if frames != facts.frames:
        raise PrepareError("the frames cannot be told apart")
    target.write(b"\0" * (native % 2))
    _copy(source, target, source.tell(), None)


def _deflate(source: BinaryIO, target: BinaryIO) -> None:
    """Deflate the data set as a whole (PS3.5 A.5), and inflate it again to prove it."""
    squeeze, check = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS), zlib.decompressobj(-zlib.MAX_WBITS)
    before, after, written = hashlib.sha256(), hashlib.sha256(), 0
    read = 0
    while True:
        block = source.read(BLOCK_BYTES)
        before.update(block)
        read += len(block)
        out = squeeze.compress(block) if block else squeeze.flush()
        after.update(check.decompress(out))
        target.write(out)
        written += len(out)
        if not block:
            break
    after.update(check.flush())
    if before.digest() != after.digest() or not check.eof:
        raise PrepareError("the data set did not come back equal")
    if written >= read:
        raise PrepareError("the deflated data set is no shorter")
    target.write(b"\0" * (written % 2))  # PS3.5 A.5: padded to even length
