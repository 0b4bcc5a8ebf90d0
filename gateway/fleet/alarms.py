"""Alarms of the boxes as people see them: which hold, since when, and who has seen them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.fleet.reports import Alarm
from gateway.model.codes import CODES
from gateway.model.health import Severity

MISSED = 2
"""An alarm that so many health messages in a row do not give as a reason has ended: its end was lost on the way."""


@dataclass(slots=True)
class Standing:
    """An alarm that holds at a box. The same code with another `since` is another occurrence, seen by nobody yet."""

    alarm: Alarm
    raised_at: float
    """When we heard of it; our wall clock."""
    acknowledged_by: str = ""
    acknowledged_at: float = 0.0
    missed: int = 0

    def acknowledge(self, who: str, wall: float) -> None:
        """Note that somebody has seen it; the first one counts."""
        if not self.acknowledged_by:
            self.acknowledged_by, self.acknowledged_at = who, wall


def meaning(code: str) -> str:
    """Return a code in words; one that this version does not know is given as it is."""
    known = CODES.get(code)
    return known.meaning.rstrip(".") if known else code.replace("_", " ")


def remedy(code: str) -> str:
    """Return what to do, or nothing where this version does not know the code."""
    known = CODES.get(code)
    return known.remedy if known else ""


def urgency(standing: Standing) -> tuple[bool, bool, float]:
    """Sort by this: what nobody has seen first, then the critical, then the oldest."""
    return bool(standing.acknowledged_by), standing.alarm.severity is not Severity.CRITICAL, standing.raised_at
