"""What a scanner asked about, as the ledger knows it."""

from __future__ import annotations

import threading

import pytest

from gateway.model.instance import Door, Header, Origin, Priority
from gateway.model.verdict import Verdict
from gateway.model.way import Way
from gateway.spool.promises import OPEN, Asker, Standing
from gateway.spool.spool import Spool

CT = "1.2.840.10008.5.1.4.1.1.2"
ASKER = Asker("127.0.0.1", "CT1", "EDGEGW")


@pytest.fixture
def spool(tmp_path):
    spool = Spool(tmp_path, 0, 100, lambda instance, beginning: {"pacs": Way()})
    stop = threading.Event()
    thread = threading.Thread(target=spool.committer.run, args=(stop, lambda: None))
    thread.start()
    yield spool
    stop.set()
    thread.join()
    spool.close()


def take(spool, uid, body=b"body"):
    identity = (CT, uid, "1.2.840.10008.1.2.1")
    part = spool.new_part(identity)
    part.write(body)
    return spool.take(part, Header(CT, uid), Origin(Door.IMPORT), identity)


def deliver(spool):
    for claim in spool.claim("pacs", Priority.NORMAL, 100, 300.0):
        spool.record(claim, Verdict.accepted(), 0.0).outcome()


def standing(spool, *uids):
    spool.change(lambda ledger: ledger.promises.add("2.25.1", ASKER, [(CT, uid) for uid in uids], 0.0, 10.0))
    (promise,) = spool.reader.promises.due(1.0, 1e9, decided=False)
    return spool.reader.promises.standings(promise.promise_id)


def test_what_is_here_and_what_is_not(spool):
    take(spool, "1.1")
    deliver(spool)
    take(spool, "1.2")
    assert standing(spool, "1.1", "1.2", "1.3") == [
        Standing(0, known=1, of_class=1, quarantined=0, unconfirmed=0, unrouted=0, retired=0),
        Standing(1, known=1, of_class=1, quarantined=0, unconfirmed=1, unrouted=0, retired=0),
        Standing(2, known=0, of_class=0, quarantined=0, unconfirmed=0, unrouted=0, retired=0),
    ]


def test_of_what_rotted_and_came_again_the_new_copy_counts(spool):
    instance, _ = take(spool, "1.1")
    (held,) = spool.reader.get(instance.object_id)
    spool.quarantine(held, "rot")
    take(spool, "1.1")
    deliver(spool)
    (found,) = standing(spool, "1.1")
    assert (found.known, found.quarantined, found.unconfirmed) == (1, 0, 0)


def test_of_two_with_one_uid_the_rotten_one_still_counts(spool):
    instance, _ = take(spool, "1.1")
    take(spool, "1.1", b"other")
    (held,) = spool.reader.get(instance.object_id)
    spool.quarantine(held, "rot")
    deliver(spool)
    (found,) = standing(spool, "1.1")
    assert (found.known, found.quarantined) == (2, 1)


def test_a_request_is_there_once_and_its_report_until_it_is_told(spool):
    add = lambda ledger: ledger.promises.add("2.25.7", ASKER, [(CT, "1.1")], 0.0, 10.0)  # noqa: E731
    assert spool.change(add)
    assert not spool.change(add)
    (promise,) = spool.reader.promises.due(1.0, 1e9, decided=False)
    spool.committer.change(lambda ledger: ledger.promises.decide(promise.promise_id, [(0, OPEN)], 1.0, 5.0))
    assert not spool.reader.promises.due(2.0, 1e9, decided=False)
    assert spool.reader.promises.due(-1e6, 100.0, decided=False)  # a clock that was set back delays nothing
    spool.committer.change(lambda ledger: ledger.promises.decide(promise.promise_id, [(0, 0x0112)], 6.0, 6.0))
    assert [one.promise_id for one in spool.reader.promises.decided_for("CT1", "127.0.0.1")] == [promise.promise_id]
    assert not spool.reader.promises.decided_for("CT2", "127.0.0.1")
    assert [item.outcome for item in spool.reader.promises.items(promise.promise_id)] == [0x0112]
    spool.committer.change(lambda ledger: ledger.promises.told(promise.promise_id))
    assert spool.reader.promises.count() == 0
    assert not spool.change(add)


def test_what_nobody_would_hear_any_more_is_forgotten_and_counted(spool):
    for number, asked_at in ((1, 0.0), (2, 100.0)):
        spool.change(
            lambda ledger, n=number, at=asked_at: ledger.promises.add(f"2.25.{n}", ASKER, [(CT, "1.1")], at, 9e9)
        )
    assert spool.change(lambda ledger: ledger.promises.forget(50.0)) == 1
    assert [promise.transaction_uid for promise in spool.reader.promises.due(1.0, 1e12, decided=False)] == ["2.25.2"]
