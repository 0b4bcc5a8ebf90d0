"""Rows of the ledger as values, and the one question that its writer and its readers both ask."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from gateway.model.errors import SpoolError
from gateway.model.instance import Door, Header, Origin, Priority, SOPInstance
from gateway.model.lifecycle import Custody, Delivery

NO_OTHER_DISK = "temp_store=MEMORY"
"""SQLite's own temporary files would be in /var/tmp or /tmp, and a ledger fault when those are full."""

REMEMBERED = 100_000
"""Instances that are retired, or that a scanner named, are remembered for so many more: a bound without a clock."""


@dataclass(frozen=True, slots=True)
class Held:
    """A row of the ledger: an instance, its place and its state."""

    seq: int
    shelf: str
    state: Custody
    conflict: bool
    instance: SOPInstance


@dataclass(frozen=True, slots=True)
class Claim:
    """One delivery handed to a lane."""

    held: Held
    destination: str
    priority: Priority
    attempts: int
    """Attempts made before this one."""
    recipe: tuple[str, ...] = ()
    """Names of the tables to apply before it leaves."""


@dataclass(frozen=True, slots=True)
class Sent:
    """An instance that a peer took, and for which it is to give evidence."""

    seq: int
    sop_class_uid: str
    sop_instance_uid: str
    """As the peer knows it."""
    study_uid: str
    """Empty when it is not known how the peer knows it; so is the series then."""
    series_uid: str
    asked: int
    """How often evidence was asked for."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of an accepted object."""

    object_id: str
    duplicate: bool = False
    """The same bytes were here already; no second copy was kept."""
    conflict: bool = False
    """The same UID is here with other bytes; both are kept."""


@dataclass(frozen=True, slots=True)
class Released:
    """An instance that every destination has confirmed."""

    held: Held
    released_at: float
    """When the last of them did, by the box's clock."""
    proven: bool
    """Every one of them gave more evidence than its success status."""


@dataclass(frozen=True, slots=True)
class Sums:
    """What must add up (contract D12), all of one moment."""

    counters: Mapping[str, int]
    custody: Mapping[Custody, tuple[int, int]]
    """Instances and bytes."""
    deliveries: Mapping[str, Mapping[Delivery, int]]
    """By destination."""


@dataclass(frozen=True, slots=True)
class ScrubState:
    """How far reading everything again has come."""

    began_at: float
    """When the last pass began, by the box's clock; before the first, when the wait for it began."""
    finished_at: float | None
    """When the last full pass ended; None: there was none yet."""
    position: int | None
    """The last `seq` that was read; None between two passes."""

    @property
    def running(self) -> bool:
        """True within a pass."""
        return self.position is not None


def held_of(row: sqlite3.Row) -> Held:
    header = Header(
        row["sop_class_uid"],
        row["sop_instance_uid"],
        row["study_uid"],
        row["series_uid"],
        row["modality"],
        bool(row["parsable"]),
    )
    origin = Origin(
        Door(row["door"]),
        row["address"],
        row["calling_ae_title"],
        row["called_ae_title"],
        row["listener_port"],
        row["dimse_priority"],
    )
    instance = SOPInstance(
        row["object_id"],
        row["sop_class_uid"],
        row["sop_instance_uid"],
        row["transfer_syntax_uid"],
        row["sha256"],
        row["length"],
        header,
        origin,
        row["received_at"],
    )
    return Held(row["seq"], row["shelf"], Custody(row["state"]), bool(row["conflict"]), instance)


@contextmanager
def ledger_errors(doing: str) -> Iterator[None]:
    """Turn what SQLite says into SpoolError."""
    try:
        yield
    except sqlite3.Error as error:
        raise SpoolError(f"the ledger failed while {doing}: {error}") from error


def remember_latest(db: sqlite3.Connection, table: str) -> None:
    """Keep only the latest rows."""
    db.execute(f"DELETE FROM {table} WHERE id <= (SELECT max(id) FROM {table}) - ?", (REMEMBERED,))


def due(
    db: sqlite3.Connection, destination: str, priority: Priority, limit: int, now: float, patience_s: float
) -> list[Claim]:
    """Return deliveries of one priority that may go now, in order of acceptance.

    A next attempt further away than `patience_s` means that the clock was set back.
    An instance whose UID is here with other bytes waits until its elder has been delivered, so that the archive sees
    both in the order of the scanner. One that waits for its study waits until no other instance of that has come for
    so long; instances from the future (the clock was set back) do not count.
    """
    rows = db.execute(
        "SELECT instance.*, delivery.attempts, delivery.recipe FROM delivery JOIN instance USING (seq) "
        "WHERE destination = :destination AND delivery.state = :queued AND priority = :priority "
        "AND (next_attempt_at <= :now OR next_attempt_at > :now + :patience) "
        "AND NOT (conflict AND EXISTS (SELECT 1 FROM instance AS elder JOIN delivery AS ahead USING (seq) "
        "  WHERE elder.sop_instance_uid = instance.sop_instance_uid AND elder.seq < instance.seq "
        "  AND ahead.destination = :destination AND ahead.state IN (:queued, :sending))) "
        "AND (quiet_s = 0 OR NOT EXISTS (SELECT 1 FROM instance AS other WHERE other.study_uid = instance.study_uid "
        "  AND other.received_at > :now - quiet_s AND other.received_at <= :now)) "
        "ORDER BY delivery.seq LIMIT :limit",
        {
            "destination": destination,
            "priority": priority,
            "queued": Delivery.QUEUED,
            "sending": Delivery.SENDING,
            "now": now,
            "patience": patience_s,
            "limit": limit,
        },
    )
    return [Claim(held_of(row), destination, priority, row["attempts"], tuple(row["recipe"].split())) for row in rows]
