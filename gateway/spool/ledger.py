"""The ledger: all SQL of the house, and the only place where lifecycles are applied.

One `Ledger` writes, in one thread at a time (the one that leads the committer's batch); any number of
`LedgerReader`s look. Row and history change in one transaction. SQLite in WAL mode with synchronous=FULL: what is
committed survives a power cut.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from gateway.model.errors import SpoolError
from gateway.model.instance import Door, Header, Origin, SOPInstance
from gateway.model.lifecycle import CUSTODY, DELIVERY, Custody, CustodyEvent, Delivery, DeliveryEvent, after
from gateway.model.verdict import Outcome, Verdict

SCHEMA_VERSION = 1

_INSTANCE_COLUMNS = (
    "object_id, sop_class_uid, sop_instance_uid, transfer_syntax_uid, sha256, length, study_uid, series_uid, "
    "modality, parsable, door, address, calling_ae_title, called_ae_title, listener_port, received_at"
)


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
    attempts: int
    """Attempts made before this one."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of an accepted object."""

    object_id: str
    duplicate: bool = False
    """The same bytes were here already; no second copy was kept."""
    conflict: bool = False
    """The same UID is here with other bytes; both are kept."""


def _held(row: sqlite3.Row) -> Held:
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


class Ledger:
    """The writing connection. Every method but `transaction` is called inside a transaction."""

    def __init__(self, path: Path) -> None:
        with ledger_errors("opening"):
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
            self._db.row_factory = sqlite3.Row
            mode = self._db.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            if mode != "wal":  # an I/O error here leaves another mode without raising
                raise SpoolError(f"the ledger did not enter WAL mode but stayed in '{mode}'")
            for pragma in ("synchronous=FULL", "foreign_keys=ON", "mmap_size=0", "wal_autocheckpoint=0"):
                self._db.execute(f"PRAGMA {pragma}")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                schema = files("gateway.spool").joinpath("schema.sql").read_text()
                self._db.executescript("BEGIN;" + schema + "COMMIT;")
            elif version != SCHEMA_VERSION:
                raise SpoolError(f"the ledger has version {version}, this program reads {SCHEMA_VERSION}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; after return it is on stable storage. Raises SpoolError."""
        with ledger_errors("writing"):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def step(self) -> Iterator[None]:
        """Part of a transaction that may fail alone."""
        self._db.execute("SAVEPOINT step")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK TO step")
                self._db.execute("RELEASE step")
            raise
        self._db.execute("RELEASE step")

    def checkpoint(self) -> None:
        """Fold the journal into the database; called between transactions by the one writer."""
        with ledger_errors("checkpointing"):
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter that survives restarts."""
        self._db.execute(
            "INSERT INTO counter VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            (name, by),
        )

    def find(self, sop_instance_uid: str) -> list[Held]:
        """Return every instance with this UID that is held or released, oldest first."""
        rows = self._db.execute(
            "SELECT * FROM instance WHERE sop_instance_uid = ? AND state IN (?, ?) ORDER BY seq",
            (sop_instance_uid, Custody.IN_CUSTODY, Custody.RELEASED),
        )
        return [_held(row) for row in rows]

    def accept(self, instance: SOPInstance, shelf: str, destinations: Mapping[str, int], *, conflict: bool) -> None:
        """Enter a new instance whose bytes are durable on `shelf`, and queue it for each destination: priority."""
        header, origin = instance.header, instance.origin
        state = after(CUSTODY, Custody.RECEIVING, CustodyEvent.COMMITTED)
        cursor = self._db.execute(
            f"INSERT INTO instance ({_INSTANCE_COLUMNS}, shelf, state, conflict) VALUES ({', '.join('?' * 19)})",
            (
                instance.object_id,
                instance.sop_class_uid,
                instance.sop_instance_uid,
                instance.transfer_syntax_uid,
                instance.sha256,
                instance.length,
                header.study_instance_uid,
                header.series_instance_uid,
                header.modality,
                header.parsable,
                origin.door,
                origin.address,
                origin.calling_ae_title,
                origin.called_ae_title,
                origin.listener_port,
                instance.received_at,
                shelf,
                state,
                conflict,
            ),
        )
        seq = int(cursor.lastrowid or 0)
        self._note(seq, None, CustodyEvent.COMMITTED, state)
        self.count("accepted")
        if conflict:
            self.count("uid_conflict")
        self.require(seq, Custody.IN_CUSTODY, destinations)

    def require(self, seq: int, state: Custody, destinations: Mapping[str, int]) -> None:
        """Queue an instance for those of `destinations` (name: priority) that it is not yet queued for."""
        added = 0
        for name, priority in destinations.items():
            added += self._db.execute(
                "INSERT OR IGNORE INTO delivery (seq, destination, state, priority) VALUES (?, ?, ?, ?)",
                (seq, name, Delivery.QUEUED, priority),
            ).rowcount
        if added and state is Custody.RELEASED:
            self._custody(seq, state, CustodyEvent.REQUIRED_AGAIN)

    def _note(self, seq: int, destination: str | None, event: str, state: str, detail: str = "") -> None:
        self._db.execute(
            "INSERT INTO history (seq, destination, event, state, at, detail) VALUES (?, ?, ?, ?, ?, ?)",
            (seq, destination, event, state, time.time(), detail),
        )

    def _custody(self, seq: int, state: Custody, event: CustodyEvent, detail: str = "") -> None:
        target = after(CUSTODY, state, event)
        self._db.execute("UPDATE instance SET state = ? WHERE seq = ?", (target, seq))
        self._note(seq, None, event, target, detail)

    def _delivery(self, seq: int, destination: str, event: DeliveryEvent, detail: str = "") -> Delivery:
        row = self._db.execute(
            "SELECT state FROM delivery WHERE seq = ? AND destination = ?", (seq, destination)
        ).fetchone()
        target = after(DELIVERY, Delivery(row["state"]), event)
        self._db.execute("UPDATE delivery SET state = ? WHERE seq = ? AND destination = ?", (target, seq, destination))
        self._note(seq, destination, event, target, detail)
        return target

    def claim(self, destination: str, limit: int, now: float, patience_s: float) -> list[Claim]:
        """Take up to `limit` deliveries that are due, in order of priority and acceptance, into SENDING."""
        claims = due(self._db, destination, limit, now, patience_s)
        for claim in claims:
            self._delivery(claim.held.seq, destination, DeliveryEvent.CLAIMED)
        return claims

    def record(self, seq: int, destination: str, verdict: Verdict, next_attempt_at: float) -> None:
        """Write down what a peer did with an instance; releases the instance when the last peer confirmed."""
        row = self._db.execute(
            "SELECT state FROM delivery WHERE seq = ? AND destination = ?", (seq, destination)
        ).fetchone()
        if row is None or row["state"] not in (Delivery.SENDING, Delivery.QUEUED):
            return
        if row["state"] == Delivery.QUEUED:  # sent while the ledger could not be written
            self._delivery(seq, destination, DeliveryEvent.CLAIMED)
        self._db.execute(
            "UPDATE delivery SET attempts = attempts + 1, next_attempt_at = ?, code = ?, reason = ? "
            "WHERE seq = ? AND destination = ?",
            (next_attempt_at, verdict.code, verdict.text, seq, destination),
        )
        self._delivery(seq, destination, DeliveryEvent(verdict.outcome.value), verdict.text)
        if verdict.outcome is Outcome.ACCEPTED:
            self._delivery(seq, destination, DeliveryEvent.EVIDENCED, "stored")
            self._release_if_done(seq)

    def _release_if_done(self, seq: int) -> None:
        open_rows = self._db.execute(
            "SELECT count(*) FROM delivery WHERE seq = ? AND state != ?", (seq, Delivery.CONFIRMED)
        ).fetchone()[0]
        row = self._db.execute("SELECT state FROM instance WHERE seq = ?", (seq,)).fetchone()
        if not open_rows and row["state"] == Custody.IN_CUSTODY:
            self._custody(seq, Custody.IN_CUSTODY, CustodyEvent.CONFIRMED_BY_ALL)

    def operate(self, seqs: Sequence[int], destination: str | None, event: DeliveryEvent) -> int:
        """Apply an operator's event to the deliveries that it can happen to; return how many."""
        wanted = [state for state, ev in DELIVERY if ev is event]
        changed = 0
        for seq in seqs:
            rows = self._db.execute("SELECT destination, state FROM delivery WHERE seq = ?", (seq,)).fetchall()
            for row in rows:
                if Delivery(row["state"]) in wanted and destination in (None, row["destination"]):
                    self._delivery(seq, row["destination"], event, "operator")
                    changed += 1
        return changed

    def retry_now(self, seqs: Sequence[int], destination: str | None) -> int:
        """Make waiting deliveries due at once; return how many."""
        changed = 0
        for seq in seqs:
            changed += self._db.execute(
                "UPDATE delivery SET next_attempt_at = 0 "
                "WHERE seq = ? AND state = ? AND destination = ifnull(?, destination)",
                (seq, Delivery.QUEUED, destination),
            ).rowcount
        return changed

    def quarantine(self, held: Held, reason: str) -> None:
        """Put an instance where nothing deletes it; its open deliveries are held."""
        self._custody(held.seq, held.state, CustodyEvent.ROT_FOUND, reason)
        self.count("quarantined")
        self._db.execute(
            "UPDATE delivery SET state = ?, reason = ? WHERE seq = ? AND state NOT IN (?, ?)",
            (Delivery.HELD, reason, held.seq, Delivery.SENT, Delivery.CONFIRMED),
        )

    def restart_deliveries(self) -> int:
        """Put what was being sent when the process ended back into the queue; return how many."""
        rows = self._db.execute("SELECT seq, destination FROM delivery WHERE state = ?", (Delivery.SENDING,)).fetchall()
        for row in rows:
            self._delivery(row["seq"], row["destination"], DeliveryEvent.RESTARTED)
        return len(rows)

    def retire(self, seqs: Sequence[int]) -> None:
        """Mark released instances as retired; their files may go after this is durable."""
        for seq in seqs:
            self._custody(seq, Custody.RELEASED, CustodyEvent.RETENTION_OVER)

    def forget(self, seqs: Sequence[int]) -> None:
        """Drop the rows of retired instances whose files are gone; the sums keep counting them."""
        for seq in seqs:
            for row in self._db.execute("SELECT destination FROM delivery WHERE seq = ?", (seq,)).fetchall():
                self.count(f"retired:{row['destination']}")
            self._db.execute("DELETE FROM instance WHERE seq = ? AND state = ?", (seq, Custody.RETIRED))
            self.count("retired")

    def unrouted(self) -> list[Held]:
        """Return instances in custody that no destination is queued for."""
        rows = self._db.execute(
            "SELECT * FROM instance WHERE state = ? AND NOT EXISTS "
            "(SELECT 1 FROM delivery WHERE delivery.seq = instance.seq) ORDER BY seq",
            (Custody.IN_CUSTODY,),
        )
        return [_held(row) for row in rows]


def due(db: sqlite3.Connection, destination: str, limit: int, now: float, patience_s: float) -> list[Claim]:
    """Return deliveries that may go now; a next attempt further away than `patience_s` means the clock was set back.

    An instance whose UID is here with other bytes waits until its elder has been delivered, so that the archive sees
    both in the order of the scanner.
    """
    rows = db.execute(
        "SELECT instance.*, delivery.attempts FROM delivery JOIN instance USING (seq) "
        "WHERE destination = :destination AND delivery.state = :queued "
        "AND (next_attempt_at <= :now OR next_attempt_at > :now + :patience) "
        "AND NOT (conflict AND EXISTS (SELECT 1 FROM instance AS elder JOIN delivery AS ahead USING (seq) "
        "  WHERE elder.sop_instance_uid = instance.sop_instance_uid AND elder.seq < instance.seq "
        "  AND ahead.destination = :destination AND ahead.state IN (:queued, :sending))) "
        "ORDER BY delivery.priority, delivery.seq LIMIT :limit",
        {
            "destination": destination,
            "queued": Delivery.QUEUED,
            "sending": Delivery.SENDING,
            "now": now,
            "patience": patience_s,
            "limit": limit,
        },
    )
    return [Claim(_held(row), destination, row["attempts"]) for row in rows]


class LedgerReader:
    """A connection that can only look. Threads may share it: SQLite serialises, and each answer is fetched whole."""

    def __init__(self, path: Path) -> None:
        with ledger_errors("opening for reading"):
            self._db = sqlite3.connect(
                f"file:{path}?mode=ro", uri=True, check_same_thread=False, timeout=5.0, isolation_level=None
            )
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA query_only=ON")

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def _all(self, sql: str, *args: Any) -> list[sqlite3.Row]:
        with ledger_errors("reading"):
            return self._db.execute(sql, args).fetchall()

    def due(self, destination: str, limit: int, now: float, patience_s: float) -> list[Claim]:
        """Return what `Ledger.claim` would, without taking it."""
        with ledger_errors("reading"):
            return due(self._db, destination, limit, now, patience_s)

    def counters(self) -> dict[str, int]:
        """Return the counters that survive restarts."""
        return {row["name"]: row["value"] for row in self._all("SELECT name, value FROM counter")}

    def custody_counts(self) -> dict[Custody, tuple[int, int]]:
        """Return per custody state (instances, bytes)."""
        rows = self._all("SELECT state, count(*) AS n, sum(length) AS bytes FROM instance GROUP BY state")
        return {Custody(row["state"]): (row["n"], row["bytes"]) for row in rows}

    def delivery_counts(self) -> dict[str, dict[Delivery, int]]:
        """Return per destination and delivery state the number of instances."""
        counts: dict[str, dict[Delivery, int]] = {}
        for row in self._all("SELECT destination, state, count(*) AS n FROM delivery GROUP BY destination, state"):
            counts.setdefault(row["destination"], {})[Delivery(row["state"])] = row["n"]
        return counts

    def unrouted_count(self) -> int:
        """Return how many instances in custody have no destination."""
        sql = (
            "SELECT count(*) AS n FROM instance WHERE state = ? "
            "AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.seq = instance.seq)"
        )
        return int(self._all(sql, Custody.IN_CUSTODY)[0]["n"])

    def oldest_waiting(self, destination: str) -> float | None:
        """Return when the oldest undelivered instance for `destination` was received; None if there is none."""
        rows = self._all(
            "SELECT received_at FROM instance WHERE seq = (SELECT min(seq) FROM delivery "
            "WHERE destination = ? AND state IN (?, ?))",
            destination,
            Delivery.QUEUED,
            Delivery.SENDING,
        )
        return float(rows[0]["received_at"]) if rows else None

    def places(self) -> Iterator[tuple[str, str, int, int, Custody]]:
        """Yield (object_id, shelf, seq, length, state) of every row."""
        with ledger_errors("reading"):
            for row in self._db.execute("SELECT object_id, shelf, seq, length, state FROM instance"):
                yield row["object_id"], row["shelf"], row["seq"], row["length"], Custody(row["state"])

    def get(self, object_id_prefix: str) -> list[Held]:
        """Return the instances whose object id begins so."""
        rows = self._all("SELECT * FROM instance WHERE object_id LIKE ? || '%' LIMIT 50", object_id_prefix)
        return [_held(row) for row in rows]

    def deliveries(self, seq: int) -> list[dict[str, Any]]:
        """Return an instance's deliveries as plain rows."""
        return [dict(row) for row in self._all("SELECT * FROM delivery WHERE seq = ? ORDER BY destination", seq)]

    def history(self, seq: int) -> list[dict[str, Any]]:
        """Return what happened to an instance, oldest first."""
        return [
            dict(row)
            for row in self._all(
                "SELECT destination, event, state, at, detail FROM history WHERE seq = ? ORDER BY id", seq
            )
        ]

    def listing(
        self, states: Sequence[str], destination: str | None, limit: int, *, quarantined: bool = False
    ) -> list[dict[str, Any]]:
        """Return deliveries in any of `states` (all if empty), oldest first, with their instance's facts."""
        marks = ", ".join("?" * len(states)) or "delivery.state"
        rows = self._all(
            "SELECT instance.seq, object_id, sha256, length, modality, received_at, instance.state AS custody, "
            "destination, delivery.state AS state, priority, attempts, next_attempt_at, code, reason "
            "FROM instance LEFT JOIN delivery USING (seq) "
            f"WHERE (delivery.state IS NULL OR delivery.state IN ({marks})) "
            "AND ifnull(destination, '') = ifnull(?, ifnull(destination, '')) "
            "AND (? = 0 OR instance.state = ?) ORDER BY instance.seq LIMIT ?",
            *states,
            destination,
            quarantined,
            Custody.QUARANTINED,
            limit,
        )
        return [dict(row) for row in rows]

    def retirable(self, received_before: float, limit: int) -> list[Held]:
        """Return released instances, oldest first, received before a moment."""
        rows = self._all(
            "SELECT * FROM instance WHERE state = ? AND received_at < ? ORDER BY seq LIMIT ?",
            Custody.RELEASED,
            received_before,
            limit,
        )
        return [_held(row) for row in rows]

    def seqs(self, states: Sequence[str], destination: str | None) -> list[int]:
        """Return the instances that have a delivery in one of `states` (to `destination`, if given)."""
        marks = ", ".join("?" * len(states))
        rows = self._all(
            f"SELECT DISTINCT seq FROM delivery WHERE state IN ({marks}) AND destination = ifnull(?, destination)",
            *states,
            destination,
        )
        return [row["seq"] for row in rows]

    def inventory(self) -> Iterator[dict[str, Any]]:
        """Yield uid, digest and state of every instance; the oracle's view."""
        with ledger_errors("reading"):
            for row in self._db.execute("SELECT object_id, sop_instance_uid, sha256, state FROM instance ORDER BY seq"):
                yield dict(row)
