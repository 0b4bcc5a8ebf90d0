"""Reconciliation: what a scanner said, what came, what was delivered and confirmed."""

from __future__ import annotations

import time

import pytest

from gateway.model.instance import Door, Header, Origin, Priority
from gateway.model.verdict import Verdict
from gateway.model.way import Way
from gateway.spool import studies
from gateway.spool.spool import Spool
from gateway.spool.studies import Tally

CT = "1.2.840.10008.5.1.4.1.1.2"
FUTURE = time.time() + 1e6


@pytest.fixture
def spool(tmp_path):
    opened = Spool(tmp_path, 0, 100, lambda *_: {"pacs": Way(), "cloud": Way()})
    yield opened
    opened.close()


def take(spool: Spool, number: int, study: str = "1.2", content: bytes = b"x") -> None:
    identity = (CT, f"1.2.{number}", "1.2.840.10008.1.2")
    part = spool.new_part(identity)
    part.write(content)
    spool.take(part, Header(CT, identity[1], study, "1.2", "CT"), Origin(Door.IMPORT), identity)


def deliver(spool: Spool, destination: str, limit: int = 100) -> None:
    for claim in spool.claim(destination, Priority.NORMAL, limit, 300.0):
        spool.record(claim, Verdict.accepted(), 0.0).outcome()


def one(spool: Spool, study: str = "1.2") -> studies.Study:
    (found,) = studies.named(spool.reader, [study])
    return found


def test_counts_are_per_destination(spool):
    for number in (1, 2, 3):
        take(spool, number)
    take(spool, 9, "9.9")
    deliver(spool, "pacs", 2)
    study = one(spool)
    assert (study.received, study.expected, study.missing) == (3, None, 0)
    assert study.destinations == {"pacs": Tally(3, 2, 2), "cloud": Tally(3, 0, 0)}
    assert study.short_since is not None


def test_a_study_is_short_until_everything_is_confirmed_everywhere(spool):
    take(spool, 1)
    assert studies.short(spool.reader, FUTURE) == ["1.2"]
    assert studies.short(spool.reader, time.time() - 100) == [], "not for long enough"
    deliver(spool, "pacs")
    assert studies.short(spool.reader, FUTURE) == ["1.2"]
    deliver(spool, "cloud")
    assert studies.short(spool.reader, FUTURE) == []
    assert one(spool).short_since is None


def test_what_a_scanner_said_it_sent_and_never_came_is_missed(spool):
    take(spool, 1)
    take(spool, 2)
    spool.expect(["1.2.1", "1.2.2", "1.2.3"], "commitment CT1")
    deliver(spool, "pacs")
    deliver(spool, "cloud")
    study = one(spool)
    assert (study.expected, study.missing, study.received) == (3, 1, 2)
    assert studies.short(spool.reader, FUTURE) == ["1.2"]
    take(spool, 3)
    deliver(spool, "pacs")
    deliver(spool, "cloud")
    assert (one(spool).missing, one(spool).short_since, studies.short(spool.reader, FUTURE)) == (0, None, [])


def test_a_list_that_is_sent_again_and_by_another_way_counts_once_and_keeps_its_time(spool, monkeypatch):
    spool.expect(["1.2.1", "1.2.2"], "mpps CT1", "1.2")
    since = one(spool).short_since
    monkeypatch.setattr("gateway.spool.ledger.time.time", lambda: FUTURE)
    spool.expect(["1.2.1", "1.2.2"], "mpps CT1", "1.2")
    spool.expect(["1.2.1"], "commitment CT1", "1.2")
    monkeypatch.undo()
    study = one(spool)
    assert (study.expected, study.missing, study.short_since) == (2, 2, since)


def test_instances_of_several_studies_in_one_list_are_not_mixed_up(spool):
    take(spool, 1, "1.2")
    take(spool, 2, "9.9")
    spool.expect(["1.2.1", "1.2.2", "1.2.3"], "commitment CT1")
    assert [(one(spool, uid).expected, one(spool, uid).missing) for uid in ("1.2", "9.9", "")] == [
        (1, 0),
        (1, 0),
        (1, 1),
    ]


def test_a_person_can_say_that_no_more_will_come(spool):
    take(spool, 1)
    spool.expect(["1.2.1", "1.2.2"], "commitment CT1")
    deliver(spool, "pacs")
    deliver(spool, "cloud")
    assert spool.change(lambda ledger: ledger.announced.settle("1.2")) == 1
    assert spool.change(lambda ledger: ledger.announced.settle("1.2")) == 0
    assert (one(spool).expected, one(spool).missing, studies.short(spool.reader, FUTURE)) == (1, 0, [])


def test_what_was_retired_is_still_counted_and_not_missed(spool):
    take(spool, 1)
    take(spool, 2)
    deliver(spool, "pacs")
    deliver(spool, "cloud")
    spool.retire([released.held for released in spool.reader.released(1)])
    spool.expect(["1.2.1", "1.2.2"], "commitment CT1")
    study = one(spool)
    assert (study.received, study.retired, study.expected, study.missing) == (2, 1, 2, 0)
    assert study.destinations == {"pacs": Tally(2, 2, 2), "cloud": Tally(2, 2, 2)}
    assert studies.short(spool.reader, FUTURE) == []


def test_only_so_many_are_remembered(spool, monkeypatch):
    monkeypatch.setattr("gateway.spool.rows.REMEMBERED", 2)
    spool.expect([f"1.2.{number}" for number in range(5)], "commitment CT1", "1.2")
    assert one(spool).expected == 2


def test_what_rots_is_short_until_the_scanner_sends_it_again(spool):
    take(spool, 1)
    (held,) = spool.reader.get("")
    spool.quarantine(held, "rot")
    assert (one(spool).quarantined, studies.short(spool.reader, FUTURE)) == (1, ["1.2"])
    take(spool, 1)
    deliver(spool, "pacs")
    deliver(spool, "cloud")
    study = one(spool)
    assert (study.received, study.quarantined, study.short_since) == (1, 0, None)
    assert studies.short(spool.reader, FUTURE) == []


def test_the_newest_come_first_page_by_page(spool, monkeypatch):
    for number, (study, at) in enumerate([("1", 1000.0), ("2", 2000.0), ("3", 3000.0), ("1", 4000.0)]):
        monkeypatch.setattr("gateway.spool.spool.time.time", lambda at=at: at)
        take(spool, number, study)
    monkeypatch.undo()
    assert [study.study_uid for study in studies.newest(spool.reader, 2)] == ["1", "3"]
    assert [study.study_uid for study in studies.newest(spool.reader, 2, 2)] == ["2"]
    assert studies.named(spool.reader, ["nowhere"]) == []
