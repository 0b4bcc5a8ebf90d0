"""How long an emergency was on its way, against what the line alone would have needed."""

from __future__ import annotations

import pytest

from gateway.emulator.line import Line
from gateway.emulator.urgent import Passed, urgent, within_s

LINE = Line(round_trip_ms=100, rate_mbit_s=8)
"""A megabyte a second."""
MB = 1_000_000


def test_a_study_that_comes_as_fast_as_the_line_lets_it_takes_as_long_as_the_line_alone():
    at_once = [Passed(0.0, 1.05 + n, MB) for n in range(4)]
    study = urgent(at_once, LINE, [])
    assert (study.objects, study.length) == (4, 4 * MB)
    assert study.bare_s == study.alone_s == pytest.approx(4.1)
    assert study.after_last == study.from_first == pytest.approx(4.05 / 4.1)


def test_a_slow_scanner_is_not_the_line_s_fault():
    """An object every ten seconds: the line alone is through soon after the last, and so are we."""
    study = urgent([Passed(10.0 * n, 10.0 * n + 1.1, MB) for n in range(4)], LINE, [])
    assert study.alone_s == pytest.approx(31.1) and study.from_first == pytest.approx(1.0)
    assert study.waited_s == pytest.approx(1.1) and study.after_last == pytest.approx(1.1 / 4.1)


def test_what_waits_behind_others_is_told():
    study = urgent([Passed(0.0, 20.0, MB), Passed(1.0, 12.0, MB)], LINE, [])
    assert study.waited_s == 19.0 and study.after_last == pytest.approx(19 / 2.1)
    assert study.took_s == 20.0 and study.from_first == pytest.approx(20 / 2.1)


def test_an_outage_in_between_is_taken_out():
    objects = [Passed(0.0, 1.0, MB), Passed(1.0, 33.0, MB)]
    study = urgent(objects, LINE, [(2.0, 32.0), (40.0, 50.0)])
    assert study.outage_s == 30.0 and study.waited_s == 2.0 and study.took_s == 3.0
    assert urgent(objects, LINE, [(40.0, 50.0)]).outage_s == 0.0


def test_what_came_before_the_scanner_heard_of_it_waited_for_nothing():
    assert urgent([Passed(5.0, 4.9, MB)], LINE, []).waited_s == 0.0


@pytest.mark.parametrize(
    ("outages", "seconds"),
    [
        ([], 0.0),
        ([(0.0, 5.0)], 0.0),
        ([(12.0, 15.0)], 3.0),
        ([(5.0, 50.0)], 10.0),
        ([(12.0, 15.0), (11.0, 14.0)], 4.0),
        ([(11.0, 18.0), (12.0, 13.0)], 7.0),
        ([(18.0, 30.0), (0.0, 11.0)], 3.0),
    ],
)
def test_time_in_two_outages_counts_once(outages, seconds):
    assert within_s(outages, 10.0, 20.0) == pytest.approx(seconds)
