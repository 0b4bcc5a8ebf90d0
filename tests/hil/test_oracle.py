"""The suite is believed because it notices: a box that loses, one that alters, one that cannot, a rig that is wrong."""

from __future__ import annotations

import csv
import json
import socket
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from gateway.emulator.pacs import Pacs
from gateway.emulator.rules import parse
from gateway.emulator.urgent import Urgent
from tests.hil import coverage
from tests.hil.cases import Case, scanners
from tests.hil.day import _hastened
from tests.hil.rig import ArchiveTable, BrokerTable, Rig, RigError, box_config, load, split
from tests.hil.suite import Protocol, cases, play
from tests.hil.target import AddressTarget
from tests.hil.trouble import troubles
from tests.hil.verdict import Failed, Outcome, Result, judge

A, B, C = ("1.1", "a"), ("1.2", "b"), ("1.3", "c")


def test_what_was_acknowledged_and_did_not_arrive_is_lost():
    sums = judge({A, B}, {A}, {B}, {A, B})
    assert sums.lost == (A,) and not sums.fine and "1 lost" in sums.words()


def test_other_bytes_under_a_uid_that_was_sent_are_altered():
    sums = judge({A}, {A}, {A, ("1.1", "x")}, {A})
    assert sums.altered == (("1.1", "x"),) and not sums.fine


def test_what_was_not_acknowledged_may_arrive_and_may_not():
    assert judge({A, B, C}, {A}, {A, B}, {A, B, C}).fine


def test_what_nobody_sent_is_told():
    assert judge({A}, {A}, {A, C}, {A}).strange == (C,)


@pytest.fixture
def box_that(port):
    """A box that says success and keeps nothing, or refuses; and its rig."""
    running = []

    def make(rule: str) -> AddressTarget:
        box = Pacs(ae_title="EDGEGW", rules=[parse(rule)])
        box.start()
        running.append(box)
        place = f"127.0.0.1:{port()}"
        rig = Rig(name="bench", archive=ArchiveTable(listen=place, box_sees=place), box={"patience_s": 0.5})
        return AddressTarget(f"127.0.0.1:{box.port}", rig)

    yield make
    for box in running:
        box.stop()


def profile(name: str) -> Case:
    return next(one for one in scanners() if one.name == f"profile-{name}")


def test_a_box_that_says_success_and_loses_fails_and_leaves_both_sides(box_that, tmp_path):
    protocol = play(box_that("do=lie"), [profile("cr")], tmp_path / "run", seed=7, short=True)
    (result,) = protocol.results
    assert result.outcome is Outcome.FAILED and "lost, such as" in result.reason and not protocol.passed
    kept = tmp_path / "run/cases/profile-cr"
    rows = list(csv.DictReader((kept / "side-by-side.csv").read_text().splitlines()))
    assert {row["archive_answered_and_got"] for row in rows} == {"nothing"}
    assert {row["sha256_sent"] for row in rows} == {digest for _, digest in result.sums.lost}
    assert len(list((kept / "sent").iterdir())) == len(rows) and (kept / "box.log").exists()


def test_what_was_sent_can_be_made_again_as_a_file(box_that, tmp_path, digest_of):
    protocol = play(box_that("do=lie"), [profile("us")], tmp_path / "run", seed=7, short=True)
    files = {digest_of(path) for path in (tmp_path / "run/cases/profile-us/sent").iterdir()}
    assert files == {digest for _, digest in protocol.results[0].sums.lost}


def test_a_box_that_refuses_fails(box_that, tmp_path):
    protocol = play(box_that("do=busy"), [profile("sr")], tmp_path / "run", seed=7, short=True)
    assert protocol.results[0].outcome is Outcome.FAILED and "0xA700" in protocol.results[0].reason


def test_what_a_rig_cannot_do_is_not_applicable_and_says_why(box_that, tmp_path):
    chosen = [one for one in troubles() if one.name in ("kill", "power-cut", "clock-jump", "health", "commitment")]
    protocol = play(box_that("do=lie"), chosen, tmp_path / "run", seed=7, short=True)
    assert {one.outcome for one in protocol.results} == {Outcome.NOT_APPLICABLE}
    assert all(one.reason for one in protocol.results) and not protocol.passed


def test_the_same_seed_sends_the_same(box_that, tmp_path):
    runs = [play(box_that("do=lie"), [profile("cr")], tmp_path / str(n), seed=3, short=True) for n in (1, 2)]
    assert runs[0].results[0].sums.lost == runs[1].results[0].sums.lost


