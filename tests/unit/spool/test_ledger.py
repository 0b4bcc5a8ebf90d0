"""The ledger's tables: new ones, and those that an older program left."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from gateway.model.errors import SpoolError
from gateway.spool import ledger
from gateway.spool.ledger import Ledger

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
