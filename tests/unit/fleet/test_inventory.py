"""Who is online, stale or offline, and what is known of a box, whatever order messages come in."""

from __future__ import annotations

import pytest

from gateway.fleet.box import Presence
from tests.fleet import alarm, birth, destination, health, modality, reason, session
from tests.unit.fleet.boxes import House

ONLINE, STALE, OFFLINE = Presence.ONLINE, Presence.STALE, Presence.OFFLINE
OTHER = "b" * 32


@pytest.fixture
def house():
    return House()


def test_a_goodbye_makes_a_box_offline_at_once_and_a_hello_online(house):
    house.say("ct1/session", session())
    assert house.box().presence is ONLINE
    house.now += 5
    house.say("ct1/session", session("offline", "will"))
    assert (house.box().presence, house.box().since, house.box().since_exact) == (OFFLINE, house.wall, True)
    house.say("ct1/session", session(session=OTHER))
    assert house.box().presence is ONLINE


def test_silence_for_three_periods_makes_a_box_stale(house):
    house.say("ct1/session", session())
    house.say("ct1/health", health(interval_s=20))
    house.now += 59
    house.judge()
    assert house.box().presence is ONLINE
    house.now += 2
    house.judge()
    assert house.box().presence is STALE
    house.say("ct1/health", health(interval_s=20))
    assert house.box().presence is ONLINE


def test_a_box_that_never_told_its_period_is_given_three_minutes(house):
    house.say("ct1/birth", birth(), retained=True)
    house.now += 179
    house.judge()
    assert house.box().presence is ONLINE
    house.now += 2
    house.judge()
    assert house.box().presence is STALE


def test_what_we_could_not_hear_is_no_silence(house):
    house.say("ct1/health", health(interval_s=20))
    house.now += 100
    house.judge("another")
    assert house.box().presence is ONLINE
    house.inventory.deaf("default", 90)
    house.judge()
    assert house.box().presence is ONLINE
    house.now += 55
    house.judge()
    assert house.box().presence is STALE


def test_a_retained_message_is_no_sign_of_life(house):
    house.say("ct1/session", session("offline", "will"), retained=True)
    house.say("ct1/health", health(session=OTHER), retained=True, left_s=170)
    assert house.box().presence is OFFLINE
    assert not house.box().since_exact


def test_a_retained_health_message_is_as_old_as_the_broker_says(house):
    house.say("ct1/session", session(), retained=True)
    house.say("ct1/health", health(interval_s=60), retained=True, left_s=20)
    assert house.box().heard == house.now - 160
    assert house.box().heard_at == house.wall - 160
    house.now += 21
    house.judge()
    assert house.box().presence is STALE


def test_an_old_retained_message_makes_nobody_older_than_he_was_heard(house):
    house.say("ct1/health", health(interval_s=60))
    house.say("ct1/health", health(interval_s=60), retained=True, left_s=20)
    assert house.box().heard == house.now


def test_a_will_that_comes_late_is_undone_by_who_speaks(house):
    house.say("ct1/session", session(session=OTHER))
    house.say("ct1/session", session("offline", "will"))
    assert house.box().presence is OFFLINE
    house.say("ct1/health", health())  # of the same connection as the will: it was sent before
    assert house.box().presence is OFFLINE
    house.say("ct1/health", health(session=OTHER))
    assert house.box().presence is ONLINE


def test_connecting_anew_is_counted_for_an_hour(house):
    for number in range(5):
        house.say("ct1/session", session(session=f"{number:032x}"))
    assert house.box().drops(house.now) == 4
    assert house.box().drops(house.now + 3601) == 0


@pytest.mark.parametrize(
    "topic",
    (
        *("gw/v1/default/+/session", "gw/v1/#/ct1/session", "gw/v1/default/CT1/session", "gw/v1/default//session"),
        *(
            "gw/v2/default/ct1/session",
            "gw/v1/default/ct1",
            "gw/v1/default/host/state",
            "gw/v1/default/desired/session",
        ),
        *("gw/v1/default/ct1/cmd/reboot/1", "x/v1/default/ct1/session", f"gw/v1/default/{'x' * 64}/session"),
        *(
            "gw/v1/default/ct1/a/<b>",
            "gw/v1/default/ct1/session\n",
            "gw/v1/default/ct1/a/x/y/z",
            "gw/v1/default/desired/session",
        ),
    ),
)
def test_topics_that_no_box_has_are_refused(house, topic):
    house.say(topic, session())
    assert house.inventory.boxes == {}
    assert house.inventory.counters.bad_names == 1