def test_an_archive_remembers_what_a_box_will_not_send_again(box_that, tmp_path):
    """A box that keeps what it delivered answers a repeated seed with success, and sends nothing."""
    target = box_that("do=lie")
    journal = tmp_path / "journal.jsonl"
    target.rig = target.rig.model_copy(update={"archive": target.rig.archive.model_copy(update={"journal": journal})})
    (lost,) = play(target, [profile("sr")], tmp_path / "1", seed=3, short=True).results[0].sums.lost
    there = {"sop_instance_uid": lost[0], "sha256": lost[1], "length": 1, "transfer_syntax_uid": "", "status": 0}
    journal.write_text(json.dumps(there) + "\n")
    assert play(target, [profile("sr")], tmp_path / "2", seed=3, short=True).passed


def test_the_example_of_a_rig_is_one():
    rig = load(coverage.README.with_name("rig.example.toml"))
    assert rig.power and rig.clock and rig.broker
    assert 'host = "192.0.2.10"\nport = 11112' in box_config(rig)
    assert 'priority = "sender"' in box_config(rig), "what a scanner calls urgent would wait with the rest"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('nam = "x"', "archive"),
        ('name = "x"\n[archive]\nlisten = "here"\nbox_sees = "192.0.2.1:1"', "archive.listen"),
        ('name = "x"\n[power]\ncut = []', "power.cut"),
        ("name = \nfresh = 1", "line 1"),
    ],
)
def test_a_wrong_rig_is_told_with_its_place(tmp_path, text, named):
    path = tmp_path / "rig.toml"
    path.write_text(text)
    with pytest.raises(RigError, match=named):
        load(path)


def test_the_coverage_table_keeps_what_another_target_played(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"# x\n{coverage.BEGIN}\n{coverage.END}\nafter\n")
    for kind, name in (("qemu", "profile-ct"), ("process", "profile-mr")):
        protocol = Protocol(kind, "rig", "here:1", 1, "full", 0.0)
        protocol.results = [Result(name, "", "", Outcome.PASSED, profiles=(name[-2:],))]
        protocol.results.append(Result("quirk-Q1", "", "", Outcome.FAILED, profiles=("ct",)))
        coverage.record(protocol, path)
    cells = coverage.read(path.read_text())
    assert cells["ct", coverage.STORED] == "✔Q"
    assert cells["mr", coverage.STORED] == "✔P"
    assert cells["Q1", "played"] == "✖P" and cells["Q1", coverage.LAST] == "1970-01-01"
    assert path.read_text().endswith("after\n")


def test_every_case_has_a_name_of_its_own():
    every = cases()
    assert all(name == one.name for name, one in every.items())
    assert {one.group for one in every.values()} >= {"Scanners", "Mistakes", "Trouble", "Health", "Figures"}


def test_a_place_of_the_rig_that_is_taken_is_told(box_that, tmp_path):
    target = box_that("do=lie")
    with socket.create_server(("127.0.0.1", split(target.rig.archive.listen)[1])):
        with pytest.raises(OSError, match="in use"):
            play(target, [profile("sr")], tmp_path / "run", seed=7, short=True)


def test_a_broker_that_is_not_there_fails_what_needs_it(box_that, tmp_path, port):
    target = box_that("do=lie")
    place, nobody = (f"127.0.0.1:{port()}" for _ in range(2))
    broker = BrokerTable(listen=place, box_sees=place, to=nobody)
    target.rig = target.rig.model_copy(update={"broker": broker})
    cases = [one for one in troubles() if one.name == "broker-outage"]
    (result,) = play(target, cases, tmp_path / "run", seed=7, short=True).results
    assert result.outcome is Outcome.FAILED and "refused" in result.reason


def test_an_emergency_that_is_late_fails_the_day():
    """Twice what the line alone needs may be taken: after the last store, and from the first."""
    times = ((2.0, 8.0), (2.1, 4.0), (0.1, 8.1))
    fine, late, slow = (Urgent(3, 10**6, waited_s, took_s, 1.0, 4.0, 0.0) for waited_s, took_s in times)
    for urgent, fails in (([], False), ([fine], False), ([fine, late], True), ([slow, fine], True)):
        stage = SimpleNamespace(urgent=urgent, figures={})
        with pytest.raises(Failed, match=r"line alone needs 1\.00 and 4\.00 s") if fails else nullcontext():
            _hastened(stage, within=2.0)
        assert stage.figures["stat_studies"] == len(urgent)
