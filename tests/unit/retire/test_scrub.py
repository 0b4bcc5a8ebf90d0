"""Contract D13: what is held is read again, in no hurry, from where it was, and rot is put aside."""

from __future__ import annotations

import builtins
import errno
import threading
from pathlib import Path

import pytest

from gateway.config.schema import SpoolSettings
from gateway.model.instance import Door, Header, Origin, Priority
from gateway.model.lifecycle import Custody
from gateway.model.verdict import Verdict
from gateway.model.way import Way
from gateway.retire import scrub
from gateway.retire.scrub import LARGEST_SHARE, SLOWEST_BYTES_PER_S, Scrub, is_due, is_overdue, rest_s
from gateway.spool.rows import ScrubState
from gateway.spool.spool import Spool

CT = "1.2.840.10008.5.1.4.1.1.2"
DAY = 86400.0


@pytest.mark.parametrize(
    ("state", "now", "due"),
    [
        (ScrubState(1000.0, None, None), 1000.0 + 3.4 * DAY, False),
        (ScrubState(1000.0, None, None), 1000.0 + 3.5 * DAY, True),
        (ScrubState(1000.0, 2000.0, 7), 1000.0 + 9 * DAY, False),
        (ScrubState(1000.0, 2000.0, None), 999.0, True),
    ],
    ids=["waits", "half the period is over", "runs already", "the clock was set back"],
)
def test_a_pass_begins_every_half_period(state, now, due):
    assert is_due(state, now, 7 * DAY) is due


@pytest.mark.parametrize(
    ("state", "now", "overdue"),
    [
        (None, 1e9, False),
        (ScrubState(1000.0, 2000.0, None), 1000.0 + 6.9 * DAY, False),
        (ScrubState(1000.0, 900.0, 7), 1000.0 + 7 * DAY, True),
        (ScrubState(1000.0, None, None), 999.0, False),
    ],
    ids=["a new box", "the next pass has its time still", "a pass takes longer than both halves", "clock set back"],
)
def test_what_was_not_read_again_for_a_period_is_overdue(state, now, overdue):
    assert is_overdue(state, now, 7 * DAY) is overdue


def test_a_pass_takes_no_more_than_a_share_of_the_time_however_late_it_is():
    for took_s, left_s in ((0.01, 1e6), (0.5, 1.0), (2.0, -5.0)):
        rest = rest_s(1000, took_s, 1e12, left_s)
        assert took_s / (took_s + rest) <= LARGEST_SHARE + 1e-9


def test_a_pass_is_over_when_its_half_period_is():
    left_bytes, left_s, count = 5e12, 3.5 * DAY, 262144
    blocks = left_bytes / count
    assert blocks * (0.001 + rest_s(count, 0.001, left_bytes, left_s)) == pytest.approx(left_s)


def test_a_little_spool_is_not_spread_over_days():
    assert 1e6 / 262144 * (0.001 + rest_s(262144, 0.001, 1e6, 3.5 * DAY)) == pytest.approx(1e6 / SLOWEST_BYTES_PER_S)


@pytest.fixture
def spool(tmp_path):
    opened = Spool(tmp_path, 0, 100, lambda *_: {"pacs": Way()})
    for number in range(1, 6):
        identity = (CT, f"1.2.{number}", "1.2.840.10008.1.2")
        part = opened.new_part(identity)
        part.write(bytes([number]) * 100)
        opened.take(part, Header(CT, identity[1], "1.2", "1.2", "CT"), Origin(Door.IMPORT), identity)
    yield opened
    opened.close()


def due(spool: Spool) -> None:
    spool.committer.change(lambda ledger: ledger.save_scrub(ScrubState(0.0, None, None)))


