"""What is known of the moment at which a recipe is applied. Imports no pydicom: the gateway's own process makes it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Occasion:
    """What is recorded with a change, whatever the change."""

    source: str
    """Source of Previous Values (0400,0564), unless the recipe names one: the sender's AE title."""
    modifying_system: str
    """Modifying System (0400,0563): this box's id."""
    at: float
    """Seconds since 1970. That the instance came, not that it is sent: a second attempt must yield the same bytes."""
