"""What is remembered over a restart: one SQLite database, one writer, everything bounded.

Nothing in here is worth a flush per transaction (`synchronous=NORMAL`): the present comes from the broker again with
each connection, and what a power cut may take back is the last minute of history and acknowledgements. The file stays
whole. A database that is damaged all the same is set aside, and a new one begun with what is known.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from gateway.fleet import reports
from gateway.fleet.alarms import Standing
from gateway.fleet.box import Box, Key, Presence
from gateway.fleet.inventory import Inventory
from gateway.fleet.settings import StoreSettings
from gateway.model.errors import GatewayError
from gateway.model.health import Severity

log = logging.getLogger("gateway.fleet")

VERSION = 1
EVERY_S = 0.5
BATCH = 5000
AGAIN_S = 5.0
PRUNE_EVERY_S, PRUNE_ROWS = 60.0, 20_000
KEPT_DAMAGED = 3
DAY_S = 86400.0

Entry = tuple[str, tuple[Any, ...]]
"""A statement and its values, the first of which is the key of the box."""

_BOX = (
    "INSERT INTO box (tenant, name, heard_at, presence, since, since_exact, goodbye_reason, session, versions, "
    "version_at, update_status, update_at, health) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (tenant, name) DO UPDATE SET heard_at = excluded.heard_at, presence = excluded.presence, "
    "since = excluded.since, since_exact = excluded.since_exact, goodbye_reason = excluded.goodbye_reason, "
    "session = excluded.session, versions = excluded.versions, version_at = excluded.version_at, "
    "update_status = excluded.update_status, update_at = excluded.update_at, health = excluded.health"
)
_ALARM = (
    "INSERT INTO alarm (box, code, since, severity, components, raised_at, acknowledged_by, acknowledged_at) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (box, code, since) DO UPDATE SET severity = excluded.severity, "
    "components = excluded.components, acknowledged_by = excluded.acknowledged_by, "
    "acknowledged_at = excluded.acknowledged_at, cleared_at = NULL"
)
_CLEARED = "UPDATE alarm SET cleared_at = ?4 WHERE box = ?1 AND code = ?2 AND since = ?3"
_SAMPLE = "INSERT INTO sample VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_EVENT = "INSERT INTO event (box, at, kind, words) VALUES (?, ?, ?, ?)"


class StoreError(GatewayError):
    """The database of the fleet monitor cannot be used."""

    exit_code = 75
    hint = "check the disk, and the rights on the folder of `[store] path`"


class Store:
    """The writing connection; `run` belongs to one thread."""

    def __init__(self, settings: StoreSettings, inventory: Inventory) -> None:
        """Open the database and give the inventory what it holds; raises StoreError."""
        self._settings = settings
        self._inventory = inventory
        self._ids: dict[Key, int] = {}
        self._pending: list[Entry] = []
        self._suspected = threading.Event()
        self._pruned_at = time.monotonic()
        self.set_aside = 0
        """Databases that were damaged, since the start."""
        self.reason = ""
        """Why nothing is written; empty while all is well."""
        settings.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = self._open()
            self._load()
        except sqlite3.OperationalError as error:
            raise StoreError(f"{settings.path}: {error}") from error
        except (sqlite3.DatabaseError, ValueError) as error:
            self._renew(str(error))

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._settings.path, isolation_level=None, check_same_thread=False, timeout=5.0)
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "temp_store=MEMORY", "journal_size_limit=67108864"):
            db.execute(f"PRAGMA {pragma}")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise StoreError(
                f"{self._settings.path} has version {version}, this program knows {VERSION}",
                hint="install the program that wrote it, or name another path",
            )
        if version == 0:
            db.executescript("BEGIN;" + files("gateway.fleet").joinpath("schema.sql").read_text() + "COMMIT;")
        return db

    def _load(self) -> None:
        now = time.monotonic()
        by_id: dict[int, Box] = {}
        for row in self._db.execute("SELECT * FROM box"):
            by_id[row[0]] = box = _box_of(row[1:], now)
            self._ids[box.key] = row[0]
            self._inventory.restore(box)
        for row in self._db.execute(
            "SELECT box, code, since, severity, components, raised_at, acknowledged_by, acknowledged_at "
            "FROM alarm WHERE cleared_at IS NULL"
        ):
            if row[0] in by_id and len(by_id[row[0]].alarms) < reports.MAX_NAMES:
                alarm = reports.Alarm(row[1], Severity(row[3]), row[2], tuple(row[4].split()))
                by_id[row[0]].alarms[row[1]] = Standing(alarm, *row[5:])

    def _renew(self, reason: str) -> None:
        """Set a damaged database aside and begin a new one; raises StoreError when that cannot be done either."""
        log.error("store_damaged reason=%r", reason)
        path = self._settings.path
        try:
            self._db.close()
        except (AttributeError, sqlite3.Error):
            pass  # it did not even open
        aside = f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
        try:
            for end in ("-wal", "-shm", ""):  # the database last: a half-finished move is found and done again
                part = path.with_name(path.name + end)
                if part.exists():
                    part.rename(path.with_name(aside + end))
            for old in sorted(path.parent.glob(f"{path.name}.damaged-*[0-9]"))[:-KEPT_DAMAGED]:
                for end in ("-wal", "-shm", ""):
                    old.with_name(old.name + end).unlink(missing_ok=True)
            self._db = self._open()
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{path} is damaged and cannot be set aside: {error}") from error
        self.set_aside += 1
        self._ids.clear()
        self._pending.clear()
        self._suspected.clear()
        with self._inventory.lock:
            self._inventory.journal.clear()
            self._inventory.note_everything()

    def suspect(self) -> None:
        """Somebody who read found damage; any thread."""
        self._suspected.set()

    def run(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Write down what the inventory notes until stopped, then the rest."""
        while not stop.wait(AGAIN_S if self.reason else EVERY_S):
            beat()
            self.turn()
        while not self.reason and self.turn():
            beat()

    def turn(self) -> bool:
        """Write one batch; return whether there was any."""
        try:
            if self._suspected.is_set():
                raise sqlite3.DatabaseError("a reader found damage")
            if not self._pending:
                self._pending = self._take()
            wrote = bool(self._pending)
            if wrote:
                self._write(self._pending)
                self._pending = []
            self._prune()
            if self.reason:
                log.info("store_writes_again")
            self.reason = ""
            return wrote
        except sqlite3.OperationalError as error:  # no space, no rights, locked: it may pass
            if not self.reason:
                log.error("store_unwritable reason=%r", str(error))
            self.reason = str(error)
        except sqlite3.DatabaseError as error:
            self._renew(str(error))
        return False

    def _take(self) -> list[Entry]:
        """Turn notes into rows, as things are now: of several notes of a box one is enough."""
        noted: set[Key] = set()
        entries: list[Entry] = []
        with self._inventory.lock:
            journal = self._inventory.journal
            for _ in range(min(BATCH, len(journal))):
                kind, *values = journal.popleft()
                entry = _ENTRIES[kind](*values)
                key = entry[1][0]
                if kind == "box" and key in noted:
                    continue
                if kind == "box":
                    noted.add(key)
                elif kind == "gone":
                    noted.discard(key)
                entries.append(entry)
        return entries

    def _write(self, entries: list[Entry]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for statement, (key, *values) in entries:
                if statement == _BOX:
                    self._db.execute(_BOX, (*key, *values))
                elif (number := self._id(key)) is None:
                    continue  # of a box that is gone
                elif statement == "gone":
                    for table, column in (("sample", "box"), ("event", "box"), ("alarm", "box"), ("box", "id")):
                        self._db.execute(f"DELETE FROM {table} WHERE {column} = ?", (number,))
                    del self._ids[key]
                else:
                    self._db.execute(statement, (number, *values))
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _id(self, key: Key) -> int | None:
        if key not in self._ids:
            row = self._db.execute("SELECT id FROM box WHERE tenant = ? AND name = ?", key).fetchone()
            if row is None:
                return None
            self._ids[key] = row[0]
        return self._ids[key]

    def _prune(self) -> None:
        """Give up what is older than is to be kept, a part at a time."""
        if time.monotonic() - self._pruned_at < PRUNE_EVERY_S:
            return
        self._pruned_at = time.monotonic()
        self.prune(time.time())

    def prune(self, wall: float) -> None:
        """Give up what is too old at `wall`, `PRUNE_ROWS` of each kind at most."""
        before = wall - self._settings.history_days * DAY_S
        for table in ("sample", "event"):  # rows stand in the order of time: what is new is not looked through
            self._db.execute(
                f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE rowid < coalesce("
                f"(SELECT rowid FROM {table} WHERE at >= ?1 ORDER BY rowid LIMIT 1), 9223372036854775807) LIMIT ?2)",
                (before, PRUNE_ROWS),
            )
        self._db.execute(
            "DELETE FROM alarm WHERE id IN (SELECT id FROM alarm WHERE cleared_at < ?1 LIMIT ?2)", (before, PRUNE_ROWS)
        )
        for table, ended in (("event", ""), ("alarm", "AND cleared_at IS NOT NULL")):
            self._db.execute(
                f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} "
                f"WHERE id <= (SELECT max(id) FROM {table}) - ?1 {ended} LIMIT ?2)",
                (self._settings.max_events, PRUNE_ROWS),
            )

    def close(self) -> None:
        """Close the connection."""
        self._db.close()


@dataclass(frozen=True, slots=True)
class Past:
    """What is remembered of one box."""

    samples: list[tuple[Any, ...]]
    """(at, status, oldest_age_s, objects, disk_pct, clock_offset_ms, temp_c), oldest first."""
    events: list[tuple[Any, ...]]
    """(at, kind, words), newest first."""
    ended_alarms: list[tuple[Any, ...]]
    """(code, severity, raised_at, cleared_at, acknowledged_by), newest first."""


class History:
    """Looks into the database beside the writer, read-only, a new connection each time: it may have been set aside."""

    def __init__(self, path: Path, suspect: Callable[[], None]) -> None:
        self._path = path
        self._suspect = suspect

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True, timeout=2.0)
        try:
            yield db
        finally:
            db.close()

    def _ask(self, question: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Return rows; none when the database cannot be read now."""
        try:
            with self._reader() as db:
                return db.execute(question, values).fetchall()
        except sqlite3.OperationalError as error:
            log.warning("store_unreadable reason=%r", str(error))
        except sqlite3.DatabaseError:
            self._suspect()
        return []

    def past(self, key: Key, since: float, most_samples: int, most_others: int) -> Past:
        """Return samples of a box from the moment `since` on, and the latest of what else there is."""
        samples = self._ask(
            "SELECT at, status, oldest_age_s, objects, disk_pct, clock_offset_ms, temp_c FROM (SELECT * FROM sample "
            f"WHERE box = {_OF_BOX} AND at >= ?3 ORDER BY at DESC LIMIT ?4) ORDER BY at",
            (*key, since, most_samples),
        )
        events = self._ask(
            f"SELECT at, kind, words FROM event WHERE box = {_OF_BOX} ORDER BY id DESC LIMIT ?3", (*key, most_others)
        )
        ended = self._ask(
            f"SELECT code, severity, raised_at, cleared_at, acknowledged_by FROM alarm WHERE box = {_OF_BOX} "
            "AND cleared_at IS NOT NULL ORDER BY raised_at DESC LIMIT ?3",
            (*key, most_others),
        )
        return Past(samples, events, ended)


_OF_BOX = "(SELECT id FROM box WHERE tenant = ?1 AND name = ?2)"


def _row_of(box: Box) -> tuple[Any, ...]:
    goodbye = box.goodbye
    return (
        box.key,
        box.heard_at,
        box.presence.value,
        box.since,
        box.since_exact,
        goodbye.reason if goodbye else None,
        goodbye.session if goodbye else box.session,
        " ".join(box.versions),
        box.version_at,
        box.update,
        box.update_at,
        box.health_payload,
    )


def _box_of(row: tuple[Any, ...], now: float) -> Box:
    tenant, name, heard_at, presence, since, exact, goodbye, session, *rest = row
    versions, version_at, update, update_at, health = rest
    box = Box(tenant, name, now, heard_at, presence=Presence(presence), since=since, since_exact=bool(exact))
    box.goodbye = reports.Session(False, goodbye, session) if goodbye is not None else None
    box.session = "" if goodbye is not None else session
    box.versions, box.version_at = tuple(versions.split()), version_at
    box.update, box.update_at = update, update_at
    if health:
        try:
            box.health, box.health_payload = reports.health_of(health), health
        except reports.Unreadable:
            pass  # of another version of this program
    return box


def _alarm_row(key: Key, standing: Standing) -> Entry:
    alarm, who = standing.alarm, standing.acknowledged_by
    facts = (alarm.code, alarm.since, alarm.severity.value, " ".join(alarm.components), standing.raised_at)
    return _ALARM, (key, *facts, who, standing.acknowledged_at)


def _sample_row(key: Key, wall: float, health: reports.Health) -> Entry:
    numbers = (health.oldest_age_s, health.objects, health.disk_pct, health.clock_offset_ms, health.temp_c)
    return _SAMPLE, (key, wall, health.status.value, *numbers)


_ENTRIES: dict[str, Callable[..., Entry]] = {
    "box": lambda box: (_BOX, _row_of(box)),
    "alarm": _alarm_row,
    "cleared": lambda key, code, since, wall: (_CLEARED, (key, code, since, wall)),
    "sample": _sample_row,
    "event": lambda key, at, kind, words: (_EVENT, (key, at, kind, words)),
    "gone": lambda key: ("gone", (key,)),
}
"""Kind of a note -> what is written."""
