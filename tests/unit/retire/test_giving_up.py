"""What is given up is what is released at that very moment, and nothing else."""

from __future__ import annotations

import pytest

from gateway.model.instance import Door, Header, Origin, Priority
from gateway.model.lifecycle import Custody
from gateway.model.verdict import Verdict
from gateway.model.way import Way
from gateway.spool.rows import Held
from gateway.spool.spool import Spool

CT = "1.2.840.10008.5.1.4.1.1.2"


def take(spool: Spool, number: int = 1) -> Held:
    identity = (CT, f"1.2.{number}", "1.2.840.10008.1.2")
    part = spool.new_part(identity)
    part.write(b"x" * 100)
    instance, _ = spool.take(part, Header(CT, identity[1], "1.2", "1.2", "CT"), Origin(Door.IMPORT), identity)
    return spool.reader.get(instance.object_id)[0]


def deliver(spool: Spool, destination: str = "pacs") -> None:
    for claim in spool.claim(destination, Priority.NORMAL, 100, 300.0):
        spool.record(claim, Verdict.accepted(), 0.0).outcome()


@pytest.fixture
def spool(tmp_path):
    opened = Spool(tmp_path, 0, 100, lambda *_: {"pacs": Way()})
    yield opened
    opened.close()


def released(spool: Spool) -> Held:
    object_id = take(spool).instance.object_id
    deliver(spool)
    held = spool.reader.get(object_id)[0]
    assert held.state is Custody.RELEASED
    return held


def test_what_is_required_again_after_it_was_chosen_is_kept(spool):
    chosen = released(spool)
    spool.use_router(lambda *_: {"pacs": Way(), "second": Way()})
    take(spool)
    assert spool.retire([chosen]) == 0
    assert spool.path_of(chosen).exists()
    deliver(spool, "second")
    assert spool.retire([chosen]) == 1
    assert not spool.path_of(chosen).exists()


def test_what_is_found_rotten_after_it_was_chosen_is_kept(spool):
    chosen = released(spool)
    assert spool.quarantine(chosen, "rot")
    assert spool.retire([chosen]) == 0
    assert spool.path_of(chosen).exists()


def test_rot_is_counted_once_and_a_retired_instance_is_not_rotten(spool):
    rotten = take(spool)
    assert spool.quarantine(rotten, "rot")
    assert not spool.quarantine(rotten, "rot")
    assert spool.reader.sums().counters["quarantined"] == 1
    gone = released(spool)
    spool.retire([gone])
    assert not spool.quarantine(gone, "rot")
