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


def test_a_box_of_another_version_is_read_as_far_as_it_goes():
    older, later = health(disk=12.0), health(disk=12.0)
    del older["disk"]["encrypted"], older["power"], older["certificates"], older["queue"]
    later["disk"]["glow"], later["aura"] = 7, {"colour": "mauve"}
    found = health_of(told(older))
    assert (found.disk_pct, found.encrypted, found.temp_c, found.certificate_days) == (12.0, None, None, None)
    assert health_of(told(later)).disk_pct == 12.0
    assert birth_of(told({"v": 1, "gateway_version": "9"})).version == "9"


@pytest.mark.parametrize("missing", ["status", "session", "interval_s", "reasons"])
def test_without_what_is_needed_nothing_is_read(missing):
    body = health()
    del body[missing]
    with pytest.raises(Unreadable, match=f"lacks {missing}"):
        health_of(told(body))
