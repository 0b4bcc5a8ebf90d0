"""The ledger for those who only look: any number of connections beside the one that writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.model.errors import GatewayError
from gateway.model.instance import Priority
from gateway.model.lifecycle import Custody, CustodyEvent, Delivery
from gateway.spool.promises import Promises
from gateway.spool.rows import NO_OTHER_DISK, Claim, Held, Released, ScrubState, Sent, Sums, due, held_of, ledger_errors

_SENT = (
    "seq, sop_class_uid, iif(sent_as = '', sop_instance_uid, sent_as), iif(sent_as = '', study_uid, ''), "
    "iif(sent_as = '', series_uid, ''), asked"
)
"""A recipe that gives an instance another UID does so for its study and series too: they are not known here then."""

WAITING = (Delivery.QUEUED, Delivery.SENDING)
STEPS = 100_000
"""Of SQLite's machine, between two questions whether a check is to go on."""
KEPT = "deliveries, 0 FROM delivery_sum WHERE deliveries != 0"


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
            self._db.execute(f"PRAGMA {NO_OTHER_DISK}")
            self.promises = Promises(self._db)

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def rows(self, sql: str, *args: Any, **named: Any) -> list[sqlite3.Row]:
        """Return what a question in SQL finds; for the rooms of the spool that only look."""
        with ledger_errors("reading"):
            return self._db.execute(sql, named or args).fetchall()

    def rot(self, go_on: Callable[[], bool]) -> list[str]:
        """Read every page, compare every index with its rows, and return what does not fit; takes a second for 100,000
        rows. `go_on` is asked now and then; when it says no, SpoolError is raised, as when nothing can be read."""
        self._db.set_progress_handler(lambda: not go_on(), STEPS)
        with ledger_errors("checking"):
            try:
                found = [str(row[0]) for row in self._db.execute("PRAGMA integrity_check(10)")]
            except sqlite3.OperationalError:  # interrupted, or the disk does not let us at present
                raise
            except sqlite3.DatabaseError as error:  # too rotten to be looked at
                return [str(error)]
            finally:
                self._db.set_progress_handler(None, 0)
        return [] if found == ["ok"] else found

    def due(self, destination: str, priority: Priority, limit: int, now: float, patience_s: float) -> list[Claim]:
        """Return what `Ledger.claim` would, without taking it."""
        with ledger_errors("reading"):
            return due(self._db, destination, priority, limit, now, patience_s)

    def to_be_evidenced(self, destination: str, now: float, patience_s: float, limit: int) -> list[Sent]:
        """Return what a peer took and is to be asked about now, oldest first; see `due` for clocks set back."""
        rows = self.rows(
            f"SELECT {_SENT} FROM delivery JOIN instance USING (seq) "
            "WHERE destination = :destination AND delivery.state = :sent "
            "AND (next_attempt_at <= :now OR next_attempt_at > :now + :patience) ORDER BY seq LIMIT :limit",
            destination=destination,
            sent=Delivery.SENT,
            now=now,
            patience=patience_s,
            limit=limit,
        )
        return [Sent(*row) for row in rows]

    def transaction(self, transaction_uid: str) -> tuple[str, list[Sent]]:
        """Return the destination that was asked in a commitment transaction, and what is not answered of it."""
        rows = self.rows(
            f"SELECT {_SENT}, destination FROM commitment JOIN delivery USING (seq, destination) JOIN instance "
            "USING (seq) WHERE transaction_uid = :transaction",
            transaction=transaction_uid,
        )
        return (rows[0]["destination"] if rows else ""), [Sent(*tuple(row)[:-1]) for row in rows]

    def sums(self, *, counted: bool = False) -> Sums:
        """Return what must add up. One statement, so that a change between two looks is never taken for a loss.

        Deliveries as the ledger keeps their sums; `counted`: row by row, which takes the longer the more there are.
        """
        counters: dict[str, int] = {}
        custody: dict[Custody, tuple[int, int]] = {}
        deliveries: dict[str, dict[Delivery, int]] = {}
        for kind, name, state, count, size in self.rows(
            "SELECT 'counter', name, '', value, 0 FROM counter "
            "UNION ALL SELECT 'custody', '', state, count(*), sum(length) FROM instance GROUP BY state "
            "UNION ALL SELECT 'delivery', destination, state, "
            + ("count(*), 0 FROM delivery GROUP BY destination, state" if counted else KEPT)
        ):
            if kind == "counter":
                counters[name] = count
            elif kind == "custody":
                custody[Custody(state)] = (count, size)
            else:
                deliveries.setdefault(name, {})[Delivery(state)] = count
        return Sums(counters, custody, deliveries)

    def unrouted_count(self) -> int:
        """Return how many instances in custody have no destination."""
        sql = (
            "SELECT count(*) AS n FROM instance WHERE state = ? "
            "AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.seq = instance.seq)"
        )
        return int(self.rows(sql, Custody.IN_CUSTODY)[0]["n"])

    def backlog(self, destination: str) -> Backlog:
        """Return what waits for `destination`, in a time that does not grow with it."""
        (sums,) = self.rows(
            "SELECT ifnull(sum(deliveries), 0) AS n, ifnull(sum(bytes), 0) AS bytes FROM delivery_sum "
            "WHERE destination = ? AND state IN (?, ?)",
            destination,
            *WAITING,
        )
        heads = [
            self.rows(
                "SELECT min(seq) AS seq FROM delivery WHERE destination = ? AND state = ? AND priority = ?",
                destination,
                state,
                priority,
            )[0]["seq"]
            for state in WAITING
            for priority in Priority
        ]
        oldest = min((seq for seq in heads if seq is not None), default=None)
        rows = self.rows("SELECT received_at FROM instance WHERE seq = ?", oldest)
        return Backlog(sums["n"], sums["bytes"], rows[0]["received_at"] if rows else None)

    def oldest_unconfirmed(self, destination: str) -> float | None:
        """Return when the oldest instance was received that `destination` took and gave no evidence of; None: none."""
        rows = self.rows(
            "SELECT received_at FROM instance WHERE seq = (SELECT min(seq) FROM delivery "
            "WHERE destination = :destination AND state = :sent)",
            destination=destination,
            sent=Delivery.SENT,
        )
        return float(rows[0]["received_at"]) if rows else None

    def places(self) -> Iterator[tuple[str, str, int, int, Custody]]:
        """Yield (object_id, shelf, seq, length, state) of every row."""
        with ledger_errors("reading"):
            for row in self._db.execute("SELECT object_id, shelf, seq, length, state FROM instance"):
                yield row["object_id"], row["shelf"], row["seq"], row["length"], Custody(row["state"])

    def get(self, object_id_prefix: str) -> list[Held]:
        """Return the instances whose object id begins so."""
        rows = self.rows("SELECT * FROM instance WHERE object_id LIKE ? || '%' LIMIT 50", object_id_prefix)
        return [held_of(row) for row in rows]

    def one(self, object_id_prefix: str) -> Held:
        """Return the instance whose object id begins so; raises GatewayError unless there is exactly one."""
        found = self.get(object_id_prefix)
        if len(found) != 1:
            hint = "see `dicom-gateway queue list`"
            raise GatewayError(f"{len(found)} objects begin with '{object_id_prefix}'", hint=hint)
        return found[0]

    def deliveries(self, seq: int) -> list[dict[str, Any]]:
        """Return an instance's deliveries as plain rows."""
        return [dict(row) for row in self.rows("SELECT * FROM delivery WHERE seq = ? ORDER BY destination", seq)]

    def history(self, seq: int) -> list[dict[str, Any]]:
        """Return what happened to an instance, oldest first; see `Ledger.accept` for the first event."""
        rows = self.rows(
            "SELECT NULL AS destination, :committed AS event, :in_custody AS state, received_at AS at, '' AS detail, "
            "0 AS id FROM instance WHERE seq = :seq "
            "AND NOT EXISTS (SELECT 1 FROM history WHERE history.seq = :seq AND event = :committed) "
            "UNION ALL SELECT destination, event, state, at, detail, id FROM history WHERE seq = :seq ORDER BY id",
            seq=seq,
            committed=CustodyEvent.COMMITTED,
            in_custody=Custody.IN_CUSTODY,
        )
        return [{name: row[name] for name in row.keys() if name != "id"} for row in rows]  # noqa: SIM118

    def listing(
        self, states: Sequence[str], destination: str | None, limit: int, *, quarantined: bool = False
    ) -> list[dict[str, Any]]:
        """Return deliveries in any of `states` (all if empty), oldest first, with their instance's facts."""
        marks = ", ".join("?" * len(states)) or "delivery.state"
        rows = self.rows(
            "SELECT instance.seq, object_id, sha256, length, modality, received_at, instance.state AS custody, "
            "destination, delivery.state AS state, priority, attempts, next_attempt_at, code, "
            "CASE instance.state WHEN ? THEN (SELECT detail FROM history WHERE history.seq = instance.seq "
            "AND event = ? ORDER BY id DESC LIMIT 1) ELSE reason END AS reason "
            "FROM instance LEFT JOIN delivery USING (seq) "
            f"WHERE (delivery.state IS NULL OR delivery.state IN ({marks})) "
            "AND ifnull(destination, '') = ifnull(?, ifnull(destination, '')) "
            "AND (? = 0 OR instance.state = ?) ORDER BY instance.seq LIMIT ?",
            Custody.QUARANTINED,
            CustodyEvent.ROT_FOUND,
            *states,
            destination,
            quarantined,
            Custody.QUARANTINED,
            limit,
        )
        return [dict(row) for row in rows]

    def page(
        self, after: int, limit: int, destination: str | None, study_uid: str | None, *, quarantined: bool
    ) -> list[Held]:
        """Return instances that are here, oldest first, from the one after `after`: of one study, in quarantine, or
        not yet confirmed by a destination, where that is asked for."""
        rows = self.rows(
            "SELECT * FROM instance WHERE seq > ? AND state != ? AND study_uid = ifnull(?, study_uid) "
            "AND (? = 0 OR state = ?) AND (? IS NULL OR EXISTS (SELECT 1 FROM delivery "
            "WHERE delivery.seq = instance.seq AND destination = ? AND delivery.state != ?)) ORDER BY seq LIMIT ?",
            after,
            Custody.RETIRED,
            study_uid,
            quarantined,
            Custody.QUARANTINED,
            destination,
            destination,
            Delivery.CONFIRMED,
            limit,
        )
        return [held_of(row) for row in rows]

    def released(self, limit: int) -> list[Released]:
        """Return up to `limit` instances that are proven and as many that are not, each those released first."""
        rows = []
        for proven in (False, True):
            rows += self.rows(
                f"SELECT * FROM instance WHERE state = '{Custody.RELEASED}' AND proven = ? "
                "ORDER BY released_at, seq LIMIT ?",
                proven,
                limit,
            )
        return [Released(held_of(row), row["released_at"], bool(row["proven"])) for row in rows]

    def scrub_state(self) -> ScrubState | None:
        """Return how far reading everything again has come; None: nobody has begun yet."""
        rows = self.rows("SELECT began_at, finished_at, position FROM scrub")
        return ScrubState(*rows[0]) if rows else None

    def senders_between(self, after: int, last: int) -> list[tuple[str, str, float, int]]:
        """Return (calling AE title, address, when its last object came, how many studies began) of each sender of
        the instances from the one after `after` to `last`."""
        rows = self.rows(
            "SELECT calling_ae_title, address, max(at) AS at, sum(NOT EXISTS (SELECT 1 FROM instance AS elder "
            "WHERE elder.study_uid = came.study_uid AND elder.seq <= :after)) AS studies FROM ("
            "SELECT calling_ae_title, address, study_uid, max(received_at) AS at FROM instance "
            "WHERE seq > :after AND seq <= :last GROUP BY calling_ae_title, address, study_uid"
            ") AS came GROUP BY calling_ae_title, address",
            after=after,
            last=last,
        )
        return [(row["calling_ae_title"], row["address"], float(row["at"]), int(row["studies"])) for row in rows]

    def last_seq(self) -> int:
        """Return the number of the newest instance; 0 when there is none."""
        return int(self.rows("SELECT ifnull(max(seq), 0) AS seq FROM instance")[0]["seq"])

    def kept_after(self, seq: int) -> Held | None:
        """Return the first instance after `seq` that is in custody or released."""
        rows = self.rows(  # the + keeps SQLite from sorting all of a state to find the first
            "SELECT * FROM instance WHERE seq > ? AND +state IN (?, ?) ORDER BY seq LIMIT 1",
            seq,
            Custody.IN_CUSTODY,
            Custody.RELEASED,
        )
        return held_of(rows[0]) if rows else None

    def kept_bytes_after(self, seq: int) -> int:
        """Return what those instances take together."""
        rows = self.rows(
            "SELECT ifnull(sum(length), 0) AS bytes FROM instance WHERE seq > ? AND +state IN (?, ?)",
            seq,
            Custody.IN_CUSTODY,
            Custody.RELEASED,
        )
        return int(rows[0]["bytes"])

    def seqs(self, states: Sequence[str], destination: str | None) -> list[int]:
        """Return the instances that have a delivery in one of `states` (to `destination`, if given)."""
        marks = ", ".join("?" * len(states))
        rows = self.rows(
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
