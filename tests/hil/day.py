"""A clinic's day, compressed."""

from __future__ import annotations

from tests.hil.cases import Case


def days() -> list[Case]:
    return []
