"""The ledger for those who only look: any number of connections beside the one that writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.model.instance import Priority
from gateway.model.lifecycle import Custody, Delivery
from gateway.spool.rows import Claim, Held, due, held_of, ledger_errors

WAITING = (Delivery.QUEUED, Delivery.SENDING)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits for one destination, what is being sent included."""

    objects: int
    bytes: int
    """Of the data sets as they came."""
    oldest_received_at: float | None
    """By the box's clock; None when nothing waits."""


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

    def due(self, destination: str, priority: Priority, limit: int, now: float, patience_s: float) -> list[Claim]:
        """Return what `Ledger.claim` would, without taking it."""
        with ledger_errors("reading"):
            return due(self._db, destination, priority, limit, now, patience_s)

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
        for row in self._all("SELECT destination, state, deliveries FROM delivery_sum WHERE deliveries > 0"):
            counts.setdefault(row["destination"], {})[Delivery(row["state"])] = row["deliveries"]
        return counts

    def unrouted_count(self) -> int:
        """Return how many instances in custody have no destination."""
        sql = (
            "SELECT count(*) AS n FROM instance WHERE state = ? "
            "AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.seq = instance.seq)"
        )
        return int(self._all(sql, Custody.IN_CUSTODY)[0]["n"])

    def backlog(self, destination: str) -> Backlog:
        """Return what waits for `destination`, in a time that does not grow with it."""
        (sums,) = self._all(
            "SELECT ifnull(sum(deliveries), 0) AS n, ifnull(sum(bytes), 0) AS bytes FROM delivery_sum "
            "WHERE destination = ? AND state IN (?, ?)",
            destination,
            *WAITING,
        )
        heads = [
            self._all(
                "SELECT min(seq) AS seq FROM delivery WHERE destination = ? AND state = ? AND priority = ?",
                destination,
                state,
                priority,
            )[0]["seq"]
            for state in WAITING
            for priority in Priority
        ]
        oldest = min((seq for seq in heads if seq is not None), default=None)
        rows = self._all("SELECT received_at FROM instance WHERE seq = ?", oldest)
        return Backlog(sums["n"], sums["bytes"], rows[0]["received_at"] if rows else None)

    def places(self) -> Iterator[tuple[str, str, int, int, Custody]]:
        """Yield (object_id, shelf, seq, length, state) of every row."""
        with ledger_errors("reading"):
            for row in self._db.execute("SELECT object_id, shelf, seq, length, state FROM instance"):
                yield row["object_id"], row["shelf"], row["seq"], row["length"], Custody(row["state"])

    def get(self, object_id_prefix: str) -> list[Held]:
        """Return the instances whose object id begins so."""
        rows = self._all("SELECT * FROM instance WHERE object_id LIKE ? || '%' LIMIT 50", object_id_prefix)
        return [held_of(row) for row in rows]

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
        return [held_of(row) for row in rows]

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
