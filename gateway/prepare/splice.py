"""Copies a data set with some elements changed; every other byte stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import BinaryIO

from gateway.model.errors import PrepareError
from gateway.prepare.pixels import PixelPlace
from gateway.prepare.reencode import BLOCK_BYTES


def copy_range(source: BinaryIO, target: BinaryIO, start: int, end: int | None) -> None:
    """Copy the bytes from `start` to `end` (None: all that follow); raises PrepareError when they are not there."""
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


def copy_head(
    source: BinaryIO, target: BinaryIO, start: int, place: PixelPlace, changes: Mapping[int, bytes | None]
) -> None:
    """Copy what stands before Pixel Data; a watched element that `changes` names becomes those bytes, None: goes.

    One that is not there yet is put in its place, None: is not.
    """
    for tag, new in sorted(changes.items()):
        old = place.beside.get(tag)
        if old is None and new is None:
            continue
        later = [element.head_at for other, element in place.beside.items() if other > tag]
        at = old.head_at if old else min([place.lossy_at, *later])
        copy_range(source, target, start, at)
        target.write(new or b"")
        start = old.value_at + old.length if old else at
    copy_range(source, target, start, place.data.head_at)
