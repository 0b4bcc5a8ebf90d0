"""Whether a disk can be trusted with the only copy: how long a flush takes, whether it can have happened, and whether
what was written comes back. Measured on a box before it goes to a clinic.

No program can prove that a drive does not lie: it can only catch some. What proves it is pulling the plug (`promise`
and `kept`): the last number on a screen elsewhere must be on the disk afterwards.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

BLOCK = 1 << 20
FLUSHES = 200
LARGE_BYTES = 64 << 20
MEMORY_S = 0.00002
"""A flush faster than this has met no device: the best drives with power-loss protection take about as long."""
FASTEST_BYTES_PER_S = 16e9
"""No drive of these boxes writes faster (PCIe 5.0 x4); what seems to, was not written."""
NO_DISKS = frozenset({"tmpfs", "ramfs", "overlay", "nfs", "nfs4", "cifs", "9p"})
"""Memory, layers and networks: no place for a spool."""
FEWEST = 16
RECORD_BYTES = 512
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Flushes:
    """How flushes went, in seconds."""

    median_s: float
    p99_s: float
    longest_s: float
    nothing_s: float
    """Median of those with nothing to flush."""
    large_bytes_per_s: float
    """At which a large file went to the disk, its flush included."""


@dataclass(frozen=True, slots=True)
class Device:
    """What the kernel says of the disk under a folder; None: it does not say."""

    name: str | None
    file_system: str | None
    model: str | None
    write_cache: str | None
    """`write back`: it keeps what it was told for a while; `write through`: it does not, or says so."""
    rotational: bool | None


def measure(folder: Path, count: int = FLUSHES) -> Flushes:
    """Flush small writes, nothing, and one large write; raises OSError. Leaves nothing behind."""
    path = folder / f".bench-{os.getpid()}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, count * 4096)
        os.fsync(fd)
        small = [_flushed_s(fd, os.urandom(4096), number * 4096) for number in range(count)]
        nothing = [_flushed_s(fd, b"", 0) for _ in range(count // 4)]
        blocks = [os.urandom(BLOCK)] * (LARGE_BYTES // BLOCK)
        started = time.perf_counter()
        for number, block in enumerate(blocks):
            os.pwrite(fd, block, number * BLOCK)
        os.fdatasync(fd)
        large_s = time.perf_counter() - started
    finally:
        os.close(fd)
        path.unlink()
    small.sort()
    nothing.sort()
    return Flushes(
        small[len(small) // 2],
        small[len(small) * 99 // 100],
        small[-1],
        nothing[len(nothing) // 2],
        LARGE_BYTES / max(large_s, 1e-9),
    )


def _flushed_s(fd: int, block: bytes, at: int) -> float:
    if block:
        os.pwrite(fd, block, at)
    started = time.perf_counter()
    os.fdatasync(fd)
    return time.perf_counter() - started


def device_of(folder: Path, root: Path = Path("/")) -> Device:
    """Return what is known of the disk under a folder."""
    number = folder.stat().st_dev
    major_minor = f"{os.major(number)}:{os.minor(number)}"
    file_system = None
    for row in _text(root / "proc/self/mountinfo").splitlines():
        fields = row.split()
        if len(fields) > 6 and fields[2] == major_minor and "-" in fields:
            file_system = fields[fields.index("-") + 1]
    place = root / "sys/dev/block" / major_minor
    if not place.exists():
        return Device(None, file_system, None, None, None)
    place = place.resolve()
    disk = place if (place / "queue").is_dir() else place.parent
    spinning = _text(disk / "queue/rotational")
    return Device(
        disk.name,
        file_system,
        _text(disk / "device/model") or None,
        _text(disk / "queue/write_cache") or None,
        spinning == "1" if spinning else None,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def suspicions(flushes: Flushes, device: Device) -> Iterator[str]:
    """Yield why this disk should not be trusted; none is no proof."""
    if device.file_system in NO_DISKS:
        yield f"this is {device.file_system}: no disk of this box"
    if flushes.median_s < MEMORY_S:
        yield f"a flush takes {flushes.median_s * 1e6:.0f} µs: it has met no device"
    elif device.rotational and flushes.median_s < 0.001:
        yield f"a flush takes {flushes.median_s * 1e3:.2f} ms, less than the disk needs to turn: its cache answers"
    if flushes.large_bytes_per_s > FASTEST_BYTES_PER_S:
        yield f"{flushes.large_bytes_per_s / 1e9:.0f} GB/s were flushed: no drive writes so fast"


@dataclass(slots=True)
class Wear:
    """What a burn-in has seen so far."""

    written_bytes: int = 0
    read_bytes: int = 0
    wrong_blocks: int = 0
    first_wrong: str = ""
    faults: int = 0
    """Calls that failed with an I/O error."""
    slowest_flush_s: float = 0.0


def burn_in(
    folder: Path,
    most_bytes: int,
    for_s: float,
    tell: Callable[[Wear], None],
    clock: Callable[[], float] = time.monotonic,
) -> Wear:
    """Write a pattern, read it back from the disk and compare, over and over; `tell` hears after each pass.

    The last pass is cut short when the time is over, but never below `FEWEST` blocks. Raises OSError but for I/O
    errors, which are counted. Leaves nothing behind.
    """
    seen, deadline, turn = Wear(), clock() + for_s, 0
    path = folder / f".burn-in-{os.getpid()}"
    try:
        while turn == 0 or clock() < deadline:
            blocks = max(1, most_bytes // BLOCK)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                _pass(fd, turn, blocks, seen, lambda done: done >= FEWEST and clock() >= deadline)
            finally:
                os.close(fd)
            turn += 1
            tell(seen)
    finally:
        path.unlink(missing_ok=True)
    return seen


def _pass(fd: int, turn: int, blocks: int, seen: Wear, over: Callable[[int], bool]) -> None:
    written = 0
    for number in range(blocks):
        if over(written):
            break
        _tried(seen, lambda n=number: os.pwrite(fd, pattern(turn, n), n * BLOCK))  # type: ignore[misc]
        written += 1
        seen.written_bytes += BLOCK
        if number % 16 == 15:
            started = time.perf_counter()
            _tried(seen, lambda: os.fdatasync(fd))
            seen.slowest_flush_s = max(seen.slowest_flush_s, time.perf_counter() - started)
    _tried(seen, lambda: os.fsync(fd))
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # so that it is the disk that is read
    for number in range(written):
        found = _tried(seen, lambda n=number: os.pread(fd, BLOCK, n * BLOCK))  # type: ignore[misc]
        seen.read_bytes += BLOCK
        if found is not None and found != pattern(turn, number):
            seen.wrong_blocks += 1
            seen.first_wrong = seen.first_wrong or f"block {number} of pass {turn}"


def _tried(seen: Wear, call: Callable[[], T]) -> T | None:
    try:
        return call()
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        seen.faults += 1
        return None


def pattern(turn: int, number: int) -> bytes:
    """Return a block that no other pass or place has, and that does not compress."""
    return hashlib.shake_128(f"{turn} {number}".encode()).digest(BLOCK)


def promise(path: Path, tell: Callable[[int], None], count: int) -> None:
    """Write numbered records, each flushed before `tell` hears its number; raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)
        for number in range(1, count + 1):
            os.pwrite(fd, _record(number), (number - 1) * RECORD_BYTES)
            os.fdatasync(fd)
            tell(number)
    finally:
        os.close(fd)


def kept(path: Path) -> int:
    """Return up to which number every record is whole; raises OSError."""
    number = 0
    with open(path, "rb") as file:
        while file.read(RECORD_BYTES) == _record(number + 1):
            number += 1
    return number


def _record(number: int) -> bytes:
    return f"{number:020d} ".encode() + hashlib.shake_128(str(number).encode()).digest(RECORD_BYTES - 21)
