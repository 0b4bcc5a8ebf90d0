"""What is known of one box."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.fleet import reports
from gateway.fleet.alarms import Standing

MAX_RECONNECTS = 8
HOUR_S = 3600.0
INTERVAL_S = 60.0
"""Of a box that has not said how often it reports."""

Key = tuple[str, str]
"""Tenant and name of a box."""


class Presence(StrEnum):
    """Whether a box is there."""

    ONLINE = "online"
    STALE = "stale"
    """It never said goodbye, but is silent."""
    OFFLINE = "offline"


@dataclass(slots=True)
class Box:
    """One box. Everything may be missing: messages come in any order."""

    tenant: str
    name: str
    heard: float
    """Monotonic; the newest sign of life, as long ago as the broker says that it is."""
    heard_at: float
    """Wall clock, of the same."""
    guessed: bool = True
    """Nothing says yet how old that is; it counts from when we first knew of the box."""
    presence: Presence = Presence.ONLINE
    since: float = 0.0
    """Wall clock, of this presence."""
    since_exact: bool = False
    """False: it was so already when we first heard."""
    said: bool = False
    """Its session was heard since the monitor started."""
    goodbye: reports.Session | None = None
    """What said that it is offline; None while it is not."""
    session: str = ""
    """Of the newest message that said online."""
    reconnects: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_RECONNECTS))
    """Monotonic."""
    health: reports.Health | None = None
    health_payload: bytes = b""
    birth: reports.Birth | None = None
    versions: tuple[str, ...] = ()
    """That it has run, one after the other, newest last; the same may be there twice."""
    version_at: float = 0.0
    """Wall clock; since when it runs the last of them."""
    update: str = ""
    """How the last installation of an update that we heard of went: the status of its result."""
    update_at: float = 0.0
    """Wall clock, when we heard that."""
    modalities: dict[str, reports.Modality] = field(default_factory=dict)
    destinations: dict[str, reports.Destination] = field(default_factory=dict)
    alarms: dict[str, Standing] = field(default_factory=dict)
    invalid: dict[str, str] = field(default_factory=dict)
    """Kind of message -> why it is not understood."""
    sampled: float = 0.0
    """Monotonic; 0: never."""
    revision: int = 0
    """Rises with each change."""

    @property
    def key(self) -> Key:
        """Return tenant and name."""
        return self.tenant, self.name

    @property
    def interval_s(self) -> float:
        """Return how often it is to report, as far as we know."""
        return self.health.interval_s if self.health else INTERVAL_S

    def drops(self, now: float) -> int:
        """Return how often it connected anew in the hour before the monotonic time `now`, as far as we count."""
        return sum(1 for at in self.reconnects if now - at < HOUR_S)
