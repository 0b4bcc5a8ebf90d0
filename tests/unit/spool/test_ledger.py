"""The ledger's tables: new ones, and those that an older program left."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from gateway.model.errors import SpoolError
from gateway.model.instance import Door, Header, Origin, Priority, SOPInstance
from gateway.model.lifecycle import Custody
from gateway.model.verdict import Verdict
from gateway.model.way import Way
from gateway.spool import ledger
from gateway.spool.ledger import Ledger
from gateway.spool.ledger_reader import LedgerReader

VERSION_1 = Path(__file__).with_name("ledger_1.sql")


def tables(path: Path) -> dict[str, list[tuple]]:
    """What the tables are: columns with type, null and default, and the columns of each index."""
    with sqlite3.connect(path) as db:
        found = {}
        for kind, name in db.execute("SELECT type, name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'").fetchall():
            pragma = "table_info" if kind == "table" else "index_xinfo"
            found[name] = [row[1:] for row in db.execute(f"PRAGMA {pragma}({name})")]
        return found


def test_an_older_ledger_gets_the_tables_of_a_new_one_and_keeps_its_rows(tmp_path):
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    with sqlite3.connect(old) as db:
        db.executescript(VERSION_1.read_text())
        db.execute("INSERT INTO counter VALUES ('accepted', 7)")
    Ledger(old).close()
    Ledger(new).close()
    assert tables(old) == tables(new)
    with sqlite3.connect(old) as db:
        assert db.execute("SELECT value FROM counter").fetchall() == [(7,)]
        assert db.execute("PRAGMA user_version").fetchone() == (ledger.SCHEMA_VERSION,)


def test_a_newer_ledger_is_left_alone(tmp_path):
    Ledger(tmp_path / "ledger.db").close()
    with sqlite3.connect(tmp_path / "ledger.db") as db:
        db.execute(f"PRAGMA user_version = {ledger.SCHEMA_VERSION + 1}")
    with pytest.raises(SpoolError, match=rf"reads up to {ledger.SCHEMA_VERSION}"):
        Ledger(tmp_path / "ledger.db")


def test_every_version_has_its_migration():
    folder = Path(ledger.__file__).with_name("migrations")
    versions = {int(re.fullmatch(r"(\d{4})\.sql", path.name).group(1)) for path in folder.iterdir()}
    assert versions == set(range(2, ledger.SCHEMA_VERSION + 1))


def entered(book: Ledger, number: int, ways: dict[str, Way], received_at: float = 1000.0) -> None:
    """Enter an instance of the one study."""
    header = Header("1.2", f"1.2.{number}", "1.2.3", "1.2.3.4", "CT")
    identity = (f"{number:032x}", "1.2", f"1.2.{number}", "1.2.840.10008.1.2")
    with book.transaction():
        book.accept(
            SOPInstance(*identity, "00", 1, header, Origin(Door.IMPORT), received_at), "0", ways, conflict=False
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
