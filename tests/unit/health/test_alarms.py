"""Alarms: level-triggered, delayed, with a second threshold."""

from __future__ import annotations

from gateway.health.alarms import Alarms, by_code
from gateway.health.checks import wrong
from gateway.model.codes import CODES
from gateway.model.health import (
    Certificate,
    Clock,
    Custodian,
    DestinationReport,
    Disk,
    Host,
    Power,
    Severity,
    Status,
    Sums,
    status_of,
)

WALL = 1_800_000_000.0


def codes_of(reasons) -> list[str]:
    return [reason.code for reason in reasons]


def test_what_holds_is_told_and_what_does_not_is_not():
    alarms = Alarms()
    assert codes_of(alarms.look([("quarantined", "custody")], 0.0, WALL)) == ["quarantined"]
    assert alarms.look([], 1.0, WALL + 1) == []


def test_since_is_when_it_began():
    alarms = Alarms()
    for second in range(5):
        (reason,) = alarms.look([("quarantined", "custody")], second, WALL + second)
        assert reason.since == WALL


def test_an_ill_destination_is_told_after_its_delay_and_cleared_after_it():
    alarms, ill = Alarms(), [("destination_ill", "pacs")]
    delay_s = CODES["destination_ill"].raise_after_s
    assert delay_s > 2
    assert alarms.look(ill, 0.0, WALL) == []
    assert alarms.unsettled(delay_s)
    assert alarms.look(ill, delay_s, WALL)
    assert alarms.look([], delay_s + 1, WALL), "a flapping line is one alarm"
    assert alarms.look(ill, delay_s + 2, WALL)
    gone_s = CODES["destination_ill"].clear_after_s
    assert alarms.look([], delay_s + 2 + gone_s - 1, WALL)
    assert alarms.look([], delay_s + 2 + gone_s, WALL) == []


def test_one_that_never_lasts_is_never_told():
    alarms, ill = Alarms(), [("destination_ill", "pacs")]
    for second in range(0, 600, 10):
        assert alarms.look(ill, second, WALL) == []
        assert alarms.look([], second + 5, WALL) == []


def test_one_topic_carries_one_code_of_all_components():
    alarms = Alarms()
    reasons = alarms.look([("dead_letters", "b"), ("dead_letters", "a")], 0.0, WALL)
    assert by_code(reasons)["dead_letters"][1] == ("a", "b")


def test_the_worst_comes_first_and_makes_the_status():
    alarms = Alarms()
    reasons = alarms.look([("disk_worn", "disk"), ("sums_disagree", "custody")], 0.0, WALL)
    assert reasons[0].severity is Severity.CRITICAL
    assert status_of(reasons) is Status.CRITICAL
    assert status_of(reasons[1:]) is Status.DEGRADED
    assert status_of([]) is Status.OK


def check(custodian=None, host=None, held=()):
    found = wrong(custodian or Custodian(Sums()), host or Host(), (), WALL, lambda *key: key in held)
    return {code for code, _ in found}


def test_what_is_not_known_is_not_wrong():
    assert check() == set()


def test_what_is_known_to_be_wrong_is():
    assert check(Custodian(Sums(agree=False, lost=1, quarantined=2, unrouted=1, short_studies=1))) == {
        "sums_disagree",
        "custody_loss",
        "quarantined",
        "unrouted",
        "study_short",
    }
    assert check(Custodian(Sums(), ledger_fault=True, services={"receiver": False})) == {"ledger_fault", "room_late"}
    assert check(Custodian(Sums(), ledger_rot=True)) == {"ledger_rot"}
    assert check(Custodian(Sums(), room="full")) == {"disk_full"}
    assert check(Custodian(Sums(), room="tight")) == {"disk_tight"}
    assert check(host=Host(Disk(50.0, 1, True, 90.0))) == {"disk_read_only", "disk_worn"}
    assert check(host=Host(clock=Clock("chrony", False, -1500.0))) == {"clock_unsynced", "clock_off"}
    assert check(host=Host(power=Power(85.0, True, True, True))) == {"hot", "throttled", "undervoltage", "on_battery"}
    assert check(host=Host(memory_available_pct=4.0)) == {"memory_short"}


def test_a_certificate_is_told_before_it_ends():
    def days(left):
        return check(host=Host(certificates=(Certificate("mqtt", left),)))

    assert days(31.0) == set()
    assert days(29.0) == {"certificate_expiring"}
    assert days(-1.0) == {"certificate_expired"}
    assert days(None) == {"certificate_unreadable"}


def test_a_threshold_is_left_at_another_point_than_it_was_reached():
    def at(pct, held):
        return check(host=Host(Disk(pct)), held={("disk_filling", "disk")} if held else ())

    assert at(81.0, False) == {"disk_filling"}
    assert at(78.0, False) == set()
    assert at(78.0, True) == {"disk_filling"}
    assert at(74.0, True) == set()


def test_destinations_speak_for_themselves():
    def of(**facts):
        return check(Custodian(Sums(), (DestinationReport("pacs", **facts),)))

    assert of(breaker="open") == {"destination_ill"}
    assert of(breaker="paused") == {"destination_paused"}
    assert of(held=1) == {"dead_letters"}
    assert of(oldest_waiting_since=WALL - 3700) == {"backlog_old"}
    assert of(oldest_waiting_since=WALL - 90000) == {"backlog_very_old"}
    assert of(oldest_waiting_since=WALL - 60) == set()
