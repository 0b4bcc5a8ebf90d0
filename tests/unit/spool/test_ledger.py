"""The ledger's tables: new ones, and those that an older program left."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model.errors import ImpossibleTransition, SpoolError
from gateway.model.instance import Door, Header, Origin, Priority, SOPInstance
from gateway.model.lifecycle import Custody, Delivery, DeliveryEvent
from gateway.model.verdict import Verdict
from gateway.model.way import Way
from gateway.report import report
from gateway.spool import ledger
from gateway.spool.capacity import look
from gateway.spool.ledger import Ledger
from gateway.spool.ledger_reader import WAITING, Backlog, LedgerReader

VERSION_1 = Path(__file__).with_name("ledger_1.sql")


def tables(path: Path) -> dict[str, list[tuple]]:
    """What the tables are: columns with type, null and default, the columns of each index, what each trigger does."""
    with sqlite3.connect(path) as db:
        found = {}
        rows = db.execute("SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'").fetchall()
        for kind, name, sql in rows:
            pragma = "table_info" if kind == "table" else "index_xinfo"
            found[name] = [row[1:] for row in db.execute(f"PRAGMA {pragma}({name})")]
            if kind == "trigger":
                found[name] = [tuple(sql.split())]
        return found


def test_an_older_ledger_gets_the_tables_of_a_new_one_and_keeps_its_rows(tmp_path):
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    with sqlite3.connect(old) as db:
        db.executescript(VERSION_1.read_text())
        db.execute("INSERT INTO counter VALUES ('accepted', 7)")
        for seq, state in enumerate((Delivery.QUEUED, Delivery.CONFIRMED, Delivery.QUEUED), 1):
            columns = [row[1:3] for row in db.execute("PRAGMA table_info(instance)").fetchall()]
            given = {"seq": seq, "object_id": str(seq), "length": 10**seq, "state": "in_custody"}
            values = [given.get(name, "" if kind == "TEXT" else 0) for name, kind in columns]
            db.execute(f"INSERT INTO instance VALUES ({', '.join('?' * len(values))})", values)
            db.execute("INSERT INTO delivery (seq, destination, state, priority) VALUES (?, 'a', ?, 1)", (seq, state))
    Ledger(old).close()
    Ledger(new).close()
    assert tables(old) == tables(new)
    with sqlite3.connect(old) as db:
        assert ("accepted", 7) in db.execute("SELECT name, value FROM counter").fetchall()
        sums = db.execute("SELECT destination, state, deliveries, bytes FROM delivery_sum").fetchall()
        assert sorted(sums) == [("a", "confirmed", 1, 100), ("a", "queued", 2, 1010)]
        assert db.execute("PRAGMA user_version").fetchone() == (ledger.SCHEMA_VERSION,)


def written_by_the_next_program(path: Path, readable_since: int) -> None:
    Ledger(path).close()
    with sqlite3.connect(path) as db:
        db.execute("ALTER TABLE delivery ADD COLUMN shade TEXT NOT NULL DEFAULT 'grey'")
        db.execute("CREATE INDEX delivery_shade ON delivery (shade)")
        db.execute("UPDATE readable_since SET version = ?", (readable_since,))
        db.execute(f"PRAGMA user_version = {ledger.SCHEMA_VERSION + 1}")


def test_a_ledger_that_the_next_program_only_added_to_is_used_when_the_update_is_taken_back(tmp_path):
    written_by_the_next_program(tmp_path / "ledger.db", ledger.SCHEMA_VERSION)
    book = Ledger(tmp_path / "ledger.db")
    entered(book, 1, {"a": Way()})
    with book.transaction():
        assert [claim.held.seq for claim in book.claim("a", Way().priority, 9, 2000.0, 60.0)] == [1]
    book.close()
    with sqlite3.connect(tmp_path / "ledger.db") as db:
        assert db.execute("PRAGMA user_version").fetchone() == (ledger.SCHEMA_VERSION + 1,)
        assert db.execute("SELECT seq, state, shade FROM delivery").fetchall() == [(1, "sending", "grey")]


def test_a_newer_ledger_is_left_alone(tmp_path):
    written_by_the_next_program(tmp_path / "ledger.db", ledger.SCHEMA_VERSION + 1)
    with pytest.raises(SpoolError, match=rf"reads up to {ledger.SCHEMA_VERSION}"):
        Ledger(tmp_path / "ledger.db")


def test_every_version_has_its_migration():
    folder = Path(ledger.__file__).with_name("migrations")
    versions = {int(re.fullmatch(r"(\d{4})\.sql", path.name).group(1)) for path in folder.iterdir()}
    assert versions == set(range(2, ledger.SCHEMA_VERSION + 1))


def entered(book: Ledger, number: int, ways: dict[str, Way], received_at: float = 1000.0, length: int = 1) -> None:
    """Enter an instance of the one study."""
    header = Header("1.2", f"1.2.{number}", "1.2.3", "1.2.3.4", "CT")
    identity = (f"{number:032x}", "1.2", f"1.2.{number}", "1.2.840.10008.1.2")
    with book.transaction():
        book.accept(
            SOPInstance(*identity, "00", length, header, Origin(Door.IMPORT), received_at), "0", ways, conflict=False
        )


def waiting(book: Ledger, destination: str, now: float = 2000.0) -> list[int]:
    with book.transaction():
        return [c.held.seq for p in Priority for c in book.claim(destination, p, 100, now, 300.0)]


@pytest.fixture
def book(tmp_path):
    opened = Ledger(tmp_path / "ledger.db")
    yield opened
    opened.close()


GROUP = Way(instead=("a", "b", "c"))


def test_what_may_go_elsewhere_goes_to_the_first_that_is_well(book):
    entered(book, 1, {"a": GROUP})
    entered(book, 2, {"a": Way()})
    entered(book, 3, {"a": GROUP})
    with book.transaction():
        assert book.reroute("a", {"c", "d"}, 1) == 1
        assert book.reroute("a", {"d"}, 9) == 0
        assert book.reroute("a", {"a", "c", "b"}, 9) == 1
    assert (waiting(book, "c"), waiting(book, "b"), waiting(book, "a")) == ([1], [3], [2])


def test_what_is_on_its_way_is_not_rerouted(book):
    entered(book, 1, {"a": GROUP})
    assert waiting(book, "a") == [1]
    with book.transaction():
        assert book.reroute("a", {"b"}, 9) == 0


def test_a_stand_in_that_has_the_instance_confirmed_completes_it(book, tmp_path):
    entered(book, 1, {"a": GROUP, "b": Way()})
    assert waiting(book, "b") == [1]
    with book.transaction():
        book.record(1, "b", Verdict.accepted(0, "stored"), 0.0)
        assert book.reroute("a", {"b"}, 9) == 1
    reader = LedgerReader(tmp_path / "ledger.db")
    assert reader.sums().custody == {Custody.RELEASED: (1, 1)}
    reader.close()


def test_what_nobody_sends_any_more_is_given_to_another_whatever_had_become_of_it(book, tmp_path):
    for number in range(1, 6):
        entered(book, number, {"a": Way()} | ({"b": Way()} if number == 4 else {}))
    assert waiting(book, "a") == [1, 2, 3, 4, 5] and waiting(book, "b") == [4]
    with book.transaction():
        book.record(1, "a", Verdict.accepted(0, "stored"), 0.0)
        book.record(2, "a", Verdict.accepted(0, "stored"), 0.0, suffices=False)
        book.ask([2], "a", 5000.0, "1.2.3.4")
        book.record(3, "a", Verdict.refused(0xA900, "no"), 0.0)
        book.record(4, "b", Verdict.accepted(0, "stored"), 0.0)
        book.restart_deliveries()
        assert book.move("a", "b", 2) == 2
        assert book.move("a", "b", 9) == 2
        assert book.move("a", "b", 9) == 0
    assert waiting(book, "b") == [2, 3, 5], "1 was confirmed by the old one, 4 by the new one"
    reader = LedgerReader(tmp_path / "ledger.db")
    assert reader.rows("SELECT * FROM commitment") == []
    assert reader.sums().counters["required:a"] == 1
    assert [reader.get(f"{number:032x}")[0].state for number in (1, 4)] == [Custody.RELEASED] * 2
    reader.close()


def test_what_is_in_quarantine_is_not_moved(book, tmp_path):
    entered(book, 1, {"a": Way()})
    reader = LedgerReader(tmp_path / "ledger.db")
    with book.transaction():
        book.quarantine(reader.get(f"{1:032x}")[0], "rot")
        assert book.move("a", "b", 9) == 0
    reader.close()


def test_one_of_a_group_is_enough_when_an_instance_comes_again(book):
    entered(book, 1, {"b": GROUP})
    with book.transaction():
        book.require(1, Custody.IN_CUSTODY, {"a": GROUP, "d": Way()})
    assert (waiting(book, "a"), waiting(book, "b"), waiting(book, "d")) == ([], [1], [1])


def test_a_study_is_waited_for_until_it_is_quiet_and_a_clock_that_was_set_back_delays_nothing(book):
    held_back = {"a": Way(quiet_s=30.0)}
    entered(book, 1, held_back, received_at=1000.0)
    entered(book, 2, held_back, received_at=1020.0)
    assert waiting(book, "a", now=1049.0) == []
    assert waiting(book, "a", now=1050.0) == [1, 2]
    entered(book, 3, held_back, received_at=9000.0)
    assert waiting(book, "a", now=1200.0) == [3]


STEPS = st.sampled_from(["enters", "claims", "accepts", "refuses", "reroutes", "moves", "quarantines", "releases",
                         "restarts", "retires"])  # fmt: skip


@settings(max_examples=60)
@given(st.lists(st.tuples(STEPS, st.integers(1, 6), st.sampled_from("abc")), max_size=40))
def test_whatever_happens_the_sums_are_those_of_the_rows(story):
    with TemporaryDirectory() as folder:
        book, reader = Ledger(Path(folder) / "ledger.db"), LedgerReader(Path(folder) / "ledger.db")
        for number, (step, seq, destination) in enumerate(story, 1):
            with suppress(ImpossibleTransition, IndexError):
                happens(book, reader, step, number, seq, destination)
            counted = reader.rows(
                "SELECT destination, delivery.state, count(*), sum(length) FROM delivery JOIN instance USING (seq) "
                "GROUP BY 1, 2 ORDER BY 1, 2"
            )
            kept = reader.rows("SELECT * FROM delivery_sum WHERE deliveries != 0 OR bytes != 0 ORDER BY 1, 2")
            assert [tuple(row) for row in kept] == [tuple(row) for row in counted]
        reader.close()
        book.close()


def happens(book: Ledger, reader: LedgerReader, step: str, number: int, seq: int, destination: str) -> None:
    if step == "enters":
        entered(book, number, {destination: GROUP, "d": Way()}, length=2**number)
    with book.transaction():
        if step == "claims":
            book.claim(destination, Priority.NORMAL, seq, 2000.0, 300.0)
        elif step == "accepts":
            for name in (destination, "d"):
                book.record(seq, name, Verdict.accepted(0, "stored"), 0.0)
        elif step == "refuses":
            book.record(seq, destination, Verdict.refused(0xA900, "no"), 0.0)
        elif step == "reroutes":
            book.reroute(destination, {"a", "b", "c"}, seq)
        elif step == "moves":
            book.move(destination, "b" if destination == "a" else "a", seq)
        elif step == "releases":
            book.operate([seq], None, DeliveryEvent.RELEASED_BY_OPERATOR)
        elif step == "restarts":
            book.restart_deliveries()
        elif step == "quarantines":
            book.quarantine(reader.get(f"{seq:032x}")[0], "rot")
        elif step == "retires":
            book.forget(book.retire([released.held.seq for released in reader.released(seq)]))


def test_the_backlog_tells_what_waits_and_since_when(book, tmp_path):
    for number, (priority, length) in enumerate([(2, 10), (1, 100), (0, 1000), (1, 10000)], 1):
        entered(book, number, {"a": Way(Priority(priority))}, received_at=1000.0 * number, length=length)
    reader = LedgerReader(tmp_path / "ledger.db")
    assert reader.backlog("a") == Backlog(4, 11110, 1000.0)
    with book.transaction():
        book.claim("a", Priority.BULK, 9, 2000.0, 300.0)
    assert reader.backlog("a") == Backlog(4, 11110, 1000.0)
    with book.transaction():
        book.record(1, "a", Verdict.accepted(0, "stored"), 0.0)
        book.claim("a", Priority.STAT, 9, 2000.0, 300.0)
        book.record(3, "a", Verdict.refused(0xA900, "no"), 0.0)
    assert reader.backlog("a") == Backlog(2, 10100, 2000.0)
    assert reader.backlog("nobody") == Backlog(0, 0, None)
    reader.close()


def test_a_report_reads_no_delivery_but_those_it_names(book, tmp_path):
    entered(book, 1, {"a": Way(), "b": Way()})
    reader, asked = LedgerReader(tmp_path / "ledger.db"), []
    reader._db.set_trace_callback(asked.append)
    report(reader, look(tmp_path, 0, 100), 3600.0)
    reader._db.set_trace_callback(None)
    assert any("FROM delivery " in sql for sql in asked)
    plans = [row["detail"] for sql in asked for row in reader.rows(f"EXPLAIN QUERY PLAN {sql}")]
    assert not [plan for plan in plans if re.match(r"SCAN (TABLE )?delivery\b(?!_)", plan)], plans
    heads = [plan for plan in plans if "delivery_due (destination=? AND state=? AND priority=?)" in plan]
    assert len(heads) == 2 * len(WAITING) * len(Priority)
    reader.close()


def test_what_retires_leaves_the_sums(book, tmp_path):
    entered(book, 1, {"a": Way()}, length=10)
    entered(book, 2, {"a": Way()}, length=100)
    with book.transaction():
        book.claim("a", Priority.NORMAL, 9, 2000.0, 300.0)
        for seq in (1, 2):
            book.record(seq, "a", Verdict.accepted(0, "stored"), 0.0)
        book.retire([1])
        book.forget([1])
    reader = LedgerReader(tmp_path / "ledger.db")
    assert [tuple(row) for row in reader.rows("SELECT * FROM delivery_sum WHERE bytes OR deliveries")] == [
        ("a", "confirmed", 1, 100)
    ]
    reader.close()


GIVES_UP_FORTY = """
import sys
from pathlib import Path
from gateway.model.instance import Door, Header, Origin
from gateway.spool.spool import Spool
spool = Spool(Path(sys.argv[1]), 0, 100)
for number in range(40):
    identity = ("1.2.840.10008.5.1.4.1.1.2", f"1.2.{number}", "1.2.840.10008.1.2")
    part = spool.new_part(identity)
    part.write(b"x" * 100)
    spool.take(part, Header(*identity[:2], "1.2", "1.2", "CT"), Origin(Door.IMPORT), identity)
spool.change(lambda ledger: ledger._db.execute("UPDATE instance SET state = 'released'").rowcount)
assert spool.retire([one.held for one in spool.reader.released(100)]) == 40
spool.close()
"""


def test_the_ledger_needs_no_other_disk_not_even_to_make_room(tmp_path):
    """Where SQLite would have its temporary files, nothing has come and gone."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    before = elsewhere.stat().st_mtime_ns
    environment = {**os.environ, "SQLITE_TMPDIR": str(elsewhere)}
    subprocess.run([sys.executable, "-c", GIVES_UP_FORTY, str(tmp_path / "data")], env=environment, check=True)
    assert elsewhere.stat().st_mtime_ns == before
