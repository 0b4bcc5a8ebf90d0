"""What is wrong, judged from what is known; pure. What is not known is not wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gateway.health.alarms import Key
from gateway.model.health import Custodian, DestinationReport, Disk, Host, ModalityReport

Holds = Callable[[str, str], bool]
"""Whether a code held for a component at the last look: then the second threshold counts (hysteresis)."""

DISK_PCT = (80.0, 75.0)
WEAR_PCT = (80.0, 80.0)
HOT_C = (80.0, 75.0)
CLOCK_OFF_MS = (1000.0, 500.0)
MEMORY_PCT = (5.0, 10.0)
CERTIFICATE_DAYS = 30.0
OLD_S, VERY_OLD_S = 3600.0, 86400.0


def wrong(
    custodian: Custodian, host: Host, modalities: tuple[ModalityReport, ...], wall: float, holds: Holds
) -> Iterator[Key]:
    """Yield (code, component) of everything that is wrong at the wall clock time `wall`."""
    yield from _custody(custodian)
    for destination in custodian.destinations:
        yield from _destination(destination, wall)
    yield from _disk(host.disk, custodian.room, holds)
    yield from _machine(host, holds)
    for modality in modalities:
        if modality.silent:
            yield "modality_silent", modality.name


def _over(value: float | None, limits: tuple[float, float], held: bool) -> bool:
    return value is not None and value > limits[1 if held else 0]


def _under(value: float | None, limits: tuple[float, float], held: bool) -> bool:
    return value is not None and value < limits[1 if held else 0]


def _custody(custodian: Custodian) -> Iterator[Key]:
    sums = custodian.sums
    for code, holds in {
        "sums_disagree": not sums.agree,
        "custody_loss": sums.lost > 0,
        "ledger_fault": custodian.ledger_fault,
        "ledger_rot": custodian.ledger_rot,
        "room_late": not all(custodian.services.values()),
        "quarantined": sums.quarantined > 0,
        "unrouted": sums.unrouted > 0,
        "study_short": sums.short_studies > 0,
        "scrub_overdue": custodian.scrub_overdue,
    }.items():
        if holds:
            yield code, "custody"


def _destination(destination: DestinationReport, wall: float) -> Iterator[Key]:
    if destination.breaker == "open":
        yield "destination_ill", destination.name
    if destination.breaker == "paused":
        yield "destination_paused", destination.name
    if destination.held:
        yield "dead_letters", destination.name
    age_s = wall - destination.oldest_waiting_since if destination.oldest_waiting_since is not None else 0.0
    if age_s > VERY_OLD_S:
        yield "backlog_very_old", destination.name
    elif age_s > OLD_S:
        yield "backlog_old", destination.name


def _disk(disk: Disk, room: str, holds: Holds) -> Iterator[Key]:
    if room == "full":
        yield "disk_full", "disk"
    elif room == "tight":
        yield "disk_tight", "disk"
    elif _over(disk.used_pct, DISK_PCT, holds("disk_filling", "disk")):
        yield "disk_filling", "disk"
    if disk.read_only:
        yield "disk_read_only", "disk"
    if _over(disk.wear_pct, WEAR_PCT, holds("disk_worn", "disk")):
        yield "disk_worn", "disk"


def _machine(host: Host, holds: Holds) -> Iterator[Key]:
    clock, power = host.clock, host.power
    offset_ms = None if clock.offset_ms is None else abs(clock.offset_ms)
    for code, component, is_so in (
        ("clock_unsynced", "clock", clock.synced is False),
        ("clock_off", "clock", _over(offset_ms, CLOCK_OFF_MS, holds("clock_off", "clock"))),
        ("hot", "power", _over(power.temp_c, HOT_C, holds("hot", "power"))),
        ("throttled", "power", bool(power.throttled)),
        ("undervoltage", "power", bool(power.undervoltage)),
        ("on_battery", "power", bool(power.on_battery)),
        ("memory_short", "memory", _under(host.memory_available_pct, MEMORY_PCT, holds("memory_short", "memory"))),
    ):
        if is_so:
            yield code, component
    for certificate in host.certificates:
        if certificate.days_left is None:
            yield "certificate_unreadable", certificate.name
        elif certificate.days_left <= 0:
            yield "certificate_expired", certificate.name
        elif certificate.days_left < CERTIFICATE_DAYS:
            yield "certificate_expiring", certificate.name
