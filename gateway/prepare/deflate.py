"""A data set deflated as a whole, and back (PS3.5 A.5)."""

from __future__ import annotations

import hashlib
import zlib
from typing import BinaryIO

from gateway.model.errors import PrepareError

BLOCK_BYTES = 1 << 20
MAX_INFLATED_BYTES = 16 << 30


def inflate(source: BinaryIO, target: BinaryIO) -> None:
    """Inflate in bounded memory; raises PrepareError for a bomb, zlib.error."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    written = 0
    while block := source.read(BLOCK_BYTES):
        while block:
            out = inflater.decompress(block, BLOCK_BYTES)
            written += len(out)
            if written > MAX_INFLATED_BYTES:
                raise PrepareError("the data set inflates without end")
            target.write(out)
            block = inflater.unconsumed_tail
    target.write(inflater.flush())
    if not inflater.eof:
        raise PrepareError("the deflated data set is cut")


def deflate(source: BinaryIO, target: BinaryIO) -> tuple[int, int]:
    """Deflate the data set as a whole, inflated again to prove it; return the bytes before and after."""
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
    target.write(b"\0" * (written % 2))  # PS3.5 A.5: padded to even length
    return read, written
