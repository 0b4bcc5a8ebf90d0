"""A limit is kept whatever is taken and when; hours, STAT and a stop are heeded."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta
from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.config.bandwidth import LEAST_BYTES_PER_S, BandwidthSettings, Window
from gateway.config.destinations import StowDestination
from gateway.model.errors import CustodyRot, Stopped
from gateway.model.instance import Priority
from gateway.model.transfer_syntax import EXPLICIT_LE, JPEG_LS_LOSSLESS
from gateway.model.verdict import Verdict
from gateway.prepare.choice import FIRST_GUESS, choose
from gateway.send.bandwidth import Limit, Pace, Paced, TokenBucket, burst_bytes, holds, limit_at, piece_bytes
from gateway.send.courier import Consignment
from gateway.send.shaping import Meter
from gateway.send.stow_rs import StowRs
from gateway.send.throughput import Throughput
from tests.ports import free_port

RATES = st.floats(LEAST_BYTES_PER_S, 1e9)
MONDAY = datetime(2026, 1, 5)  # a Monday


def on_monday() -> datetime:
    return MONDAY


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
        ({"mbit_per_s": 0}, "nothing would ever leave"),
        ({"bytes_per_s": 0, "windows": [{"days": ["sun"], "mbit_per_s": 0}]}, "nothing would ever leave"),
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
CLOSED = settings(bytes_per_s=0, windows=[{"days": ["sun"], "hours": "03:00-03:01"}])
"""But for a minute of the week, since what never opens is refused."""


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
    assert not Limit(settings(bytes_per_s=0, stat_passes=True)).closed(Priority.STAT)
    assert Limit(settings(bytes_per_s=0, stat_passes=True)).closed(Priority.NORMAL)
    assert Limit(CLOSED, on_monday).closed(Priority.STAT)
    assert not Limit(settings()).closed(Priority.BULK)
    assert not Limit(None).closed(Priority.BULK)


@pytest.mark.parametrize(("before", "least_s"), [(settings(), 0), (settings(bytes_per_s=500_000), 0.9)])
def test_what_is_under_way_when_a_window_closes_goes_on_at_the_last_rate(before, least_s):
    started = time.monotonic()
    limit = Limit(before, on_monday)
    body = pace(limit).body(lambda: iter([CONTENT] * 2))()
    first = next(body)
    limit.settings = CLOSED
    assert limit.closed(Priority.NORMAL)
    assert bytes(first) + b"".join(body) == CONTENT * 2
    assert time.monotonic() - started >= least_s


def test_a_new_limit_counts_in_the_middle_of_an_object():
    limit = Limit(settings(bytes_per_s=8000))
    body = pace(limit).body(lambda: iter([CONTENT]))()
    first = next(body)
    limit.settings, waited = settings(), limit.report()["waited_bytes"]
    assert bytes(first) + b"".join(body) == CONTENT  # 32 s at the old one
    assert limit.report()["waited_bytes"] == waited


def test_a_stop_ends_the_wait():
    stop, limit = threading.Event(), Limit(settings(bytes_per_s=8000))
    body = pace(limit, stop=stop).body(lambda: iter([CONTENT]))()
    next(body)
    stop.set()
    with pytest.raises(Stopped):
        for _ in body:
            pass


class Clock:
    """The box's clock, as an operator, a battery or NTP sets it each time somebody looks."""

    def __init__(self, *shows: datetime) -> None:
        self._shows = cycle(shows)

    def __call__(self) -> datetime:
        return next(self._shows)


@pytest.mark.parametrize(
    "clock",
    [
        Clock(MONDAY, datetime(1970, 1, 1)),
        Clock(datetime(2099, 12, 31, 23, 59), MONDAY, datetime(1970, 1, 1)),
        Clock(*(MONDAY - timedelta(hours=hours) for hours in range(100))),
    ],
)
def test_a_clock_that_is_set_back_neither_stops_nor_frees_what_is_under_way(clock):
    """Each hour has the same rate, so that only the clock's jumps could make a difference."""
    day = [{"hours": "00:00-12:00", "bytes_per_s": 500_000}, {"hours": "12:00-00:00", "bytes_per_s": 500_000}]
    limit = Limit(settings(windows=day), clock)
    content, took_s = leaves(pace(limit), CONTENT)
    assert content == CONTENT
    assert took_s >= (len(CONTENT) - burst_bytes(500_000)) / 500_000


