"""How much room there is, and what that means for receiving (contract D5)."""

from __future__ import annotations

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

    @property
    def used_percent(self) -> float:
        """Share of the disk in use, 0 to 100."""
        return 100.0 * (1 - self.free_bytes / self.total_bytes) if self.total_bytes else 100.0


RESERVE_INODES = 64
"""The ledger's journal, a log and the parts in flight need a few inodes as well as bytes."""


def judge(total: int, free: int, free_inodes: int | None, reserve_bytes: int, high_water_percent: float) -> Room:
    """Return what this much room means; pure. The reserve wins over the water mark."""
    if free < reserve_bytes or (free_inodes is not None and free_inodes < RESERVE_INODES):
        return Room.FULL
    if total and 100.0 * (1 - free / total) > high_water_percent:
        return Room.TIGHT
    return Room.OPEN


def look(data_dir: Path, reserve_bytes: int, high_water_percent: float) -> Capacity:
    """Ask the file system; raises OSError."""
    stat = os.statvfs(data_dir)
    total, free = stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize
    inodes = stat.f_favail if stat.f_files else None
    return Capacity(total, free, inodes, judge(total, free, inodes, reserve_bytes, high_water_percent))
