"""The ledger: all SQL of the house, and the only place where lifecycles are applied.

One `Ledger` writes, in one thread at a time (the one that leads the committer's batch); any number of
`LedgerReader`s look. Row and history change in one transaction. SQLite in WAL mode with synchronous=FULL: what is
committed survives a power cut.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from gateway.model.errors import SpoolError
from gateway.model.instance import Priority, SOPInstance
from gateway.model.lifecycle import CUSTODY, DELIVERY, Custody, CustodyEvent, Delivery, DeliveryEvent, after
from gateway.model.verdict import Outcome, Verdict
from gateway.model.way import Way
from gateway.spool.announced import Announced
from gateway.spool.promises import Promises
from gateway.spool.rows import NO_OTHER_DISK, Claim, Held, ScrubState, due, held_of, ledger_errors, remember_latest

SCHEMA_VERSION = 9
STORED = "stored"
"""Evidence of a delivery: the peer's success status, and no more than that."""

_INSTANCE_COLUMNS = (
    "object_id, sop_class_uid, sop_instance_uid, transfer_syntax_uid, sha256, length, study_uid, series_uid, "
    "modality, parsable, door, address, calling_ae_title, called_ae_title, listener_port, dimse_priority, received_at"
)


class Ledger:
    """The writing connection. Every method but `transaction` is called inside a transaction."""

    def __init__(self, path: Path) -> None:
        with ledger_errors("opening"):
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
            self._db.row_factory = sqlite3.Row
            mode = self._db.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            if mode != "wal":  # an I/O error here leaves another mode without raising
                raise SpoolError(f"the ledger did not enter WAL mode but stayed in '{mode}'")
            for pragma in ("synchronous=FULL", "foreign_keys=ON", "mmap_size=0", "wal_autocheckpoint=0", NO_OTHER_DISK):
                self._db.execute(f"PRAGMA {pragma}")
            self.promises, self.announced = Promises(self._db), Announced(self._db)
            self._bring_up_to_date(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _bring_up_to_date(self, version: int) -> None:
        """Make the tables, or change those of an older program, one version after the other.

        Those of a newer one are used as they are when it says that we can: an update that is taken back must not
        strand what was accepted meanwhile.
        """
        if version > SCHEMA_VERSION:
            if self._db.execute("SELECT version FROM readable_since").fetchone()[0] <= SCHEMA_VERSION:
                return
            raise SpoolError(
                f"the ledger has version {version}, this program reads up to {SCHEMA_VERSION}",
                hint="install the program that wrote it, or a newer one",
            )
        here = files("gateway.spool")
        steps = [f"migrations/{step:04d}.sql" for step in range(version + 1, SCHEMA_VERSION + 1)]
        for script in steps if version else ["schema.sql"]:
            self._db.executescript("BEGIN IMMEDIATE;" + here.joinpath(script).read_text() + "COMMIT;")

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
        return [held_of(row) for row in rows]

    def accept(
        self, instance: SOPInstance, shelf: str, ways: Mapping[str, Way], *, conflict: bool, adopted: bool = False
    ) -> None:
        """Enter a new instance whose bytes are durable on `shelf`, and queue it for each destination.

        Its row is the first event of its history too, except when it was `adopted` later than it was received.
        """
        header, origin = instance.header, instance.origin
        state = after(CUSTODY, Custody.RECEIVING, CustodyEvent.COMMITTED)
        cursor = self._db.execute(
            f"INSERT INTO instance ({_INSTANCE_COLUMNS}, shelf, state, conflict) VALUES ({', '.join('?' * 20)})",
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
                origin.dimse_priority,
                instance.received_at,
                shelf,
                state,
                conflict,
            ),
        )
        seq = int(cursor.lastrowid or 0)
        if adopted:
            self._note(seq, None, CustodyEvent.COMMITTED, state, "adopted")
        self.count("accepted")
        if conflict:
            self.count("uid_conflict")
        self.require(seq, Custody.IN_CUSTODY, ways)

    def require(self, seq: int, state: Custody, ways: Mapping[str, Way]) -> None:
        """Queue an instance for those of the destinations in `ways` that it is not yet queued for.

        Where one of a failover group has it already, no other gets it.
        """
        added = False
        for name, way in ways.items():
            if way.instead and self._any_has(seq, way.instead):
                continue
            new = self._db.execute(
                "INSERT OR IGNORE INTO delivery (seq, destination, state, priority, recipe, quiet_s, instead) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (seq, name, Delivery.QUEUED, way.priority, " ".join(way.recipe), way.quiet_s, " ".join(way.instead)),
            ).rowcount
            if new:
                added = True
                self.count(f"required:{name}")
        if added and state is Custody.RELEASED:
            self._custody(seq, state, CustodyEvent.REQUIRED_AGAIN)

    def _any_has(self, seq: int, destinations: Sequence[str]) -> bool:
        rows = self._db.execute("SELECT destination FROM delivery WHERE seq = ?", (seq,)).fetchall()
        return any(row["destination"] in destinations for row in rows)

    def reroute(self, destination: str, well: Collection[str], limit: int) -> int:
        """Give up to `limit` queued deliveries of an ill destination to the first of their failover group that is well.

        Returns how many went. What is queued there already is only taken off here.
        """
        rows = self._db.execute(
            "SELECT seq, instead FROM delivery WHERE destination = ? AND state = ? AND instead != '' "
            "ORDER BY priority, seq LIMIT ?",
            (destination, Delivery.QUEUED, limit),
        ).fetchall()
        moved = 0
        for row in rows:
            target = next((name for name in row["instead"].split() if name in well and name != destination), None)
            if target is None:
                continue
            self._hand_over(row["seq"], destination, target)
            moved += 1
        return moved

    def move(self, source: str, target: str, limit: int, recipes: Sequence[str] = ()) -> int:
        """Give up to `limit` deliveries that `source` has not confirmed to `target`: nobody sends to `source` any more.

        Returns how many went. What the target has already is only taken off; what is in quarantine stays, and so does
        what has none of the `recipes`, if there are some.
        """
        fits = f"AND recipe IN ({', '.join('?' * len(recipes))}) " if recipes else ""
        rows = self._db.execute(
            "SELECT seq, delivery.state AS state FROM delivery JOIN instance USING (seq) WHERE destination = ? "
            f"AND delivery.state IN (?, ?, ?) AND instance.state != ? {fits}LIMIT ?",
            (source, Delivery.QUEUED, Delivery.SENT, Delivery.HELD, Custody.QUARANTINED, *recipes, limit),
        ).fetchall()
        for row in rows:
            if row["state"] == Delivery.SENT:
                self._after_sending([row["seq"]], source, DeliveryEvent.MISSED, "operator")
            elif row["state"] == Delivery.HELD:
                self._delivery(row["seq"], source, DeliveryEvent.RELEASED_BY_OPERATOR, "operator")
            self._hand_over(row["seq"], source, target)
        return len(rows)

    def _hand_over(self, seq: int, source: str, target: str) -> None:
        """Make a queued delivery another destination's; take it off where that one has the instance already."""
        self._delivery(seq, source, DeliveryEvent.REROUTED, f"to {target}")
        self.count(f"required:{source}", -1)
        if self._any_has(seq, [target]):
            self._db.execute("DELETE FROM delivery WHERE seq = ? AND destination = ?", (seq, source))
            self._release_if_done(seq)
            return
        self.count(f"required:{target}")
        self._db.execute(
            "UPDATE delivery SET destination = ?, attempts = 0, missed = 0, asked = 0, next_attempt_at = 0, code = 0, "
            "reason = '' WHERE seq = ? AND destination = ?",
            (target, seq, source),
        )

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

    def claim(self, destination: str, priority: Priority, limit: int, now: float, patience_s: float) -> list[Claim]:
        """Take up to `limit` deliveries of one priority that are due, in order of acceptance, into SENDING."""
        claims = due(self._db, destination, priority, limit, now, patience_s)
        for claim in claims:
            self._delivery(claim.held.seq, destination, DeliveryEvent.CLAIMED)
        return claims

    def record(
        self, seq: int, destination: str, verdict: Verdict, next_attempt_at: float, *, suffices: bool = True
    ) -> None:
        """Write down what a peer did with an instance; releases the instance when the last peer confirmed.

        `suffices`: that the peer took it is evidence enough; else it is asked for evidence at `next_attempt_at`.
        """
        row = self._db.execute(
            "SELECT state FROM delivery WHERE seq = ? AND destination = ?", (seq, destination)
        ).fetchone()
        if row is None or row["state"] not in (Delivery.SENDING, Delivery.QUEUED):
            return
        if row["state"] == Delivery.QUEUED:  # sent while the ledger could not be written
            self._delivery(seq, destination, DeliveryEvent.CLAIMED)
        self._db.execute(
            "UPDATE delivery SET attempts = attempts + 1, next_attempt_at = ?, code = ?, reason = ?, sent_as = ? "
            "WHERE seq = ? AND destination = ?",
            (next_attempt_at, verdict.code, verdict.text, verdict.sent_as, seq, destination),
        )
        self._delivery(seq, destination, DeliveryEvent(verdict.outcome.value), verdict.text)
        if verdict.outcome is Outcome.ACCEPTED and suffices:
            self.confirm([seq], destination, STORED)

    def confirm(self, seqs: Iterable[int], destination: str, evidence: str) -> int:
        """Write down evidence that the peer has what it was sent; return for how many that was news."""
        return self._after_sending(seqs, destination, DeliveryEvent.EVIDENCED, evidence)

    def miss(self, seqs: Iterable[int], destination: str, reason: str, next_attempt_at: float, limit: int) -> int:
        """Write down that the peer does not have what it was sent: it goes again, after `limit` times it is held.

        Return how many.
        """
        changed = 0
        for seq in seqs:
            row = self._db.execute(
                "SELECT missed, instance.state AS custody FROM delivery JOIN instance USING (seq) "
                "WHERE seq = ? AND destination = ? AND delivery.state = ?",
                (seq, destination, Delivery.SENT),
            ).fetchone()
            if row is None:
                continue
            again = row["missed"] + 1 < limit and row["custody"] != Custody.QUARANTINED
            event = DeliveryEvent.MISSED if again else DeliveryEvent.NEVER_KEPT
            changed += self._after_sending([seq], destination, event, reason)
            self._db.execute(
                "UPDATE delivery SET missed = missed + 1, asked = 0, next_attempt_at = ?, reason = ? "
                "WHERE seq = ? AND destination = ?",
                (next_attempt_at, reason, seq, destination),
            )
        return changed

    def _after_sending(self, seqs: Iterable[int], destination: str, event: DeliveryEvent, detail: str) -> int:
        """Apply what becomes known later to those deliveries that are still SENT; return how many."""
        changed = 0
        for seq in seqs:
            row = self._db.execute(
                "SELECT state FROM delivery WHERE seq = ? AND destination = ?", (seq, destination)
            ).fetchone()
            if row is not None and row["state"] == Delivery.SENT:
                self._delivery(seq, destination, event, detail)
                self._db.execute("DELETE FROM commitment WHERE seq = ? AND destination = ?", (seq, destination))
                self._release_if_done(seq)
                changed += 1
        return changed

    def ask(self, seqs: Iterable[int], destination: str, next_attempt_at: float, transaction_uid: str = "") -> int:
        """Write down that a peer is asked for evidence, and when it is to be asked again if none comes.

        Return how many still wait for evidence.
        """
        changed = 0
        for seq in seqs:
            waits = self._db.execute(
                "UPDATE delivery SET asked = asked + 1, next_attempt_at = ? "
                "WHERE seq = ? AND destination = ? AND state = ?",
                (next_attempt_at, seq, destination, Delivery.SENT),
            ).rowcount
            changed += waits
            if not waits:
                continue
            if transaction_uid:
                self._db.execute("INSERT INTO commitment VALUES (?, ?, ?)", (transaction_uid, seq, destination))
        return changed

    def trust(self, destination: str) -> int:
        """Take a destination's word for all that it was sent: its configuration no longer asks for more."""
        rows = self._db.execute(
            "SELECT seq FROM delivery WHERE destination = ? AND state = ?", (destination, Delivery.SENT)
        ).fetchall()
        return self.confirm([row["seq"] for row in rows], destination, STORED)

    def _release_if_done(self, seq: int) -> None:
        open_rows = self._db.execute(
            "SELECT count(*) FROM delivery WHERE seq = ? AND state != ?", (seq, Delivery.CONFIRMED)
        ).fetchone()[0]
        row = self._db.execute("SELECT state FROM instance WHERE seq = ?", (seq,)).fetchone()
        if not open_rows and row["state"] == Custody.IN_CUSTODY:
            self._custody(seq, Custody.IN_CUSTODY, CustodyEvent.CONFIRMED_BY_ALL)
            self._db.execute(
                "UPDATE instance SET released_at = ?, proven = NOT EXISTS (SELECT 1 FROM delivery "
                "WHERE delivery.seq = instance.seq AND NOT EXISTS (SELECT 1 FROM history WHERE seq = delivery.seq "
                "AND destination = delivery.destination AND event = ? AND detail != ?)) WHERE seq = ?",
                (time.time(), DeliveryEvent.EVIDENCED, STORED, seq),
            )

    def operate(self, seqs: Sequence[int], destination: str | None, event: DeliveryEvent) -> int:
        """Apply an operator's event to the deliveries that it can happen to; return how many.

        What is in quarantine is not released: there is nothing to send.
        """
        wanted = [state for state, ev in DELIVERY if ev is event]
        changed = 0
        for seq in seqs:
            if event is DeliveryEvent.RELEASED_BY_OPERATOR and self._state(seq) is Custody.QUARANTINED:
                continue
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

    def quarantine(self, held: Held, reason: str) -> bool:
        """Put an instance where nothing deletes it; its open deliveries are held. Returns False when it is there
        already, or was given up since `held` was read."""
        state = self._state(held.seq)
        if state not in (Custody.IN_CUSTODY, Custody.RELEASED):
            return False
        self._custody(held.seq, state, CustodyEvent.ROT_FOUND, reason)
        self.count("quarantined")
        self._db.execute(
            "UPDATE delivery SET state = ?, reason = ? WHERE seq = ? AND state NOT IN (?, ?)",
            (Delivery.HELD, reason, held.seq, Delivery.SENT, Delivery.CONFIRMED),
        )
        return True

    def _state(self, seq: int) -> Custody | None:
        row = self._db.execute("SELECT state FROM instance WHERE seq = ?", (seq,)).fetchone()
        return Custody(row["state"]) if row else None

    def restart_deliveries(self, destination: str | None = None, in_hand: Collection[int] = ()) -> int:
        """Put what is being sent (to `destination`, if given) and in nobody's hand back into the queue; return how
        many."""
        rows = self._db.execute(
            "SELECT seq, destination FROM delivery WHERE state = ? AND destination = ifnull(?, destination)",
            (Delivery.SENDING, destination),
        ).fetchall()
        strays = [row for row in rows if row["seq"] not in in_hand]
        for row in strays:
            self._delivery(row["seq"], row["destination"], DeliveryEvent.RESTARTED)
        return len(strays)

    def retire(self, seqs: Sequence[int]) -> list[int]:
        """Mark those that are released still as retired, and return them; their files may go after this is durable.

        Since they were chosen, one may have come again and be required by another destination, or be found rotten.
        """
        retired = [seq for seq in seqs if self._state(seq) is Custody.RELEASED]
        for seq in retired:
            self._custody(seq, Custody.RELEASED, CustodyEvent.RETENTION_OVER)
        return retired

    def forget(self, seqs: Sequence[int]) -> None:
        """Drop the rows of retired instances whose files are gone; the sums keep counting them."""
        for seq in seqs:
            rows = self._db.execute("SELECT destination FROM delivery WHERE seq = ?", (seq,)).fetchall()
            for row in rows:
                self.count(f"retired:{row['destination']}")
            self._db.execute(
                "INSERT INTO retired (study_uid, sop_instance_uid, destinations, received_at) "
                "SELECT study_uid, sop_instance_uid, ?, received_at FROM instance WHERE seq = ?",
                (" ".join(row["destination"] for row in rows), seq),
            )
            # Not left to the foreign key: their sums need the length of an instance that is still there.
            self._db.execute("DELETE FROM delivery WHERE seq = ?", (seq,))
            self._db.execute("DELETE FROM instance WHERE seq = ? AND state = ?", (seq, Custody.RETIRED))
            self.count("retired")
        remember_latest(self._db, "retired")

    def believe(self, now: float, plausible: float) -> None:
        """Let the days of what was released before the clock was known begin now."""
        self._db.execute(
            f"UPDATE instance SET released_at = ? WHERE state = '{Custody.RELEASED}' AND proven IN (0, 1) "
            "AND released_at < ?",
            (now, plausible),
        )

    def save_scrub(self, state: ScrubState) -> None:
        """Write down how far reading everything again has come."""
        self._db.execute(
            "INSERT OR REPLACE INTO scrub (id, began_at, finished_at, position) VALUES (1, ?, ?, ?)",
            (state.began_at, state.finished_at, state.position),
        )

    def unrouted(self) -> list[Held]:
        """Return instances in custody that no destination is queued for."""
        rows = self._db.execute(
            "SELECT * FROM instance WHERE state = ? AND NOT EXISTS "
            "(SELECT 1 FROM delivery WHERE delivery.seq = instance.seq) ORDER BY seq",
            (Custody.IN_CUSTODY,),
        )
        return [held_of(row) for row in rows]
