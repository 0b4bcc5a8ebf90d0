"""A line lets through what its rate allows, delays at least half a round trip, keeps order, and repeats itself."""

from __future__ import annotations

from itertools import islice, pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.emulator.line import (
    MAX_WINDOW,
    Bucket,
    Lane,
    Line,
    Mishap,
    Way,
    cut_times_s,
    jitter_s,
    next_mishap,
)

CLOCK_ERROR = 1e-6
seconds = st.floats(0, 5)
ways = st.sampled_from(Way)
rates = st.none() | st.floats(0.01, 10_000)
lines = st.builds(
    Line,
    round_trip_ms=st.floats(0, 1000),
    jitter_ms=st.floats(0, 300),
    rate_mbit_s=rates,
    down_mbit_s=rates,
    seed=st.integers(0, 5),
)
steps = st.lists(st.tuples(st.floats(0, 0.5), st.integers(0, 300_000)), min_size=1, max_size=40)
"""(seconds since the step before, bytes that enter)."""


def moments(steps):
    now_s = 0.0
    for pause_s, count in steps:
        now_s += pause_s
        yield now_s, count


@given(rate=st.floats(100, 1e9), steps=steps)
def test_between_any_two_moments_the_bucket_lets_through_rate_times_time_and_one_piece(rate, steps):
    bucket = Bucket(rate)
    through = [(bucket.passes(now_s, count), count) for now_s, count in moments(steps)]
    for first in range(len(through)):
        passed = 0
        for at_s, count in through[first:]:
            passed += count
            burst = through[first][1]
            assert passed <= rate * (at_s - through[first][0]) * (1 + CLOCK_ERROR) + burst + rate * CLOCK_ERROR


@given(rate=st.floats(100, 1e9), steps=steps)
def test_nothing_is_through_before_it_could_be(rate, steps):
    bucket = Bucket(rate)
    for now_s, count in moments(steps):
        assert bucket.passes(now_s, count) >= now_s + count / rate - CLOCK_ERROR


@given(line=lines, way=ways, steps=steps)
def test_what_enters_comes_out_in_order_and_never_sooner_than_half_a_round_trip(line, way, steps):
    lane = Lane(line, way, 0.0)
    due = [
        (lane.enter(now_s, number, count), now_s, count)
        for number, (now_s, count) in enumerate(moments(steps))
        if count >= 0
    ]
    for out_s, in_s, count in due:
        assert out_s >= in_s + line.one_way_s + count / line.bytes_per_s(way) - CLOCK_ERROR
    assert all(one[0] <= other[0] for one, other in pairwise(due))
    assert list(lane.leave(inf)) == [(number, count) for number, (_, count) in enumerate(steps)]
    assert lane.held_bytes == 0
    assert lane.next_due_s == inf


@given(line=lines, way=ways, steps=steps, looks=st.lists(seconds, max_size=10))
def test_nothing_leaves_before_it_is_due(line, way, steps, looks):
    lane = Lane(line, way, 0.0)
    due = [lane.enter(now_s, number, count) for number, (now_s, count) in enumerate(moments(steps))]
    for now_s in sorted(looks):
        assert all(due[number] <= now_s for number, _ in lane.leave(now_s))
        assert lane.next_due_s > now_s


@given(first=lines, second=lines, way=ways, steps=steps, later=steps, changed_s=st.floats(0, 20))
def test_a_change_of_line_loses_nothing_and_keeps_order(first, second, way, steps, later, changed_s):
    lane = Lane(first, way, 0.0)
    due = [lane.enter(now_s, number, count) for number, (now_s, count) in enumerate(moments(steps))]
    changed_s += sum(pause_s for pause_s, _ in steps)
    gone = [number for number, _ in lane.leave(changed_s)]
    lane.change(second, changed_s)
    new = [
        lane.enter(changed_s + now_s, len(steps) + number, count)
        for number, (now_s, count) in enumerate(moments(later))
    ]
    assert new == sorted(new)
    left = []
    while lane.next_due_s < inf:
        at_s = lane.next_due_s
        left += [(number, at_s) for number, _ in lane.leave(at_s)]
    assert [*gone, *(number for number, _ in left)] == list(range(len(steps) + len(later)))
    assert all(at_s <= due[number] for number, at_s in left if number < len(steps))


