"""What a box says about itself, as plain values. None means: this box cannot know; it is told as "unknown".

Nothing here can hold patient data: names come from our own configuration, codes from our own tables; the rest are
numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

UNKNOWN = "unknown"


class Severity(StrEnum):
    """WARNING: someone may need to look. CRITICAL: someone must."""

    WARNING = "warning"
    CRITICAL = "critical"


class Status(StrEnum):
    """The worst of all reasons; OK without any."""

    OK = "ok"
    DEGRADED = "degraded"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that is not as it should be."""

    code: str
    severity: Severity
    component: str
    """`disk`, `clock`, or the name of a destination, modality or certificate."""
    since: float = 0.0
    """Wall clock, seconds since 1970."""


def status_of(reasons: list[Reason]) -> Status:
    """Return the status that these reasons make."""
    if any(reason.severity is Severity.CRITICAL for reason in reasons):
        return Status.CRITICAL
    return Status.DEGRADED if reasons else Status.OK


@dataclass(frozen=True, slots=True)
class Sums:
    """The arithmetic of custody (contract D12), in instances unless said otherwise."""

    accepted: int = 0
    held: int = 0
    held_bytes: int = 0
    released: int = 0
    quarantined: int = 0
    retired: int = 0
    duplicates: int = 0
    uid_conflicts: int = 0
    unrouted: int = 0
    lost: int = 0
    short_studies: int = 0
    agree: bool = True


@dataclass(frozen=True, slots=True)
class DestinationReport:
    """One destination, in instances."""

    name: str
    breaker: str = "closed"
    """`closed`: well; `open`: ill, waits for a probe; `paused`: by an operator."""
    accepted: int = 0
    queued: int = 0
    sending: int = 0
    sent: int = 0
    confirmed: int = 0
    held: int = 0
    retired: int = 0
    oldest_waiting_since: float | None = None
    """Wall clock; None: nothing waits."""
    last_success: float | None = None
    """Wall clock; None: not since the service started."""
    last_error: str = ""
    """A class: `no_answer`, or the status as four hexadecimal or three decimal digits; empty: none."""


@dataclass(frozen=True, slots=True)
class ModalityReport:
    """One configured sender."""

    name: str
    last_object: float | None = None
    """Wall clock; None: nothing is known."""
    studies_today: int = 0
    usual_by_now: float | None = None
    """Studies that this weekday usually brings until this hour; None: not learned yet."""
    silent: bool = False
    """Nothing comes although something usually does."""


@dataclass(frozen=True, slots=True)
class Custodian:
    """What the gateway itself knows, of one moment."""

    sums: Sums
    destinations: tuple[DestinationReport, ...] = ()
    room: str = "open"
    ledger_fault: bool = False
    services: dict[str, bool] = field(default_factory=dict)
    """Rooms of the house; false where a thread stands still."""
    rejected: dict[str, int] = field(default_factory=dict)
    """Associations that were not taken since the start, by reason."""
    refused: dict[str, dict[str, int]] = field(default_factory=dict)
    """The same of each known sender."""
    associations: int = 0
    workers_lost: int = 0
    saved_bytes: int = 0
    codecs: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """Name -> renditions delivered since the start, their bytes as they came, and as they were sent."""
    stays_s: tuple[float, ...] = ()
    """How long the latest objects that were delivered had been here, in rising order."""
    read_only: bool = False
    """The spool's disk cannot be written, whatever its mount flags say."""
    scrub_overdue: bool = False
    """Something was not read again for longer than promised."""
    ledger_rot: bool = False
    """What the ledger says does not fit together any more."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What one sender brought since the last look."""

    modality: str
    """Its name in the configuration."""
    studies: int
    last_at: float


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk under custody."""

    used_pct: float | None = None
    free_bytes: int | None = None
    read_only: bool | None = None
    wear_pct: float | None = None
    """Share of its life that is spent, as the device says; SD cards do not."""
    encrypted: bool | None = None
    """Whether a thief of the disk finds nothing; only our image tells. No alarm: a box without a TPM is as bought."""


@dataclass(frozen=True, slots=True)
class Clock:
    """What the time of day is worth."""

    source: str | None = None
    synced: bool | None = None
    offset_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Power:
    """Heat and supply."""

    temp_c: float | None = None
    throttled: bool | None = None
    undervoltage: bool | None = None
    on_battery: bool | None = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate that we show or trust."""

    name: str
    days_left: float | None = None
    """None: it cannot be read."""


@dataclass(frozen=True, slots=True)
class Host:
    """The machine, of one moment."""

    disk: Disk = Disk()
    clock: Clock = Clock()
    power: Power = Power()
    certificates: tuple[Certificate, ...] = ()
    load1: float | None = None
    memory_available_pct: float | None = None
    rss_bytes: int | None = None
    uptime_s: float | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """What does not change while the service runs."""

    version: str
    model: str | None = None
    serial: str | None = None
    os: str | None = None
    slot: str | None = None
    boot_id: str | None = None
    reset_reason: str | None = None
    config_digest: str = ""
    sbom_digest: str = ""
    """SHA-256 of names and versions of all Python distributions that are installed, hex."""
    destinations: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
