"""Dates of a patient moved together, and what an age was. Pure (PS3.5 6.2, PS3.15 E.3.6)."""

from __future__ import annotations

import re
from datetime import date, timedelta

_DATE = re.compile(r"(\d{4})([.-]?)(\d{2})\2(\d{2})", re.ASCII)
"""Also 2024.03.01, which ACR-NEMA wrote and readers accept (PS3.5 6.2), and 2024-03-01, which nobody should write."""
_DATETIME = re.compile(r"(\d{4})(\d{2})?(\d{2})?(\d{2}(?:\d{2}(?:\d{2}(?:\.\d{1,6})?)?)?)?([+-]\d{4})?", re.ASCII)
_TIME = re.compile(r"\d{2}(:?\d{2}(:?\d{2}(\.\d{1,6})?)?)?", re.ASCII)
_AGE = re.compile(r"\d{3}[DWMY]", re.ASCII)
_ZONE = re.compile(r"[+-]\d{4}", re.ASCII)


def is_time(value: str) -> bool:
    """Whether this is a TM, or a range of two, and so holds nothing else."""
    return all(not part or _TIME.fullmatch(part) for part in value.strip(" \0").split("-", 1))


def is_age(value: str) -> bool:
    """Whether this is an AS."""
    return not value or bool(_AGE.fullmatch(value.strip(" \0")))


def is_zone(value: str) -> bool:
    """Whether this is an offset from UTC (0008,0201)."""
    return bool(_ZONE.fullmatch(value.strip(" \0")))


def moved_date(value: str, days: int) -> str | None:
    """Return a DA, or a range of two, `days` later; None when it is none, or leaves the calendar."""
    text = value.strip(" \0")
    found = _DATE.fullmatch(text)
    if found:
        day = _day(found[1], found[3], found[4], days)
        return None if day is None else day.strftime("%Y%m%d").zfill(8)
    first, dash, last = text.partition("-")
    if not dash:
        return "" if not text else None
    ends = [moved_date(end, days) if end else "" for end in (first, last)]
    return None if None in ends or not any(ends) else f"{ends[0]}-{ends[1]}"


def moved_datetime(value: str, days: int) -> str | None:
    """Return a DT as a whole `days` later, its time, zone and precision kept; None when it is none.

    Of a range (PS3.4 C.2.2.2.5) a data set has no use, so that one counts as none.
    """
    text = value.strip(" \0")
    found = _DATETIME.fullmatch(text)
    if not found:
        return "" if not text else None
    year, month, of_month, time, zone = found.groups()
    if time and not of_month:
        return None
    middle = "15" if month else "01"  # what is not said is taken in its middle: July, or the 15th of the month
    moved = _day(year, month or "07", of_month or middle, days)
    if moved is None:
        return None
    shown = moved.strftime("%Y%m%d").zfill(8)[: 8 if of_month else 6 if month else 4]
    return f"{shown}{time or ''}{zone or ''}"


def _day(year: str, month: str, of_month: str, days: int) -> date | None:
    try:
        return date(int(year), int(month), int(of_month)) + timedelta(days=days)
    except (ValueError, OverflowError):
        return None


def age(born: str, then: str) -> str:
    """Return the AS between two DAs: years from two years on, below that months or days; "" when it is not known."""
    birth, day = _DATE.fullmatch(born.strip(" \0")), _DATE.fullmatch(then.strip(" \0"))
    if not birth or not day:
        return ""
    first, last = _day(birth[1], birth[3], birth[4], 0), _day(day[1], day[3], day[4], 0)
    if first is None or last is None or last < first:
        return ""
    months = (last.year - first.year) * 12 + last.month - first.month - (last.day < first.day)
    if months >= 24:
        return f"{min(months // 12, 999):03d}Y"
    return f"{months:03d}M" if months else f"{(last - first).days:03d}D"