def test_boxes_beyond_the_limit_are_counted(house):
    for number in range(15):
        house.say(f"ct{number}/session", session())
    assert len(house.inventory.boxes) == 10
    assert house.inventory.counters.too_many == 5


@pytest.mark.parametrize("payload", [b"[]", b"{", b"\xff", b"[" * 9999, b'{"v": 1}', b"1" * 70_000, b"NaN"])
def test_what_is_not_understood_is_shown_until_it_is(house, payload):
    house.say("ct1/health", payload, retained=True)
    assert list(house.box().invalid) == ["health"]
    assert house.inventory.counters.invalid == 1
    house.say("ct1/health", health())
    assert house.box().invalid == {}


def test_an_invalid_message_is_no_sign_of_life(house):
    house.say("ct1/health", health(interval_s=10))
    for _ in range(8):
        house.now += 5
        house.say("ct1/health", b"nonsense")
        house.judge()
    assert house.box().presence is STALE


def test_what_a_box_says_of_its_places_is_bounded_and_can_be_taken_back(house):
    for number in range(200):
        house.say(f"ct1/mod/m{number}/health", modality())
        house.say(f"ct1/dst/d{number}/health", destination())
        house.say(f"ct1/a/c{number}", alarm(f"c{number}"))
        house.say(f"ct1/birth/x{number}", b"nonsense")
    box = house.box()
    assert {len(box.modalities), len(box.destinations), len(box.alarms)} == {64}
    assert len(box.invalid) <= 64
    house.say("ct1/mod/m1/health", None)
    assert "m1" not in box.modalities


def test_an_empty_session_takes_a_box_out_of_the_fleet(house):
    house.say("ct1/session", session())
    house.say("ct1/session", None)
    assert house.box() is None
    house.say("ct1/birth", None)
    assert house.box() is None
    assert house.notes("gone") == [(("default", "ct1"),)]


def test_an_alarm_holds_until_it_is_taken_back(house):
    house.say("ct1/a/disk_filling", alarm())
    assert list(house.box().alarms) == ["disk_filling"]
    house.say("ct1/a/disk_filling", None)
    assert house.box().alarms == {}


def test_an_alarm_whose_end_was_lost_ends_when_the_box_no_longer_complains(house):
    house.say("ct1/a/disk_filling", alarm())
    house.say("ct1/health", health("degraded", (reason("hot", "cpu"),)))
    assert house.box().alarms  # one message may have been on its way already
    house.say("ct1/health", health("degraded", (reason(),)))
    house.say("ct1/health", health())
    assert house.box().alarms
    house.say("ct1/health", health())
    assert house.box().alarms == {}


def test_an_alarm_under_another_code_is_not_believed(house):
    house.say("ct1/a/hot", alarm("disk_filling"))
    assert house.box().alarms == {}
    assert list(house.box().invalid) == ["a/hot"]


def test_an_acknowledgement_is_of_one_occurrence(house):
    first = alarm(since="2026-01-01T00:00:00Z")
    house.say("ct1/a/disk_filling", first)
    key = ("default", "ct1")
    assert house.inventory.acknowledge(key, "disk_filling", first["since"], "Ada", house.wall)
    assert house.inventory.acknowledge(key, "disk_filling", first["since"], "Bob", house.wall)
    assert house.box().alarms["disk_filling"].acknowledged_by == "Ada"
    house.say("ct1/a/disk_filling", {**first, "seq": 9})
    assert house.box().alarms["disk_filling"].acknowledged_by == "Ada"
    house.say("ct1/a/disk_filling", alarm(since="2026-01-02T00:00:00Z"))
    assert house.box().alarms["disk_filling"].acknowledged_by == ""
    assert not house.inventory.acknowledge(key, "disk_filling", first["since"], "Ada", house.wall)
    assert not house.inventory.acknowledge(("default", "nobody"), "hot", "", "Ada", house.wall)


def test_history_is_sampled_not_copied(house):
    for _ in range(20):
        house.say("ct1/health", health())
        house.now += 60
    assert len(house.notes("sample")) == 4


def test_what_waits_for_the_store_is_bounded(house, monkeypatch):
    monkeypatch.setattr("gateway.fleet.inventory.MAX_JOURNAL", 5)
    for number in range(9):
        house.say("ct1/session", session("offline" if number % 2 else "online", session=f"{number:032x}"))
    assert len(house.inventory.journal) == 5
    assert house.inventory.counters.journal_lost > 0
