"""How much room there is, and what that means for receiving (contract D5)."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Room(StrEnum):
    """OPEN: receive. TIGHT: finish what is open, reject new associations. FULL: answer 0xA700 before storing."""

    OPEN = "open"
    TIGHT = "tight"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Capacity:
    """One look at the disk."""

    total_bytes: int
    free_bytes: int
    free_inodes: int | None
    """None where the file system does not count them."""
    room: Room
    reason: str = ""
    """Why there is no room, in words; empty when there is."""
    read_only: bool = False
    """Nothing can be written, however much is free."""

    @property
    def used_percent(self) -> float:
        """Share of the disk in use, 0 to 100."""
        return 100.0 * (1 - self.free_bytes / self.total_bytes) if self.total_bytes else 100.0


RESERVE_INODES = 64
"""The ledger's journal, a log and the parts in flight need a few inodes as well as bytes."""
LEDGER_RESERVE_BYTES = 16 * 2**20
"""What delivering and releasing some ten thousand instances adds to the ledger; releasing is what makes room."""
RESERVE_FILES = 4
"""Several, because their inodes serve too: a ledger that is opened makes two files."""


def judge(
    total: int, free: int, free_inodes: int | None, reserve_bytes: int, high_water_percent: float
) -> tuple[Room, str]:
    """Return what this much room means, and why; pure. The reserve wins over the water mark."""
    if free < reserve_bytes or free <= 0:
        return Room.FULL, f"{max(0, free)} bytes are free, {reserve_bytes} are kept in reserve"
    if free_inodes is not None and free_inodes < RESERVE_INODES:
        return Room.FULL, f"{free_inodes} inodes are free, {RESERVE_INODES} are kept in reserve"
    used_percent = 100.0 * (1 - free / total) if total else 0.0
    if used_percent > high_water_percent:
        return Room.TIGHT, f"{used_percent:.1f} % are used, more than {high_water_percent:g} %"
    return Room.OPEN, ""


class LedgerReserve:
    """Space that is the ledger's alone: files that are given up when it finds none (contract D5).

    What others write to the disk does not stop at `reserve_bytes`; delivering must go on all the same.
    """

    def __init__(self, data_dir: Path) -> None:
        folder = data_dir / "reserve"
        self._folder = folder
        self._files = [folder / str(number) for number in range(RESERVE_FILES)]
        self._may_lack = True

    def lacking_bytes(self) -> int:
        """Return how much of it is not there."""
        if not self._may_lack:
            return 0
        return LEDGER_RESERVE_BYTES - sum(_size(file) for file in self._files)

    def is_read_only(self) -> bool:
        """Try to open for writing, and write nothing: statvfs does not say that an ext4 gave up (errors=remount-ro)."""
        try:
            os.close(os.open(self._files[0], os.O_WRONLY | os.O_CLOEXEC))
        except OSError as error:
            return error.errno == errno.EROFS
        return False

    def give_up(self) -> None:
        """Let the ledger have the space; never raises."""
        self._may_lack = True
        for file in self._files:
            try:
                file.unlink(missing_ok=True)
            except OSError:
                pass  # a disk that cannot be written at all has other troubles than space

    def take_back(self) -> None:
        """Set the space aside again once there is as much beside it; never raises."""
        if not self._may_lack:
            return
        try:
            lacking = self.lacking_bytes()
            if lacking and _free_bytes(self._folder.parent) < lacking + LEDGER_RESERVE_BYTES:
                return
            self._folder.mkdir(mode=0o750, exist_ok=True)
            for file in self._files:
                _allocate(file, LEDGER_RESERVE_BYTES // RESERVE_FILES)
        except OSError:
            return  # it is tried again
        self._may_lack = False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _allocate(path: Path, size: int) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        os.posix_fallocate(fd, 0, size)
    finally:
        os.close(fd)


def _free_bytes(folder: Path) -> int:
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def look(
    data_dir: Path, reserve_bytes: int, high_water_percent: float, reserve: LedgerReserve | None = None
) -> Capacity:
    """Ask the file system; what the ledger's reserve lacks is not free. Raises OSError.

    `reserve`: that of the spool which is asked before each object, and knows without looking that nothing is lacking.
    """
    stat, reserve = os.statvfs(data_dir), reserve or LedgerReserve(data_dir)
    total = stat.f_blocks * stat.f_frsize
    free = stat.f_bavail * stat.f_frsize - reserve.lacking_bytes()
    inodes = stat.f_favail if stat.f_files else None
    if stat.f_flag & os.ST_RDONLY or reserve.is_read_only():
        return Capacity(total, max(0, free), inodes, Room.FULL, "the file system is read-only", read_only=True)
    room, reason = judge(total, free, inodes, reserve_bytes, high_water_percent)
    return Capacity(total, max(0, free), inodes, room, reason)
