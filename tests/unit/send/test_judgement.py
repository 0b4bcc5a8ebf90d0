"""Judgement without I/O: back-off, status words, STOW-RS outcomes, admission, capacity, lifecycles."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admit.policy import Objection, objection
from gateway.config.schema import AdmitSettings, ModalitySettings
from gateway.dicom.status import verdict_of
from gateway.model.backoff import next_delay_s
from gateway.model.errors import ImpossibleTransition
from gateway.model.lifecycle import CUSTODY, Custody, CustodyEvent, after
from gateway.model.verdict import Blame, Outcome
from gateway.send.http_status import asked_wait_s, heeded, verdict_of_http
from gateway.send.stow_rs import judge, outcome_of
from gateway.spool.capacity import Room  # fmt: skip
from gateway.spool.capacity import judge as judge_room

UID = "1.2.3"


@given(st.integers(0, 10**6), st.floats(0.01, 10), st.floats(10, 1000), st.floats(0, 1, exclude_max=True))
def test_delays_stay_between_nothing_and_the_ceiling(attempt, first, ceiling, luck):
    assert 0 < next_delay_s(attempt, first, ceiling, luck) <= ceiling


@given(st.integers(0, 0xFFFF))
def test_every_status_word_has_a_verdict_and_only_success_and_warnings_release(status):
    verdict = verdict_of(status)
    known_good = status in (0, 1, 0x0107, 0x0111, 0x0116) or 0xB000 <= status <= 0xBFFF
    assert (verdict.outcome is Outcome.ACCEPTED) == known_good
    assert verdict.text


def test_a_full_archive_is_to_blame_itself_and_a_bad_instance_alone():
    assert verdict_of(0xA700).blame is Blame.DESTINATION
    assert verdict_of(0xC123).blame is Blame.INSTANCE


def reply(tag, **reason):
    entry = {"00081155": {"vr": "UI", "Value": [UID]}, **{k: {"vr": "US", "Value": [v]} for k, v in reason.items()}}
    return json.dumps({tag: {"vr": "SQ", "Value": [entry]}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, reply("00081199"), Outcome.ACCEPTED),
        (200, b"", Outcome.DEFERRED),
        (200, b"<html>Welcome to the guest network</html>", Outcome.DEFERRED),
        (202, reply("00081199"), Outcome.ACCEPTED),
        (202, reply("00081198", **{"00081197": 0xA900}), Outcome.REFUSED),
        (409, reply("00081198", **{"00081197": 0x0111}), Outcome.ACCEPTED),
        (409, reply("00081198", **{"00081197": 0xC000}), Outcome.REFUSED),
        (409, reply("00081198", **{"00081197": 0xA700}), Outcome.DEFERRED),
        (409, b"", Outcome.REFUSED),
        (202, b"", Outcome.DEFERRED),
        (503, b"<html>", Outcome.DEFERRED),
        (401, b"", Outcome.DEFERRED),
        (302, b"", Outcome.DEFERRED),
        (415, b"", Outcome.REFUSED),
    ],
)
def test_a_stow_reply_is_read_for_the_instance_itself(status, body, outcome):
    assert judge(status, outcome_of(body, "application/dicom+json", UID)).outcome is outcome


FRIDAY = "Fri, 31 Dec 1999 23:59:59 GMT"


@pytest.mark.parametrize(
    ("retry_after", "date", "asked_s"),
    [
        ("120", "", 120.0),
        (" 7 ", "", 7.0),
        ("0", "", 0.0),
        (FRIDAY, "Fri, 31 Dec 1999 23:59:29 GMT", 30.0),
        (FRIDAY, "", 29.0),
        (FRIDAY, "nonsense", 29.0),
        ("Friday, 31-Dec-99 23:59:59 GMT", "", 29.0),
        (FRIDAY, "Sat, 01 Jan 2000 00:00:00 GMT", 0.0),
        ("-5", "", 0.0),
        ("1.5", "", 0.0),
        ("soon", "", 0.0),
        ("²", "", 0.0),
        ("", "", 0.0),
        ("9" * 5000, "", float("inf")),
        ("Fri, 31 Dec 99999999999 23:59:59 GMT", "", 0.0),
    ],
)
def test_how_long_a_service_asks_to_be_left_alone(retry_after, date, asked_s):
    """RFC 9110 10.2.3: seconds, or a date, which is taken against the clock of whoever wrote it."""
    assert asked_wait_s(retry_after, date, datetime(1999, 12, 31, 23, 59, 30, tzinfo=UTC)) == asked_s


@pytest.mark.parametrize(
    ("status", "asked_s", "outcome", "wait_s"),
    [
        (413, 0.0, Outcome.REFUSED, 0.0),
        (413, 5.0, Outcome.DEFERRED, 5.0),
        (415, 5.0, Outcome.REFUSED, 0.0),
        (429, 5.0, Outcome.DEFERRED, 5.0),
        (503, 5.0, Outcome.DEFERRED, 5.0),
    ],
)
def test_who_says_when_to_come_again_with_what_is_too_large_means_for_now(status, asked_s, outcome, wait_s):
    verdict = heeded(verdict_of_http(status), asked_s)
    assert (verdict.outcome, verdict.blame, verdict.wait_s) == (outcome, verdict_of_http(status).blame, wait_s)


@given(st.text(max_size=40), st.text(max_size=40))
def test_whatever_stands_there_a_wait_is_a_number(retry_after, date):
    assert asked_wait_s(retry_after, date, datetime(1970, 1, 1, tzinfo=UTC)) >= 0.0


def test_a_stow_reply_in_xml_is_read_too():
    xml = (
        '<NativeDicomModel><DicomAttribute tag="00081198" vr="SQ"><Item number="1">'
        f'<DicomAttribute tag="00081155" vr="UI"><Value number="1">{UID}</Value></DicomAttribute>'
        '<DicomAttribute tag="00081197" vr="US"><Value number="1">43264</Value></DicomAttribute>'
        "</Item></DicomAttribute></NativeDicomModel>"
    )
    assert outcome_of(xml.encode(), "application/dicom+xml", UID) == 0xA900


@pytest.mark.parametrize(
    ("calling", "called", "address", "room", "expected"),
    [
        ("CT1", "BOX", "192.0.2.10", Room.OPEN, None),
        (" CT1 ", "BOX", "::ffff:192.0.2.10", Room.OPEN, None),
        ("CT2", "BOX", "192.0.2.10", Room.OPEN, Objection.SENDER),
        ("CT1", "BOX", "192.0.2.11", Room.OPEN, Objection.SENDER),
        ("CT1", "OTHER", "192.0.2.10", Room.OPEN, Objection.CALLED_AE_TITLE),
        ("CT1", "BOX", "192.0.2.10", Room.TIGHT, Objection.NO_ROOM),
    ],
)
def test_who_may_send(calling, called, address, room, expected):
    known = [ModalitySettings(name="ct1", ae_title="CT1", address="192.0.2.10/32")]
    found = objection(
        AdmitSettings(unknown_senders="reject"), known, ["BOX"],
        calling=calling, called=called, address=address, room=room,
    )  # fmt: skip
    assert found is expected


def test_the_reserve_wins_over_the_water_mark():
    assert judge_room(1000, 500, None, 100, 90) == (Room.OPEN, "")
    assert judge_room(1000, 99, None, 50, 90) == (Room.TIGHT, "90.1 % are used, more than 90 %")
    assert judge_room(1000, 49, None, 50, 90) == (Room.FULL, "49 bytes are free, 50 are kept in reserve")
    assert judge_room(1000, 900, 3, 50, 90) == (Room.FULL, "3 inodes are free, 64 are kept in reserve")
    assert judge_room(1000, 0, None, 0, 100)[0] is Room.FULL
    assert judge_room(1000, 1, None, 0, 100)[0] is Room.OPEN


def test_nothing_leaves_quarantine_and_nothing_is_retired_before_release():
    assert not [event for state, event in CUSTODY if state is Custody.QUARANTINED]
    assert [state for state, event in CUSTODY if event is CustodyEvent.RETENTION_OVER] == [Custody.RELEASED]
    with pytest.raises(ImpossibleTransition):
        after(CUSTODY, Custody.IN_CUSTODY, CustodyEvent.RETENTION_OVER)
