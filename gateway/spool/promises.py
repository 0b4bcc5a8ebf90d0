"""What scanners ask us to commit to: rows beside the instances they ask about, until the report was taken.

A part of the ledger: `Ledger.promises` writes inside its transactions, `LedgerReader.promises` looks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.model.lifecycle import Custody, Delivery
from gateway.spool.rows import ledger_errors

OPEN = -1
"""Outcome of an item that is not decided."""
COMMITTED = 0


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asked, and as whom we were asked."""

    address: str
    calling_ae_title: str
    called_ae_title: str


@dataclass(frozen=True, slots=True)
class Promise:
    """One request of a scanner."""

    promise_id: int
    transaction_uid: str
    asker: Asker
    asked_at: float
    deadline: float
    """Wall clock: what is open then has failed."""
    decided: bool
    decided_at: float
    attempts: int
    """Reports that were not taken."""


@dataclass(frozen=True, slots=True)
class Item:
    """An instance that a scanner asks about."""

    number: int
    sop_class_uid: str
    sop_instance_uid: str
    outcome: int
    """OPEN, COMMITTED, or a Failure Reason (PS3.3 C.14.1.1)."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the ledger knows of an item's instance."""

    number: int
    known: int
    """Instances here with its SOP Instance UID."""
    of_class: int
    """Those of them with its SOP class too."""
    quarantined: int
    unconfirmed: int
    """Deliveries of them that are not confirmed."""
    unrouted: int
    """Those of them that no destination is queued for."""
    retired: int
    """Those that were here, were confirmed by every destination, and given up."""


_COUNTS = (
    "NOT ({0}.state = :quarantined AND EXISTS (SELECT 1 FROM instance AS other "
    "WHERE other.sop_instance_uid = {0}.sop_instance_uid AND other.sha256 = {0}.sha256 AND other.state != :quarantined"
    "))"
)
"""Of an instance that rotted and was sent again the new copy counts."""