def run(spool: Spool, after: int = 10**6) -> list[int]:
    """Scrub until the pass is over, or until told to stop while instance number `after` is read; return what was."""
    stop, read = threading.Event(), []
    body = spool.body

    def watched(held):
        read.append(held.seq)
        if len(read) >= after:
            stop.set()
        return body(held)

    def beat() -> None:
        state = spool.reader.scrub_state()
        if state is not None and not state.running and state.began_at > 0:
            stop.set()

    spool.body = watched
    try:
        Scrub(spool, SpoolSettings).run(stop, beat)
    finally:
        spool.body = body
    return read


def test_a_new_box_waits_for_its_first_pass(spool):
    assert run(spool) == []
    assert spool.reader.scrub_state().finished_at is None


def test_a_restart_goes_on_where_it_was_and_a_full_pass_is_written_down(spool):
    due(spool)
    assert run(spool, after=3) == [1, 2, 3]
    assert spool.reader.scrub_state().position == 2, "the third was not finished"
    assert spool.reader.scrub_state().finished_at is None
    assert run(spool) == [3, 4, 5]
    state = spool.reader.scrub_state()
    assert not state.running
    assert state.finished_at >= state.began_at > 0


def test_a_pass_ends_with_reading_the_ledger_itself_and_what_is_wrong_there_is_an_alarm(spool, caplog):
    spool.ledger_rot = lambda go_on: ["row 1 missing from index delivery_due"] if go_on() else []
    due(spool)
    run(spool)
    assert spool.reader.sums().counters["ledger_rot"] == 1
    assert "ledger_rot what='row 1 missing from index delivery_due'" in caplog.text
    assert spool.reader.scrub_state().finished_at is not None


def rot(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_rot_is_put_aside_its_delivery_stopped_and_the_rest_is_read_on(spool):
    for claim in spool.claim("pacs", Priority.NORMAL, 1, 300.0):
        spool.record(claim, Verdict.accepted(), 0.0).outcome()
    helds = [spool.reader.kept_after(seq) for seq in range(5)]
    assert [held.state for held in helds[:2]] == [Custody.RELEASED, Custody.IN_CUSTODY]
    for held in helds[:2]:
        rot(spool.path_of(held))
    spool.path_of(helds[2]).unlink()
    due(spool)
    assert run(spool) == [1, 2, 3, 4, 5]
    assert [row["state"] for row in spool.reader.inventory()] == ["quarantined"] * 3 + ["in_custody"] * 2
    assert [spool.reader.deliveries(seq)[0]["state"] for seq in (1, 2, 4)] == ["confirmed", "held", "queued"]
    assert spool.reader.sums().counters["custody_rot"] == 3
    reasons = {row["reason"] for row in spool.reader.listing([], None, 9, quarantined=True)}
    wrong = "found by scrub: the bytes on disk are not those that were acknowledged"
    assert reasons == {wrong, "found by scrub: the object cannot be read"}
    assert [claim.held.seq for claim in spool.claim("pacs", Priority.NORMAL, 9, 300.0)] == [4, 5]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES])
def test_when_it_is_we_who_cannot_read_nothing_is_put_aside_and_the_pass_goes_on_later(spool, monkeypatch, number):
    due(spool)
    failed = []

    def fail_once(path, mode="r", **more):
        if "objects" in str(path) and len(failed) < 3:
            failed.append(path)
            raise OSError(number, "not now")
        return real(path, mode, **more)

    real = builtins.open
    monkeypatch.setattr(builtins, "open", fail_once)
    monkeypatch.setattr(scrub, "FAULT_PAUSE_S", 0.0)
    assert run(spool) == [1, 1, 2, 3, 4, 5]
    assert {row["state"] for row in spool.reader.inventory()} == {"in_custody"}


def test_what_retention_gives_up_meanwhile_is_not_rotten(spool):
    for claim in spool.claim("pacs", Priority.NORMAL, 9, 300.0):
        spool.record(claim, Verdict.accepted(), 0.0).outcome()
    due(spool)
    body = spool.body

    def retired_just_now(held):
        spool.retire([held])
        return body(held)

    spool.body = retired_just_now
    run(spool)
    assert "quarantined" not in spool.reader.sums().counters
