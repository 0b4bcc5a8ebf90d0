"""Whose turn it is in a lane: STAT, then normal, then bulk, and none of them waits for ever. Pure."""

from __future__ import annotations

from gateway.model.instance import Priority

BULK_SHARE = 8
"""While bulk waits, one of so many sends that are not STAT is bulk."""
CALM_SHARE = 32
"""While anything else waits, one of so many sends is not STAT: who calls everything urgent must not stop the rest."""


class Turns:
    """What went lately, and which class therefore goes next.

    It need not know what waits: whoever asks takes the first class of `order` that has something, and says so. Within
    a class the order of acceptance holds. The head of the bulk queue sees at most 255 others go first, that of the
    normal queue at most 63, that of the STAT queue at most one in 32.
    """

    def __init__(self) -> None:
        self._stat_in_a_row = 0
        self._normal_since_bulk = 0

    def order(self) -> tuple[Priority, ...]:
        """Return the classes, the one that goes first if it has something at the front."""
        calm = (Priority.NORMAL, Priority.BULK)
        if self._normal_since_bulk >= BULK_SHARE - 1:
            calm = (Priority.BULK, Priority.NORMAL)
        return (*calm, Priority.STAT) if self._stat_in_a_row >= CALM_SHARE - 1 else (Priority.STAT, *calm)

    def went(self, priority: Priority) -> None:
        """Take note that one of this class goes."""
        if priority is Priority.STAT:
            self._stat_in_a_row += 1
            return
        self._stat_in_a_row = 0
        self._normal_since_bulk = 0 if priority is Priority.BULK else self._normal_since_bulk + 1
