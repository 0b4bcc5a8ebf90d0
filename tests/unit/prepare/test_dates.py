"""Dates of every form move by whole days (PS3.5 Table 6.2-1: DA, DT, TM, AS)."""

from __future__ import annotations

import pytest

from gateway.prepare.dates import age, is_time, is_zone, moved_date, moved_datetime


@pytest.mark.parametrize(
    ("value", "days", "moved"),
    [
        ("20240301", -1, "20240229"),
        ("20230301", -1, "20230228"),
        ("20240101 ", -1, "20231231"),
        ("2024.03.01", -1, "20240229"),
        ("2024-03-01", -1, "20240229"),
        ("20240101-20240301", -1, "20231231-20240229"),
        ("20240101-", -1, "20231231-"),
        ("-20240101", -1, "-20231231"),
        ("20240301", 0, "20240301"),
        ("", -1, ""),
        ("-", -1, None),
        ("20240230", -1, None),
        ("00010101", -1, None),
        ("00020101", -1, "00011231"),
        ("99991231", 1, None),
        ("Doe^Jane", -1, None),
        ("20240101\n", -1, None),
        ("2024-03.01", -1, None),
    ],
)
def test_dates(value, days, moved):
    assert moved_date(value, days) == moved


@pytest.mark.parametrize(
    ("value", "days", "moved"),
    [
        ("20240301101112.123456+0100", -1, "20240229101112.123456+0100"),
        ("20240301101112.1", -1, "20240229101112.1"),
        ("20240301", -1, "20240229"),
        ("202403", -31, "202402"),
        ("202403", -10, "202403"),
        ("2024", -400, "2023"),
        ("2024", -10, "2024"),
        ("2024-0500", -1, "2024-0500"),
        ("20240301 ", -1, "20240229"),
        ("", -1, ""),
        ("20240230", -1, None),
        ("Dr Smith", -1, None),
        ("20240301-20240302", -1, None),
    ],
)
def test_dates_with_times_keep_time_zone_and_precision(value, days, moved):
    assert moved_datetime(value, days) == moved


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        *[(value, True) for value in ("10", "1011", "101112", "101112.5", "10:11:12", "101112-111213", "1011-", "")],
        *[(value, False) for value in ("Smith", "1", "101112.1234567", "10;11", "101112\n")],
    ],
)
def test_times(value, is_one):
    assert is_time(value) is is_one


def test_zones():
    assert is_zone("+0100") and is_zone("-0500 ")
    assert not is_zone("Smith") and not is_zone("+01:00")


@pytest.mark.parametrize(
    ("born", "then", "said"),
    [
        ("19800229", "20240228", "043Y"),
        ("19800229", "20240229", "044Y"),
        ("20220301", "20240229", "023M"),
        ("20220301", "20240301", "002Y"),
        ("20240131", "20240229", "029D"),
        ("20240229", "20240229", "000D"),
        ("20240301", "20240229", ""),
        ("", "20240229", ""),
        ("19800229", "", ""),
        ("18000101", "20240229", "224Y"),
    ],
)
def test_ages(born, then, said):
    assert age(born, then) == said
