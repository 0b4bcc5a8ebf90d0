"""A limit is kept whatever is taken and when; hours, STAT and a stop are heeded."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.config.bandwidth import LEAST_BYTES_PER_S, BandwidthSettings, Window
from gateway.model.errors import CustodyRot, Stopped
from gateway.model.instance import Priority
from gateway.model.transfer_syntax import EXPLICIT_LE, JPEG_LS_LOSSLESS
from gateway.model.verdict import Verdict
from gateway.prepare.choice import FIRST_GUESS, choose
from gateway.send.bandwidth import Limit, Pace, Paced, TokenBucket, burst_bytes, holds, limit_at, piece_bytes
from gateway.send.courier import Consignment
from gateway.send.shaping import Meter
from gateway.send.throughput import Throughput

RATES = st.floats(LEAST_BYTES_PER_S, 1e9)
MONDAY = datetime(2026, 1, 5)  # a Monday


def settings(**given) -> BandwidthSettings:
    return BandwidthSettings.model_validate(given)


@given(RATES, st.lists(st.tuples(st.floats(0, 10), st.integers(1, 64 * 1024)), min_size=1, max_size=60))
def test_in_no_time_more_leaves_than_the_burst_and_the_rate_allow(rate, takes):
    """Takers come when they like; each waits as long as it is told. A piece leaves as a whole."""
    bucket, now, left = TokenBucket(), 1000.0, []
    for pause, count in takes:
        now += pause
        left.append((now + bucket.take(count, rate, now), count))
    for first in range(len(left)):
        total = 0
        for at, count in left[first:]:
            total += count
            assert total <= burst_bytes(rate) + rate * (at - left[first][0]) + left[first][1] + 1
    assert [at for at, _ in left] == sorted(at for at, _ in left)


@given(RATES, st.integers(1, 50), st.integers(1, 64 * 1024))
def test_who_always_wants_more_gets_all_of_the_rate(rate, takes, count):
    bucket, now = TokenBucket(), 0.0
    for _ in range(takes):
        now += bucket.take(count, rate, now)
    assert now == pytest.approx(max(0.0, (takes * count - burst_bytes(rate)) / rate), abs=1e-6)


@given(RATES, RATES, st.integers(1, 32))
def test_a_change_of_rate_leaves_nobody_with_a_debt_of_the_old_one(before, after, associations):
    bucket = TokenBucket()
    for _ in range(associations):
        bucket.take(piece_bytes(before), before, 0.0)
    wait_s = bucket.take(piece_bytes(after), after, 0.0)
    assert wait_s <= associations * piece_bytes(before) / before + piece_bytes(after) / after + 1e-6


@given(RATES)
def test_pieces_are_even_and_come_so_often_that_no_peer_gives_up(rate):
    assert piece_bytes(rate) % 2 == 0
    assert 32 * piece_bytes(rate) / rate <= 5.0


@pytest.mark.parametrize(
    ("days", "hours", "inside", "outside"),
    [
        (["mon"], "08:00-18:00", ["0 08:00", "0 17:59"], ["0 07:59", "0 18:00", "1 12:00"]),
        (["fri"], "22:00-06:00", ["4 22:00", "5 05:59"], ["4 21:59", "5 06:00", "4 03:00", "5 22:00"]),
        (["sun"], "23:30-00:30", ["6 23:59", "7 00:29", "0 00:15"], ["7 00:30", "1 00:15"]),
        (["sat", "sun"], None, ["5 00:00", "6 23:59"], ["4 23:59", "7 00:00"]),
    ],
)
def test_hours_belong_to_the_day_on_which_they_begin(days, hours, inside, outside):
    window = Window.model_validate({"days": days, "hours": hours, "mbit_per_s": 1})
    for told in [*inside, *outside]:
        day, _, clock = told.partition(" ")
        at = MONDAY + timedelta(days=int(day), hours=int(clock[:2]), minutes=int(clock[3:]))
        assert holds(window, at) is (told in inside), told


def test_the_first_window_that_holds_decides_and_else_the_rate_beside_them():
    week = settings(
        mbit_per_s=80,
        windows=[
            {"days": ["mon"], "hours": "12:00-13:00", "bytes_per_s": 0},
            {"days": ["mon"], "hours": "08:00-18:00", "mbit_per_s": 8},
            {"days": ["tue"]},
        ],
    )
    noon, nine, night = (MONDAY.replace(hour=hour) for hour in (12, 9, 22))
    assert [limit_at(week, at) for at in (noon, nine, night)] == [0, 1e6, 1e7]
    assert limit_at(week, nine + timedelta(days=1)) is None
    assert limit_at(settings(), noon) is None


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"mbit_per_s": 1, "bytes_per_s": 125000}, "not both"),
        ({"bytes_per_s": 7999}, "at least 8000"),
        ({"mbit_per_s": 0.06}, "at least 8000"),
        ({"mbit_per_s": float("inf")}, "finite"),
        ({"windows": [{"hours": "08:00-08:00", "mbit_per_s": 1}]}, "ends when it begins"),
        ({"windows": [{"days": ["monday"], "mbit_per_s": 1}]}, "'mon'"),
        ({"windows": [{"days": [], "mbit_per_s": 1}]}, "at least 1 item"),
        ({"windows": [{"hours": "8-18", "mbit_per_s": 1}]}, "pattern"),
    ],
)
def test_what_is_no_limit_is_refused(table, sentence):
    with pytest.raises(ValidationError, match=sentence):
        settings(**table)


def pace(*limits, priority=Priority.NORMAL, stop=None, beat=lambda: None, throughput=None) -> Pace:
    return Pace(limits, priority, throughput or Throughput(), stop or threading.Event(), beat)


def leaves(told: Pace, *blocks: bytes) -> tuple[bytes, float]:
    """What leaves, and how long it takes."""
    started = time.monotonic()
    content = b"".join(told.body(lambda: iter(blocks))())
    return content, time.monotonic() - started


CONTENT = bytes(range(256)) * 1000


@pytest.mark.parametrize("which", [0, 1])
def test_the_slower_of_two_limits_is_kept_and_every_byte_leaves_in_order(which):
    limits = [Limit(settings(mbit_per_s=800)), Limit(settings(mbit_per_s=800))]
    limits[which] = Limit(settings(bytes_per_s=500_000))
    beats = []
    content, took_s = leaves(pace(*limits, beat=lambda: beats.append(1)), CONTENT[:100_000], CONTENT[100_000:])
    assert content == CONTENT
    assert took_s >= (len(CONTENT) - burst_bytes(500_000)) / 500_000
    assert beats
    assert limits[which].report()["waited_bytes"] > 0


def test_couriers_of_a_lane_share_its_limit():
    limit, ended = Limit(settings(bytes_per_s=500_000)), []
    started = time.monotonic()
    threads = [threading.Thread(target=lambda: ended.append(leaves(pace(limit), CONTENT)[0])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == [CONTENT] * 2
    assert time.monotonic() - started >= (2 * len(CONTENT) - burst_bytes(500_000)) / 500_000


def test_stat_passes_only_where_it_may():
    slow = Limit(settings(bytes_per_s=8000, stat_passes=True))
    assert leaves(pace(slow, priority=Priority.STAT), CONTENT)[0] == CONTENT  # 32 s, would it wait
    assert slow.report()["waited_bytes"] == 0
    assert slow.take(1, 8000, time.monotonic()) == 0  # nor does it count for the limit
    closed = [Limit(settings(bytes_per_s=0, stat_passes=passes)).closed(Priority.STAT) for passes in (True, False)]
    assert closed == [False, True]
    assert Limit(settings(bytes_per_s=0, stat_passes=True)).closed(Priority.NORMAL)
    assert not Limit(settings()).closed(Priority.BULK)
    assert not Limit(None).closed(Priority.BULK)


def test_what_is_under_way_when_a_window_closes_goes_on_at_the_last_rate():
    limit = Limit(settings(bytes_per_s=50_000_000))
    body = pace(limit).body(lambda: iter([CONTENT]))()
    first = next(body)
    limit.settings = settings(bytes_per_s=0)
    assert limit.closed(Priority.NORMAL)
    assert bytes(first) + b"".join(body) == CONTENT


def test_a_new_limit_counts_in_the_middle_of_an_object():
    limit = Limit(settings(bytes_per_s=8000))
    body = pace(limit).body(lambda: iter([CONTENT]))()
    first = next(body)
    limit.settings = settings()
    assert bytes(first) + b"".join(body) == CONTENT  # 32 s at the old one


def test_a_stop_ends_the_wait():
    stop, limit = threading.Event(), Limit(settings(bytes_per_s=8000))
    body = pace(limit, stop=stop).body(lambda: iter([CONTENT]))()
    next(body)
    stop.set()
    with pytest.raises(Stopped):
        for _ in body:
            pass


def test_rot_is_told_through_the_pace():
    def rotten():
        yield b"\0" * 2000
        raise CustodyRot("rot")

    with pytest.raises(CustodyRot):
        list(pace(Limit(None)).body(rotten)())


class Swallows:
    """A courier whose peer is as fast as this machine."""

    def deliver(self, consignment: Consignment) -> Verdict:
        for _ in consignment.body():
            pass
        return Verdict.accepted()

    prepare = accepts = probe = close = None


def test_the_limit_is_the_line_that_compression_is_chosen_for():
    meter, limit = Meter(), Limit(settings(bytes_per_s=1_000_000))
    for _ in range(5):
        paced = Paced(Swallows(), pace(limit))
        meter.begin(time.monotonic())
        paced.deliver(Consignment("0" * 32, "1.2", "1.2.3", "", EXPLICIT_LE, len(CONTENT), lambda: iter([CONTENT])))
        meter.end(time.monotonic(), len(CONTENT))
    assert meter.bytes_per_s < 1_000_000 * 1.1
    assert choose(meter.bytes_per_s, FIRST_GUESS, 2).transfer_syntax_uid == JPEG_LS_LOSSLESS
    unlimited = Meter()
    unlimited.begin(0.0)
    started = time.monotonic()
    Paced(Swallows(), pace(Limit(None))).deliver(
        Consignment("0" * 32, "1.2", "1.2.3", "", EXPLICIT_LE, len(CONTENT) * 9, lambda: iter([CONTENT] * 9))
    )
    unlimited.end(time.monotonic() - started, len(CONTENT) * 9)
    assert choose(unlimited.bytes_per_s, FIRST_GUESS, 2).transfer_syntax_uid is None


def test_throughput_is_that_of_the_last_minute():
    throughput = Throughput()
    throughput.add(100.2, sent_bytes=6000, objects=1)
    throughput.add(100.9, sent_bytes=6000)
    throughput.add(130.0, sent_bytes=600, objects=2)
    assert throughput.report(140.0) == {"bytes_per_s": 210, "objects_per_min": 3}
    assert throughput.report(160.0) == {"bytes_per_s": 10, "objects_per_min": 2}
    assert throughput.report(190.0) == {"bytes_per_s": 0, "objects_per_min": 0}


@given(st.lists(st.floats(0, 1000), max_size=200))
def test_throughput_remembers_a_minute_and_no_more(times):
    throughput, now = Throughput(), 0.0
    for pause in times:
        now += pause
        throughput.add(now, sent_bytes=60)
        assert len(throughput._seconds) <= 60
        assert throughput.report(now)["bytes_per_s"] >= 1
