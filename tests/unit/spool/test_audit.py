"""Contract D12: the sums hold whatever happens, and a single row that vanishes is seen."""

from __future__ import annotations

import logging
import sqlite3
import threading

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.model.instance import Door, Header, Origin, Priority
from gateway.model.lifecycle import DeliveryEvent
from gateway.model.verdict import Blame, Verdict
from gateway.model.way import Way
from gateway.spool.audit import Audit, faults
from gateway.spool.ledger_reader import LedgerReader
from gateway.spool.spool import Spool

CT = "1.2.840.10008.5.1.4.1.1.2"
GROUP = Way(instead=("a", "b"))
ROUTES = [{}, {"a": Way()}, {"a": GROUP}, {"a": Way(), "c": Way()}, {"b": GROUP, "c": Way()}]


def take(spool: Spool, number: int, content: bytes = b"x") -> None:
    identity = (CT, f"1.2.{number}", "1.2.840.10008.1.2")
    part = spool.new_part(identity)
    part.write(content)
    spool.take(part, Header(CT, identity[1], "1.2", "1.2", "CT"), Origin(Door.IMPORT), identity)


def deliver(spool: Spool, destination: str, verdict: Verdict, *, suffices: bool = True) -> None:
    for claim in spool.claim(destination, Priority.NORMAL, 2, 300.0):
        spool.record(claim, verdict, 0.0, suffices=suffices).outcome()


def first_here(spool: Spool) -> list:
    return [held for row in list(spool.reader.inventory())[:1] for held in spool.reader.get(row["object_id"])]


names, numbers = st.sampled_from("abc"), st.integers(1, 4)
verdicts = st.sampled_from([Verdict.accepted(), Verdict.deferred(Blame.DESTINATION), Verdict.refused(0xA900)])
ACTS = {
    "take": lambda spool, number, name, verdict: take(spool, number),
    "other bytes": lambda spool, number, name, verdict: take(spool, number, b"y"),
    "deliver": lambda spool, number, name, verdict: deliver(spool, name, verdict),
    "send": lambda spool, number, name, verdict: deliver(spool, name, verdict, suffices=False),
    "confirm": lambda spool, number, name, verdict: spool.change(
        lambda ledger: ledger.confirm([number], name, "query")
    ),
    "miss": lambda spool, number, name, verdict: spool.change(lambda ledger: ledger.miss([number], name, "", 0.0, 2)),
    "reroute": lambda spool, number, name, verdict: spool.change(lambda ledger: ledger.reroute(name, {"a", "b"}, 2)),
    "retire": lambda spool, number, name, verdict: spool.retire([one.held for one in spool.reader.released(1)]),
    "rot": lambda spool, number, name, verdict: [spool.quarantine(held, "rot") for held in first_here(spool)],
    "release": lambda spool, number, name, verdict: spool.change(
        lambda ledger: ledger.operate(spool.reader.seqs(["held"], None), None, DeliveryEvent.RELEASED_BY_OPERATOR)
    ),
    "route": lambda spool, number, name, verdict: spool.use_router(lambda *_: ROUTES[number]),
}


act = st.tuples(st.sampled_from(sorted(ACTS)), numbers, names, verdicts)
TAKEN, TO_B = ("take", 1, "a", Verdict.accepted()), ("reroute", 1, "a", Verdict.accepted())


@settings(max_examples=40)
@given(st.sampled_from(ROUTES), st.lists(act, max_size=25))
@example({"a": GROUP}, [TAKEN, TO_B])
@example({"a": GROUP, "b": Way()}, [TAKEN, TO_B])
def test_whatever_happens_every_sum_holds(tmp_path_factory, routes, acts):
    spool = Spool(tmp_path_factory.mktemp("spool"), 0, 100, lambda *_: routes)
    try:
        for name, *arguments in acts:
            ACTS[name](spool, *arguments)
            assert faults(spool.reader.sums()) == faults(spool.reader.sums(counted=True)) == []
    finally:
        spool.close()


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("DELETE FROM delivery WHERE destination = 'c'", ["destination c"]),
        ("DROP TRIGGER delivery_left; DELETE FROM delivery WHERE destination = 'c'", ["destination c"]),
        ("DELETE FROM instance", ["custody", "destination a", "destination c"]),
        ("UPDATE counter SET value = value + 1 WHERE name = 'required:a'", ["destination a"]),
        ("UPDATE counter SET value = value + 1 WHERE name = 'accepted'", ["custody"]),
    ],
)
def test_what_vanishes_is_named_once_in_the_log(tmp_path, caplog, loss, expected):
    spool = Spool(tmp_path, 0, 100, lambda *_: ROUTES[3])
    take(spool, 1)
    spool.close()
    with sqlite3.connect(tmp_path / "ledger.db") as db:
        db.execute("PRAGMA foreign_keys=ON")
        db.executescript(loss)
    audit = Audit(LedgerReader(tmp_path / "ledger.db"), lambda: 3600.0)
    with caplog.at_level(logging.WARNING):
        audit.check()
        audit.check()
    assert audit.faults == expected
    assert [record.getMessage() for record in caplog.records] == [f"sums_disagree what={', '.join(expected)!r}"]


def test_it_looks_at_once_and_ends_when_told_to(tmp_path):
    spool = Spool(tmp_path, 0, 100)
    audit, stop, beats = Audit(spool.reader, lambda: 3600.0), threading.Event(), []

    def beat() -> None:
        beats.append(1)
        stop.set()

    audit.run(stop, beat)
    spool.close()
    assert (audit.faults, beats) == ([], [1])