def test_after_a_very_slow_line_a_fast_one_does_not_wait():
    lane = Lane(Line(rate_mbit_s=0.01), Way.UP, 0.0)
    assert lane.enter(0.0, "slow", 10_000) == pytest.approx(8.0)
    lane.change(Line(rate_mbit_s=80), 1.0)
    assert lane.next_due_s == pytest.approx(1.001)
    assert lane.enter(1.0, "fast", 10_000) == pytest.approx(1.002)


def test_after_a_fast_line_a_slow_one_does_not_carry_again_what_is_under_way():
    lane = Lane(Line(rate_mbit_s=80), Way.UP, 0.0)
    assert lane.enter(0.0, "fast", 1_000_000) == pytest.approx(0.1)
    lane.change(Line(rate_mbit_s=0.08), 0.05)
    assert lane.next_due_s == pytest.approx(0.1)
    assert lane.enter(0.05, "slow", 1000) == pytest.approx(0.2)


@given(line=lines, way=ways)
def test_a_line_holds_a_bounded_amount_and_always_room_for_one_piece(line, way):
    lane = Lane(line, way, 0.0)
    assert lane.has_room
    assert 4 * lane.quantum_bytes <= lane.window_bytes <= MAX_WINDOW
    entered = 0
    while lane.has_room:
        lane.enter(0.0, None, lane.quantum_bytes)
        entered += lane.quantum_bytes
    assert entered == lane.held_bytes <= lane.window_bytes


def test_the_window_is_rate_times_round_trip_and_a_queue():
    line = Line(round_trip_ms=40, rate_mbit_s=20, down_mbit_s=200)
    assert line.window_bytes(Way.UP) == 100_000 + 50_000
    assert line.window_bytes(Way.DOWN) == 1_000_000 + 500_000


@given(line=lines, way=ways, at_s=st.floats(0, 1000), later_s=st.floats(0, 1))
def test_jitter_stays_in_its_bounds_and_never_overtakes(line, way, at_s, later_s):
    first, second = jitter_s(line, way, at_s), jitter_s(line, way, at_s + later_s)
    assert 0 <= first <= line.jitter_ms / 1000
    assert at_s + later_s + second >= at_s + first - CLOCK_ERROR
    assert jitter_s(line, way, at_s) == first


@given(every_s=st.floats(0.01, 1000), seed=st.integers())
def test_the_same_seed_cuts_at_the_same_times_and_never_in_a_steady_beat(every_s, seed):
    line = Line(cut_every_s=every_s, seed=seed)
    times = list(islice(cut_times_s(line), 20))
    assert times == list(islice(cut_times_s(line), 20))
    assert times != list(islice(cut_times_s(Line(cut_every_s=every_s, seed=seed + 1)), 20))
    gaps = [after - before for before, after in pairwise([0.0, *times])]
    assert all(0.499 * every_s <= gap <= 1.501 * every_s for gap in gaps)
    assert max(gaps) - min(gaps) > 0.1 * every_s


def test_a_line_without_cuts_is_never_cut():
    assert list(cut_times_s(Line())) == []


def test_mishaps_come_in_the_order_of_their_bytes_each_once_and_a_cut_first():
    line = Line(cut_after_bytes=30, freeze_after_bytes=10, half_close_after_bytes=30)
    assert next_mishap(Line(), 10**12, ()) is None
    assert next_mishap(line, 0, ()) == (Mishap.FREEZE, 10)
    assert next_mishap(line, 10, ()) == (Mishap.FREEZE, 0)
    assert next_mishap(line, 10, {Mishap.FREEZE}) == (Mishap.CUT, 20)
    assert next_mishap(line, 99, {Mishap.FREEZE, Mishap.CUT}) == (Mishap.HALF_CLOSE, 0)
    assert next_mishap(line, 99, set(Mishap)) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"round_trip_ms": -1},
        {"round_trip_ms": inf},
        {"jitter_ms": float("nan")},
        {"freeze_s": -0.1},
        {"rate_mbit_s": 0},
        {"down_mbit_s": -1},
        {"cut_every_s": 0},
        {"cut_after_bytes": -1},
        {"refuse": True, "black_hole": True},
    ],
    ids=str,
)
def test_what_no_line_can_be_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
        Line(**wrong)