def test_hours_are_asked_each_time_so_that_a_wrong_clock_is_forgotten_when_it_is_right():
    nights = settings(bytes_per_s=0, windows=[{"hours": "22:00-06:00"}])
    at = [datetime(1970, 1, 1, 12)]
    limit = Limit(nights, lambda: at[0])
    assert limit.closed(Priority.NORMAL)
    at[0] = MONDAY.replace(hour=23)
    assert not limit.closed(Priority.NORMAL)


def test_it_holds_back_while_something_waits_for_it_and_while_it_is_closed():
    now, limit = time.monotonic(), Limit(settings(bytes_per_s=8000), on_monday)
    assert not limit.holds_back(now)
    limit.take(100_000, 8000, now)
    assert limit.holds_back(now + 1)
    assert not limit.holds_back(now + 60)
    limit.settings = settings()
    assert not limit.holds_back(now + 1)
    limit.settings = CLOSED
    assert limit.holds_back(now + 60)


def test_reading_a_body_to_sign_it_costs_no_bandwidth(tmp_path):
    def never():
        raise AssertionError("the paced body was read, though nobody is there to take it")

    for name in ("id", "key"):
        (tmp_path / name).write_text("secret")
    auth = {"kind": "aws", "region": "eu", "access_key_id_file": "id", "secret_access_key_file": "key"}
    auth |= {key: tmp_path / auth[key] for key in auth if key.endswith("_file")}
    url = f"http://127.0.0.1:{free_port()}/studies"
    courier = StowRs(StowDestination(name="cloud", kind="stow", url=url, auth=auth), "EDGEGW")
    read = []

    def raw():
        read.append(1)
        yield CONTENT

    verdict = courier.deliver(Consignment("0" * 32, "1.2", "1.2.3", "", EXPLICIT_LE, len(CONTENT), never, raw))
    assert read and verdict.text.startswith("cannot connect")


def test_a_paced_courier_is_handed_the_bytes_for_both_purposes():
    class Signs(Swallows):
        def deliver(self, consignment: Consignment) -> Verdict:
            assert b"".join(consignment.unsent()) == b"".join(consignment.body()) == CONTENT
            return Verdict.accepted()

    throughput = Throughput()
    consignment = Consignment("0" * 32, "1.2", "1.2.3", "", EXPLICIT_LE, len(CONTENT), lambda: iter([CONTENT]))
    Paced(Signs(), pace(Limit(None), throughput=throughput)).deliver(consignment)
    assert throughput.report(time.monotonic())["bytes_per_s"] == round(len(CONTENT) / 60)


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


def test_without_a_limit_nothing_is_compressed_for_a_line_as_fast_as_this_machine(wait_until):
    def is_left_alone() -> bool:
        meter = Meter()
        meter.begin(time.monotonic())
        Paced(Swallows(), pace(Limit(None))).deliver(
            Consignment("0" * 32, "1.2", "1.2.3", "", EXPLICIT_LE, len(CONTENT) * 9, lambda: iter([CONTENT] * 9))
        )
        meter.end(time.monotonic(), len(CONTENT) * 9)
        return choose(meter.bytes_per_s, FIRST_GUESS, 2).transfer_syntax_uid is None

    assert wait_until(is_left_alone)  # once may be when this machine is held up


def test_throughput_is_that_of_the_last_minute():
    throughput = Throughput()
    throughput.add(100.2, sent_bytes=6000, objects=1)
    throughput.add(100.9, sent_bytes=6000)
    throughput.add(130.0, sent_bytes=600, objects=2)
    assert throughput.report(140.0) == {"bytes_per_s": 210, "objects_per_s": 0.05}
    assert throughput.report(160.0) == {"bytes_per_s": 10, "objects_per_s": 0.03}
    assert throughput.report(190.0) == {"bytes_per_s": 0, "objects_per_s": 0}


@given(st.lists(st.floats(0, 1000), max_size=200))
def test_throughput_remembers_a_minute_and_no_more(times):
    throughput, now = Throughput(), 0.0
    for pause in times:
        now += pause
        throughput.add(now, sent_bytes=60)
        assert len(throughput._seconds) <= 60
        assert throughput.report(now)["bytes_per_s"] >= 1
