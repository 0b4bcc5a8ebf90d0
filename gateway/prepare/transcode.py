"""Native pixels to a lossless code stream and back, frame by frame, each frame proven before it may leave.

Only Pixel Data changes, and what its new Transfer Syntax obliges (Planar Configuration, the group length); every other
byte of an Explicit VR Little Endian data set is copied as it is. On any surprise: PrepareError, and the original goes.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from gateway.dicom.part10 import ITEM, SEQUENCE_END, UNDEFINED, element_bytes
from gateway.model.errors import PrepareError
from gateway.model.transfer_syntax import DEFLATED_LE, EXPLICIT_LE, NATIVE
from gateway.prepare.codecs import CODECS, Codec, PixelFacts, to_pixels
from gateway.prepare.decode import decode
from gateway.prepare.deflate import deflate
from gateway.prepare.pixels import PIXEL_TABLES, PLANAR_CONFIGURATION, find_pixels, why_not_exact
from gateway.prepare.pool import DISK_FAULTS
from gateway.prepare.reencode import BLOCK_BYTES, reencode
from gateway.prepare.splice import copy_head, copy_range

MAX_OFFSET = 0xFFFFFFFF


def transcode(path: Path, offset: int, source_syntax: str, target_syntax: str, out: Path) -> tuple[str, int]:
    """Write the data set at `offset` of `path` to `out` in another Transfer Syntax; return (SHA-256, bytes).

    Raises PrepareError when that cannot be done exactly, and OSError for one of DISK_FAULTS; from a lossy syntax: as
    every decoder would.
    """
    plain = out.with_name(f"{out.name}.plain")  # not with_suffix: another worker may render the same object
    try:
        if source_syntax not in NATIVE:
            with open(path, "rb") as source, open(plain, "wb") as target:
                source.seek(offset)
                decode(source, source_syntax, target)
            path, offset, source_syntax = plain, 0, EXPLICIT_LE
            if target_syntax == EXPLICIT_LE:
                plain.rename(out)
                return _digest(out)
        if target_syntax in NATIVE and target_syntax != DEFLATED_LE:
            return reencode(path, offset, source_syntax, target_syntax, out)
        if source_syntax != EXPLICIT_LE:
            reencode(path, offset, source_syntax, EXPLICIT_LE, plain)
            path, offset = plain, 0
        with open(path, "rb") as source, open(out, "wb") as target:
            source.seek(offset)
            if target_syntax == DEFLATED_LE:
                read, written = deflate(source, target)
                if written >= read:
                    raise PrepareError("the deflated data set is no shorter")
            else:
                _encode(source, target_syntax, target)
        return _digest(out)
    except (OSError, struct.error, zlib.error) as error:
        if isinstance(error, OSError) and error.errno in DISK_FAULTS:
            raise
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


def _encode(source: BinaryIO, target_syntax: str, target: BinaryIO) -> None:
    """Encapsulate (PS3.5 A.4): one fragment a frame, with a Basic Offset Table where there are several."""
    start = source.tell()
    place = find_pixels(source)
    facts, codec, why = place.facts, CODECS.get(target_syntax), why_not_exact(place.facts)
    if codec is None:
        raise PrepareError("no codec for this Transfer Syntax")
    if why is not None:
        raise PrepareError(f"not coded: {why}")
    native = facts.frame_bytes * facts.frames
    if place.data.length not in (native, native + native % 2):
        raise PrepareError("Pixel Data is not as long as its description says")
    by_pixel = element_bytes(PLANAR_CONFIGURATION, b"US", struct.pack("<H", 0))
    changes = {PLANAR_CONFIGURATION: by_pixel} if PLANAR_CONFIGURATION in place.beside else {}
    copy_head(source, target, start, place, changes | dict.fromkeys(PIXEL_TABLES))
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
    copy_range(source, target, place.data.value_at + place.data.length, None)
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
