"""Which released instances may go. Pure: clock, disk and settings come in as arguments (contract D7)."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.config.schema import SpoolSettings
from gateway.model.lifecycle import Custody
from gateway.spool.capacity import RESERVE_INODES, Capacity
from gateway.spool.rows import Released

DAY_S = 86400.0
OLDEST_PLAUSIBLE = 1_700_000_000.0
"""A clock before this is a box without a battery that has not yet heard the time (contract D10)."""
SHORT_PERCENT = 2.0
"""Space is short this far before the high water mark or the reserve: no scanner is turned away for a mere copy."""
ENOUGH_PERCENT = 5.0
"""And until it is this far again: one large series must not make every later one evict by itself."""


def wanted_bytes(capacity: Capacity, settings: SpoolSettings, *, making_room: bool) -> int:
    """Return how much is to be freed before days are over; 0 when there is room.

    Begins when space is short, and while `making_room` goes on until there is enough (hysteresis).
    """
    if not settings.retention_yields:
        return 0
    short = _missing_bytes(capacity, settings, SHORT_PERCENT) > 0
    return _missing_bytes(capacity, settings, ENOUGH_PERCENT) if short or making_room else 0


def _missing_bytes(capacity: Capacity, settings: SpoolSettings, margin_percent: float) -> int:
    total, free = capacity.total_bytes, capacity.free_bytes
    margin = int(total * margin_percent / 100)
    missing = [0]
    if settings.high_water_percent < 100:
        missing.append(total - free + margin - int(total * settings.high_water_percent / 100))
    if settings.reserve_bytes:
        missing.append(settings.reserve_bytes + margin - free)
    if capacity.free_inodes is not None and capacity.free_inodes < margin_percent * RESERVE_INODES:
        missing.append(1)  # a file's inode, so one after the other; the margin is so many times the reserve
    return max(missing)


def kept_until(one: Released, settings: SpoolSettings) -> float:
    """Return when an instance was kept for as long as it was to be; longer, by setting, on weak evidence."""
    days = settings.retention_days
    if not one.proven and settings.retention_days_stored is not None:
        days = settings.retention_days_stored
    return one.released_at + days * DAY_S


def days_are_over(one: Released, settings: SpoolSettings, now: float) -> bool:
    """True when its days are over; never while the clock is not believed."""
    return min(now, one.released_at) >= OLDEST_PLAUSIBLE and kept_until(one, settings) < now


def to_give_up(found: Iterable[Released], settings: SpoolSettings, now: float, wanted: int) -> list[Released]:
    """Return those whose days are over and, where that frees less than `wanted` bytes, further ones until it does.

    Those whose days end first go first, which is those released first unless weak evidence is kept longer. What is
    not released is never among them.
    """
    released = sorted(
        (one for one in found if one.held.state is Custody.RELEASED),
        key=lambda one: (kept_until(one, settings), one.released_at, one.held.seq),
    )
    going = [one for one in released if days_are_over(one, settings, now)]
    freed = sum(one.held.instance.length for one in going)
    for one in released:
        if freed >= wanted:
            break
        if not days_are_over(one, settings, now):
            going.append(one)
            freed += one.held.instance.length
    return going
