"""What a worker may be asked to do in a test, in place of transcoding; here, since a worker imports it by its name."""

from __future__ import annotations

import errno
import os
import resource
import signal
import time
from pathlib import Path

from gateway.model.errors import PrepareError
from gateway.prepare import edit as edit_room
from gateway.prepare import worker
from gateway.prepare.transcode import transcode


def dies(path: Path, offset: int, source_syntax: str, target_syntax: str, out: Path) -> None:
    """As a codec that overflows its stack would, with its files half written."""
    out.write_bytes(b"half")
    out.with_name(f"{out.name}.plain").write_bytes(b"half")
    signal.raise_signal(signal.SIGKILL)


def dies_at_once(*arguments: object) -> None:
    signal.raise_signal(signal.SIGKILL)


def has_no_room(path: Path, offset: int, syntax: str, out: Path, steps: object) -> None:
    """As a disk that is full while a rendition is written."""
    out.with_name(f"{out.name}.plain").write_bytes(b"half")
    raise OSError(errno.ENOSPC, "No space left on device")


def edits_without_room(*arguments: object) -> object:
    """In a worker, where nothing can be put in its place from outside."""
    edit_room.edit = has_no_room
    return worker._edit(*arguments)


def refuses(*arguments: object) -> None:
    raise PrepareError("refused, in words")


def is_slow(path: Path, offset: int, source_syntax: str, target_syntax: str, out: Path) -> tuple[str, int, float]:
    time.sleep(2.5)
    return "0" * 64, 1, 2.5


def says_its_peak(*arguments: object) -> tuple[int, int]:
    """Transcode; return the most memory this process had, and had before, in bytes."""
    import jpeg_ls  # noqa: F401 - the codecs are part of what a worker is

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    transcode(*arguments)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, before * 1024


def fills_the_disk(*_: object) -> None:
    """As an object does that inflates without end."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
