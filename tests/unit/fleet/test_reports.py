"""What is kept of a payload: numbers that mean something, lists that end."""

from __future__ import annotations

import json

import pytest

from gateway.fleet.reports import Unreadable, birth_of, health_of, moment, number, session_of
from tests.fleet import birth, health, reason, session


def told(body: dict) -> bytes:
    return json.dumps(body).encode()


def test_unknown_is_none():
    found = health_of(told(health(disk="unknown", offset_ms="unknown", days="unknown")))
    assert (found.disk_pct, found.clock_offset_ms, found.certificate_days) == (None, None, None)


def test_the_certificate_that_ends_first_counts():
    body = health()
    body["certificates"] = [{"name": name, "days_left": days} for name, days in (("a", 50), ("b", 7), ("c", "unknown"))]
    found = health_of(told(body))
    assert (found.certificate, found.certificate_days) == ("b", 7.0)


@pytest.mark.parametrize(("interval_s", "taken"), [(0, 1.0), (5, 5.0), (1e9, 3600.0), (10**30, 1.0)])
def test_a_box_cannot_make_itself_unwatchable_by_its_period(interval_s, taken):
    assert health_of(told(health(interval_s=interval_s))).interval_s == taken


@pytest.mark.parametrize("value", [True, "1", None, 1e18, 10**400, float("inf"), float("nan")])
def test_numbers_that_no_machine_can_mean_are_dropped(value):
    assert number(value) is None


@pytest.mark.parametrize("text", ["2026-02-31T00:00:00Z", "9999-99-99T99:99:99Z", "unknown", "0000-01-01T00:00:00Z"])
def test_moments_that_are_none(text):
    assert moment(text) is None


def test_a_moment_is_utc():
    assert moment("1970-01-02T00:00:00Z") == 86400.0


@pytest.mark.parametrize("payload", [b'{"v":1,"v":NaN}', b"[" * 100_000, b"{}", b"", b"x" * 65537, b'"\xff"'])
def test_why_something_is_unreadable_holds_nothing_of_it(payload):
    with pytest.raises(Unreadable) as refused:
        session_of(payload)
    assert "xx" not in str(refused.value)


def test_reasons_keep_their_order():
    body = health("critical", (reason("hot", "cpu", "critical"), reason()))
    assert [complaint.code for complaint in health_of(told(body)).complaints] == ["hot", "disk_filling"]


def test_a_birth_and_a_session():
    assert birth_of(told({**birth(), "slot": "unknown"})).slot is None
    assert session_of(told(session("offline", "update"))).reason == "update"