class Promises:
    """The rows, over a connection of the ledger's."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def _all(self, sql: str, *args: Any, **named: Any) -> list[sqlite3.Row]:
        with ledger_errors("reading promises"):
            return self._db.execute(sql, named or args).fetchall()

    def add(
        self, transaction_uid: str, asker: Asker, items: Sequence[tuple[str, str]], now: float, deadline: float
    ) -> bool:
        """Enter a request of (SOP Class UID, SOP Instance UID) pairs; False: it is here already."""
        cursor = self._db.execute(
            "INSERT OR IGNORE INTO promise (transaction_uid, address, calling_ae_title, called_ae_title, asked_at, "
            "deadline) VALUES (?, ?, ?, ?, ?, ?)",
            (transaction_uid, asker.address, asker.calling_ae_title, asker.called_ae_title, now, deadline),
        )
        if not cursor.rowcount:
            return False
        self._db.executemany(
            "INSERT INTO promise_item VALUES (?, ?, ?, ?, ?)",
            ((cursor.lastrowid, number, *item, OPEN) for number, item in enumerate(items)),
        )
        return True

    def count(self) -> int:
        """Return how many requests are not done with."""
        return int(self._all("SELECT count(*) FROM promise WHERE reported = 0")[0][0])

    def due(self, now: float, patience_s: float, *, decided: bool) -> list[Promise]:
        """Return what is to be looked at, or is to be reported, oldest first; see `rows.due` for clocks set back."""
        rows = self._all(
            "SELECT * FROM promise WHERE reported = 0 AND (decided_at IS NOT NULL) = ? "
            "AND (next_attempt_at <= ? OR next_attempt_at > ? + ?) ORDER BY id LIMIT 100",
            *(decided, now, now, patience_s),
        )
        return [_promise(row) for row in rows]

    def decided_for(self, calling_ae_title: str, address: str) -> list[Promise]:
        """Return what one peer is to be told, oldest first."""
        rows = self._all(
            "SELECT * FROM promise WHERE reported = 0 AND decided_at IS NOT NULL AND calling_ae_title = ? "
            "AND address = ? ORDER BY id LIMIT 10",
            *(calling_ae_title, address),
        )
        return [_promise(row) for row in rows]

    def items(self, promise_id: int) -> list[Item]:
        """Return what a request asks about, in its order."""
        rows = self._all(
            "SELECT number, sop_class_uid, sop_instance_uid, outcome FROM promise_item WHERE promise = ? "
            "ORDER BY number",
            promise_id,
        )
        return [Item(*row) for row in rows]

    def standings(self, promise_id: int) -> list[Standing]:
        """Return what is known of the instances of those items that are open."""
        rows = self._all(
            "SELECT number, count(seq), sum(ifnull(i.sop_class_uid = item.sop_class_uid, 0)), "
            "sum(ifnull(i.state = :quarantined, 0)), "
            "(SELECT count(*) FROM delivery JOIN instance AS mine USING (seq) "
            f"  WHERE mine.sop_instance_uid = item.sop_instance_uid AND {_COUNTS.format('mine')} "
            "  AND delivery.state != :confirmed), "
            "sum(i.seq IS NOT NULL AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.seq = i.seq)), "
            "(SELECT count(*) FROM retired WHERE retired.sop_instance_uid = item.sop_instance_uid) "
            "FROM promise_item AS item LEFT JOIN instance AS i ON i.sop_instance_uid = item.sop_instance_uid "
            f"AND {_COUNTS.format('i')} WHERE item.promise = :promise AND item.outcome = :open GROUP BY number",
            quarantined=Custody.QUARANTINED,
            confirmed=Delivery.CONFIRMED,
            promise=promise_id,
            open=OPEN,
        )
        return [Standing(*row) for row in rows]

    def decide(self, promise_id: int, outcomes: Sequence[tuple[int, int]], now: float, next_attempt_at: float) -> None:
        """Write down (number, outcome) of items; with none left open the request is decided."""
        self._db.executemany(
            "UPDATE promise_item SET outcome = ? WHERE promise = ? AND number = ?",
            ((outcome, promise_id, number) for number, outcome in outcomes),
        )
        left = self._db.execute(
            "SELECT count(*) FROM promise_item WHERE promise = ? AND outcome = ?", (promise_id, OPEN)
        ).fetchone()[0]
        self._db.execute(
            "UPDATE promise SET decided_at = ?, next_attempt_at = ? WHERE id = ?",
            (None if left else now, next_attempt_at, promise_id),
        )

    def told(self, promise_id: int) -> None:
        """The report was taken: nothing of it is needed any more but that it was."""
        self._db.execute("UPDATE promise SET reported = 1, reason = '' WHERE id = ?", (promise_id,))
        self._db.execute("DELETE FROM promise_item WHERE promise = ?", (promise_id,))

    def not_told(self, promise_id: int, reason: str, next_attempt_at: float) -> None:
        """The report was not taken: once more later."""
        self._db.execute(
            "UPDATE promise SET attempts = attempts + 1, reason = ?, next_attempt_at = ? WHERE id = ?",
            (reason, next_attempt_at, promise_id),
        )

    def forget(self, asked_before: float) -> int:
        """Drop old requests, reported or not; return how many were not."""
        lost = self._db.execute(
            "SELECT count(*) FROM promise WHERE asked_at < ? AND reported = 0", (asked_before,)
        ).fetchone()[0]
        self._db.execute("DELETE FROM promise WHERE asked_at < ?", (asked_before,))
        return int(lost)

    def summary(self) -> list[dict[str, Any]]:
        """Return what is not done with, oldest first, for a person."""
        rows = self._all(
            "SELECT id, calling_ae_title, address, asked_at, decided_at IS NOT NULL AS decided, attempts, reason, "
            "(SELECT count(*) FROM promise_item WHERE promise = promise.id) AS instances "
            "FROM promise WHERE reported = 0 ORDER BY id LIMIT 50"
        )
        return [dict(row) for row in rows]


def _promise(row: sqlite3.Row) -> Promise:
    return Promise(
        row["id"],
        row["transaction_uid"],
        Asker(row["address"], row["calling_ae_title"], row["called_ae_title"]),
        row["asked_at"],
        row["deadline"],
        row["decided_at"] is not None,
        row["decided_at"] or 0.0,
        row["attempts"],
    )
