"""A scanner's learned week."""

from __future__ import annotations

import pytest

from gateway.health.schedule import Schedule
from gateway.model.health import Arrivals

MONDAY = 4 * 86400 + 7 * 86400 * 2900
"""A Monday, 00:00 UTC: 1970-01-01 was a Thursday."""


def live(schedule, hours, per_hour, start=MONDAY):
    """Let a scanner send so many studies in each working hour."""
    for hour in range(hours):
        at = start + hour * 3600 + 60
        working = 7 <= hour % 24 < 18 and hour // 24 % 7 < 5
        came = [Arrivals("ct1", per_hour, at)] if working and per_hour else []
        report = schedule.look(["ct1"], came, at)
    return report[0]


@pytest.fixture
def schedule(tmp_path):
    return Schedule(tmp_path / "schedule.json", 0.0)


def test_nothing_is_expected_of_a_scanner_that_is_new(schedule):
    report = live(schedule, 24 * 7, 0)
    assert report.usual_by_now is None
    assert not report.silent


def test_silence_in_a_busy_hour_is_noticed(schedule):
    live(schedule, 24 * 21, 4)
    start = MONDAY + 21 * 86400
    quiet = [schedule.look(["ct1"], [], start + hour * 3600 + 1800)[0] for hour in range(24)]
    silent = [hour for hour, report in enumerate(quiet) if report.silent]
    assert silent == list(range(8, 18)), "from the second busy hour on, and not at night"
    assert quiet[9].usual_by_now == pytest.approx(4 * 2.5)
    assert quiet[9].studies_today == 0


def test_a_weekend_is_no_silence(schedule):
    live(schedule, 24 * 21, 4)
    saturday = MONDAY + (21 + 5) * 86400
    for hour in range(48):
        report = schedule.look(["ct1"], [], saturday + hour * 3600)[0]
        assert hour < 1 or not report.silent


def test_one_study_ends_the_silence(schedule):
    live(schedule, 24 * 21, 4)
    at = MONDAY + 21 * 86400 + 10 * 3600
    schedule.look(["ct1"], [], at - 3600)
    assert schedule.look(["ct1"], [], at)[0].silent
    assert not schedule.look(["ct1"], [Arrivals("ct1", 1, at + 1)], at + 1)[0].silent


def test_hours_in_which_the_box_was_off_teach_nothing(schedule):
    live(schedule, 24 * 21, 4)
    later = MONDAY + 35 * 86400
    live(schedule, 24, 4, later)
    assert schedule.look(["ct1"], [], later + 7 * 86400 + 10 * 3600)[0].usual_by_now == pytest.approx(12.0)


def test_what_was_learned_survives_a_restart_and_a_broken_file_is_forgotten(tmp_path):
    path = tmp_path / "schedule.json"
    live(Schedule(path, 0.0), 24 * 21, 4)
    at = MONDAY + 21 * 86400 + 9 * 3600 + 1800
    assert Schedule(path, 0.0).look(["ct1"], [], at)[0].usual_by_now == pytest.approx(10.0)
    for broken in ("", "[]", '{"ct1": 5}', '{"ct1": {"usual": [1]}}'):
        path.write_text(broken)
        assert Schedule(path, 0.0).look(["ct1"], [], at)[0].usual_by_now is None
