"""When a released instance may go. Pure: clock and settings come in as arguments (contract D7)."""

from __future__ import annotations

DAY_S = 86400.0
OLDEST_PLAUSIBLE = 1_700_000_000.0
"""A clock before this is a box without a battery that has not yet heard the time (contract D10)."""


def received_before(now: float, retention_days: float) -> float | None:
    """Return the moment before which received and released instances may go; None while the clock is not believed."""
    if now < OLDEST_PLAUSIBLE:
        return None
    return now - retention_days * DAY_S
