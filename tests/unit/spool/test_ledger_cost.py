"""What the ledger writes for one object that arrives, and that nothing is missing for it."""

from __future__ import annotations

from hashlib import sha256

import pytest

from gateway.model.instance import Door, Header, Origin, SOPInstance
from gateway.model.lifecycle import Custody, CustodyEvent
from gateway.model.way import Way
from gateway.spool.ledger import Ledger
from gateway.spool.ledger_reader import LedgerReader

OBJECTS = 512
PAGES_PER_OBJECT = 9.5
"""Measured 8.65 without a destination. Each page of the journal is two writes, and is written twice more later."""


@pytest.fixture
def book(tmp_path):
    opened = Ledger(tmp_path / "ledger.db")
    yield opened
    opened.close()


@pytest.fixture
def reader(book, tmp_path):
    opened = LedgerReader(tmp_path / "ledger.db")
    yield opened
    opened.close()


def enter(book: Ledger, number: int, ways: dict[str, Way], *, adopted: bool = False) -> None:
    digest = sha256(b"%d" % number).hexdigest()
    uid = f"1.2.826.0.1.3680043.8.498.{int(digest[:30], 16)}"
    header = Header(
        "1.2.840.10008.5.1.4.1.1.2", uid, "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2", "CT"
    )
    identity = (digest[32:], header.sop_class_uid, uid, "1.2.840.10008.1.2.1")
    instance = SOPInstance(*identity, digest, 27000, header, Origin(Door.DIMSE, "192.0.2.1", "CT1"), 1000.0 + number)
    with book.transaction():
        assert book.find(uid) == []
        book.accept(instance, "000000", ways, conflict=False, adopted=adopted)


def test_an_object_that_arrives_touches_few_pages(book):
    pages = 0
    for number in range(OBJECTS):
        enter(book, number, {})
        if number % 64 == 63:
            pages += book._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
    assert pages / OBJECTS <= PAGES_PER_OBJECT


def test_the_row_is_the_first_event_and_an_adoption_says_when_it_was(book, reader):
    enter(book, 1, {"pacs": Way()})
    enter(book, 2, {}, adopted=True)
    with book.transaction():
        book.quarantine(reader.get("")[0], "rot")
    first, second = reader.history(1)
    assert first == {"destination": None, "event": "committed", "state": "in_custody", "at": 1001.0, "detail": ""}
    assert (second["event"], second["state"], second["detail"]) == ("rot_found", "quarantined", "rot")
    (only,) = reader.history(2)
    assert (only["event"], only["state"], only["detail"]) == ("committed", "in_custody", "adopted")
    assert only["at"] > 1002.0


def test_an_older_programs_history_is_not_told_twice(book, reader):
    enter(book, 1, {})
    with book.transaction():
        book._note(1, None, CustodyEvent.COMMITTED, Custody.IN_CUSTODY)
    assert [event["event"] for event in reader.history(1)] == ["committed"]


def test_what_was_released_first_is_found_without_sorting(book, reader):
    asked: list[str] = []
    reader._db.set_trace_callback(asked.append)
    reader.released(10)
    reader._db.set_trace_callback(None)
    plans = [row["detail"] for sql in asked for row in reader.rows(f"EXPLAIN QUERY PLAN {sql}")]
    assert plans == ["SEARCH instance USING INDEX instance_released (proven=?)"] * 2
