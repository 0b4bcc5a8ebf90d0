"""Numbers and moments as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

_STEPS = ((86400 * 2, 86400, "d"), (3600 * 2, 3600, "h"), (120, 60, "min"))


def duration(seconds: float) -> str:
    """Return "45 s", "3 min", "5 h", "12 d"."""
    for least, unit, name in _STEPS:
        if seconds >= least:
            return f"{seconds / unit:.0f} {name}"
    return f"{max(0.0, seconds):.0f} s"


def ago(moment: float, wall: float) -> str:
    """Return how long ago something was; a box's clock may say that it is to come."""
    return f"{duration(wall - moment)} ago" if moment <= wall else "just now"


def stamp(moment: float) -> str:
    """Return a moment in full, UTC."""
    try:
        return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return "at no time"


def count(number: float, noun: str, plural: str = "") -> str:
    """Return "1 box", "2 boxes"."""
    return f"{number:,.0f} {noun if number == 1 else plural or noun + 's'}"


def percent(value: float | None) -> str:
    """Return a share, or what to say when it is not known."""
    return "unknown" if value is None else f"{value:.0f} %"
