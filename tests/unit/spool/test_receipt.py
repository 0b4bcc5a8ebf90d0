"""A receipt states what the ledger knows, in one form only."""

from __future__ import annotations

import json

import pytest

from gateway.model.errors import GatewayError
from gateway.model.instance import Door, Header, Origin, Priority
from gateway.model.verdict import Verdict
from gateway.model.way import Way
from gateway.spool.receipt import canonical, statement
from gateway.spool.spool import Spool

CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.fixture
def spool(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.spool.receipt.PAGE", 2)
    opened = Spool(tmp_path, 0, 100, lambda *_: {"pacs": Way()})
    for number in (1, 2, 3):
        identity = (CT, f"1.2.{number}", "1.2.840.10008.1.2")
        part = opened.new_part(identity)
        part.write(b"abc")
        opened.take(part, Header(CT, identity[1], "1.2", "1.2", "CT"), Origin(Door.IMPORT), identity)
    yield opened
    opened.close()


def deliver(spool: Spool, limit: int) -> None:
    for claim in spool.claim("pacs", Priority.NORMAL, limit, 300.0):
        spool.record(claim, Verdict.accepted(), 0.0).outcome()


def receipt(spool: Spool, study: str = "1.2") -> dict:
    return statement(spool.reader, study, "ct1", "f" * 64, 0.0)


def test_who_confirmed_what_on_what_evidence(spool):
    deliver(spool, 2)
    said = receipt(spool)
    assert (said["gateway"], said["issued_at"], said["signed_by"]) == ("ct1", "1970-01-01T00:00:00Z", "f" * 64)
    assert (said["received"], said["complete"], said["announced"]) == (3, False, None)
    assert said["destinations"] == {"pacs": {"required": 3, "delivered": 2, "confirmed": 2}}
    # SHA-256 of "abc": FIPS 180-2, B.1
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    rows = said["instances"]
    assert [(row["sop_instance_uid"], row["sha256_as_received"]) for row in rows] == [
        (f"1.2.{number}", digest) for number in (1, 2, 3)
    ]
    assert [row["deliveries"][0]["evidence"] for row in rows] == ["stored", "stored", None]
    assert [row["deliveries"][0]["confirmed_at"] is None for row in rows] == [False, False, True]
    assert receipt(spool) == said


def test_what_is_complete_stays_complete_when_it_is_retired(spool):
    deliver(spool, 9)
    assert receipt(spool)["complete"]
    spool.retire([released.held for released in spool.reader.released(2)])
    said = receipt(spool)
    assert (said["complete"], said["received"], said["retired"], len(said["instances"])) == (True, 3, 2, 1)


def test_of_what_is_not_known_nothing_is_stated(spool):
    with pytest.raises(GatewayError, match="nothing is known"):
        receipt(spool, "9.9")


def test_there_is_one_form_only():
    """The examples are of the kind in RFC 8785, 3.2.2 and 3.2.3."""
    assert canonical({"b": 1, "a": "\u20ac$\u000f\n"}) == '{"a":"€$\\u000f\\n","b":1}'.encode()
    assert canonical(json.loads('{"x": [true, null], "\\u0061": {}}')) == b'{"a":{},"x":[true,null]}'
