"""A bit that flips in the ledger is noticed at the next look: by the object's own label, or when the ledger is read."""

from __future__ import annotations

import sqlite3

import pytest

from gateway.model.errors import CustodyRot, SpoolError
from gateway.model.instance import Door, Header, Origin, Priority
from gateway.model.way import Way
from gateway.spool.spool import Spool

CT = "1.2.840.10008.5.1.4.1.1.2"
IDENTITY = (CT, "1.2.3", "1.2.840.10008.1.2")


@pytest.fixture
def data(tmp_path):
    """A spool with one object, closed."""
    spool = Spool(tmp_path, 0, 100, lambda *_: {"pacs": Way()})
    part = spool.new_part(IDENTITY)
    part.write(b"x" * 100)
    spool.take(part, Header(CT, "1.2.3", "1.2.4", "1.2.5", "CT"), Origin(Door.IMPORT), IDENTITY)
    spool.close()
    return tmp_path


def opened(data) -> Spool:
    return Spool(data, 0, 100, lambda *_: {"pacs": Way()})


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("sop_class_uid", "1.2.840.10008.5.1.4.1.1.3"),
        ("sop_instance_uid", "1.2.7"),
        ("transfer_syntax_uid", "1.2.840.10008.1.3"),
        ("sha256", "0" * 64),
        ("length", 99),
        ("study_uid", "1.2.0"),
        ("series_uid", "1.2.1"),
        ("calling_ae_title", "X"),
        ("received_at", 1.0),
    ],
)
def test_what_the_ledger_says_of_an_instance_is_compared_with_its_label_before_a_byte_leaves(data, column, value):
    db = sqlite3.connect(data / "ledger.db")
    with db:
        db.execute(f"UPDATE instance SET {column} = ?", (value,))
    db.close()
    spool = opened(data)
    (claim,) = spool.claim("pacs", Priority.NORMAL, 10, 300.0)
    with pytest.raises(CustodyRot):
        next(iter(spool.body(claim.held)))
    spool.close()


def test_a_label_that_changed_is_rot_too(data):
    path = next((data / "objects").rglob("*.dcm"))
    path.write_bytes(path.read_bytes().replace(b'"1.2.4"', b'"1.2.5"'))
    spool = opened(data)
    (claim,) = spool.claim("pacs", Priority.NORMAL, 10, 300.0)
    with pytest.raises(CustodyRot):
        next(iter(spool.body(claim.held)))
    spool.close()


def flip_a_bit_of_an_index(data) -> None:
    """Of the state by which deliveries are found: the row keeps its own."""
    db = sqlite3.connect(data / "ledger.db")
    (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'delivery_due'").fetchone()
    (size,) = db.execute("PRAGMA page_size").fetchone()
    db.close()
    content = bytearray((data / "ledger.db").read_bytes())
    at = content.index(b"queued", (page - 1) * size)
    assert at < page * size
    content[at] ^= 1
    (data / "ledger.db").write_bytes(content)


def test_a_delivery_that_no_lane_can_find_any_more_is_noticed_when_the_ledger_is_read(data):
    spool = opened(data)
    assert spool.ledger_rot(lambda: True) == []
    spool.close()
    flip_a_bit_of_an_index(data)
    spool = opened(data)
    assert spool.claim("pacs", Priority.NORMAL, 10, 300.0) == []
    assert "delivery_due" in " ".join(spool.ledger_rot(lambda: True))
    spool.close()


def test_reading_the_ledger_ends_when_it_is_told_to(data, monkeypatch):
    monkeypatch.setattr("gateway.spool.ledger_reader.STEPS", 1)
    spool = opened(data)
    with pytest.raises(SpoolError, match="interrupted"):
        spool.ledger_rot(lambda: False)
    spool.close()
