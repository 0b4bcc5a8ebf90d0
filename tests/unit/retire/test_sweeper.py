"""The sweeper on a real spool, with a disk as full as the story needs."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from gateway.config.schema import SpoolSettings
from gateway.model.instance import Door, Header, Origin, Priority
from gateway.model.lifecycle import Custody
from gateway.model.verdict import Verdict
from gateway.model.way import Way
from gateway.retire.sweeper import Sweeper
from gateway.spool.capacity import Capacity, Room
from gateway.spool.spool import Spool

CT = "1.2.840.10008.5.1.4.1.1.2"
POLICY = SpoolSettings(reserve_bytes=0, high_water_percent=90)
LENGTH = 100


@pytest.fixture
def spool(tmp_path, monkeypatch):
    opened = Spool(tmp_path, 0, 100, lambda *_: {"pacs": Way()})
    disk = Capacity(10_000, 5_000, None, Room.OPEN)
    opened.free = lambda free: setattr(opened, "capacity", lambda: replace(disk, free_bytes=free))
    opened.free(5_000)
    yield opened
    opened.close()


def take(spool: Spool, *numbers: int) -> None:
    for number in numbers:
        identity = (CT, f"1.2.{number}", "1.2.840.10008.1.2")
        part = spool.new_part(identity)
        part.write(b"x" * LENGTH)
        spool.take(part, Header(CT, identity[1], "1.2", "1.2", "CT"), Origin(Door.IMPORT), identity)


def deliver(spool: Spool) -> None:
    for claim in spool.claim("pacs", Priority.NORMAL, 100, 300.0):
        spool.record(claim, Verdict.accepted(), 0.0).outcome()


def here(spool: Spool, state: Custody) -> list[str]:
    return sorted(row["sop_instance_uid"] for row in spool.reader.inventory() if row["state"] == state)


def test_short_of_space_those_released_first_go_until_there_is_enough_and_nothing_unreleased_goes(spool):
    for number in range(1, 7):
        take(spool, number)
        deliver(spool)
    take(spool, 7, 8)
    sweeper = Sweeper(spool)
    spool.free(1_200)
    assert sweeper.sweep(POLICY, time.time()) == 0
    spool.free(1_199)  # to have 1500 free again takes four of 100 bytes
    assert sweeper.sweep(POLICY, time.time()) == 4
    assert here(spool, Custody.RELEASED) == ["1.2.5", "1.2.6"]
    spool.free(1_490)
    assert sweeper.sweep(POLICY, time.time()) == 1
    spool.free(1_500)
    assert sweeper.sweep(POLICY, time.time()) == 0
    spool.free(1_490)
    assert sweeper.sweep(POLICY, time.time()) == 0
    spool.free(0)
    assert sweeper.sweep(POLICY, time.time()) == 1
    assert sweeper.sweep(POLICY, time.time()) == 0
    assert (here(spool, Custody.RELEASED), here(spool, Custody.IN_CUSTODY)) == ([], ["1.2.7", "1.2.8"])


def test_what_was_released_in_1970_is_kept_for_its_days_from_when_the_clock_was_set(spool, monkeypatch):
    set_at = 1_800_000_000.0
    monkeypatch.setattr("gateway.spool.ledger.time.time", lambda: 100.0)
    take(spool, 1)
    deliver(spool)
    monkeypatch.undo()
    sweeper = Sweeper(spool)
    for now, expected in ((200.0, 0), (set_at, 0), (set_at + 6.9 * 86400, 0), (set_at + 7.1 * 86400, 1)):
        assert sweeper.sweep(POLICY, now) == expected


@pytest.mark.parametrize(
    ("evidence", "proven"),
    [({"pacs": "storage commitment", "cloud": "query"}, True), ({"pacs": "storage commitment", "cloud": None}, False)],
)
def test_only_evidence_beyond_success_from_every_destination_counts_as_proof(spool, evidence, proven):
    spool.use_router(lambda *_: dict.fromkeys(evidence, Way()))
    take(spool, 1)
    for name, said in evidence.items():
        (claim,) = spool.claim(name, Priority.NORMAL, 9, 300.0)
        spool.record(claim, Verdict.accepted(), 0.0, suffices=said is None).outcome()
        if said is not None:
            seq = claim.held.seq
            spool.change(lambda ledger, seq=seq, name=name, said=said: ledger.confirm([seq], name, said))
    assert [one.proven for one in spool.reader.released(9)] == [proven]
