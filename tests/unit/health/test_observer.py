"""The observer, with a house that says what the test says."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from gateway.health import observer as module
from gateway.health.observer import Observer, Sources
from gateway.model.errors import SpoolError
from gateway.model.health import Arrivals, Custodian, Status, Sums


class House:
    def __init__(self) -> None:
        self.sums, self.state, self.broken, self.more = Sums(), 0, False, {}

    def custodian(self):
        if self.broken:
            raise SpoolError("the ledger is gone")
        return Custodian(self.sums, **self.more)


@pytest.fixture
def house():
    return House()


@pytest.fixture
def observer(house, tmp_path, monkeypatch):
    monkeypatch.setattr(module.machine, "clock", lambda: module.machine.Clock("chrony", True, 0.1))
    sources = Sources(
        house.custodian,
        lambda: house.state,
        lambda: [Arrivals("ct1", 1, time.time())],
        lambda: ["ct1"],
        lambda: {"mqtt": Path("cert.pem")},
        lambda path, now: 100.0,
    )
    return Observer(sources, tmp_path, 3600.0)


def codes(observer) -> set[str]:
    return {reason.code for reason in observer.observe().reasons}


def test_it_sees_house_machine_scanners_and_certificates(observer):
    seen = observer.observe()
    assert seen.custodian.sums.agree
    assert seen.host.disk.used_pct is not None
    assert seen.host.clock.synced
    assert seen.host.certificates[0].days_left == 100.0
    assert seen.modalities[0].studies_today == 1


def test_a_uid_that_comes_again_with_other_bytes_is_an_alarm_for_a_day_not_for_ever(observer, house, monkeypatch):
    house.sums = Sums(uid_conflicts=3)
    assert "uid_conflict" not in codes(observer), "those of earlier lives are no news"
    house.sums = Sums(uid_conflicts=4)
    assert "uid_conflict" in codes(observer)
    assert "uid_conflict" in codes(observer)
    later = time.monotonic() + 86401
    monkeypatch.setattr(module.time, "monotonic", lambda: later)
    assert "uid_conflict" not in codes(observer)


def test_a_ledger_that_cannot_be_read_is_critical_and_the_last_sums_stay(observer, house):
    house.sums = Sums(accepted=7)
    observer.latest = observer.observe()
    house.broken = True
    seen = observer.observe()
    assert seen.status is Status.CRITICAL
    assert "ledger_fault" in {reason.code for reason in seen.reasons}
    assert seen.custodian.sums.accepted == 7


def test_a_disk_that_cannot_be_written_is_read_only_whatever_its_mount_flags_say(observer, house):
    assert "disk_read_only" not in codes(observer)
    house.more = {"read_only": True, "room": "full"}
    assert {"disk_read_only", "disk_full"} <= codes(observer)
    assert observer.observe().host.disk.read_only is True


def test_an_overdue_scrub_is_an_alarm_after_a_while(observer, house, monkeypatch):
    house.more = {"scrub_overdue": True}
    assert "scrub_overdue" not in codes(observer), "a pass that is to begin now needs a moment"
    later = time.monotonic() + 601
    monkeypatch.setattr(module.time, "monotonic", lambda: later)
    assert "scrub_overdue" in codes(observer)


def test_news_is_told_at_once_and_nothing_is_told_before_its_time(observer, house, monkeypatch, wait_until):
    monkeypatch.setattr(module, "LOOK_S", 0.02)
    monkeypatch.setattr(module, "SOONEST_S", 0.05)
    told, stop = [], threading.Event()
    observer.changed.append(told.append)
    room = threading.Thread(target=observer.run, args=(stop, lambda: None))
    room.start()

    changes = (lambda: None, lambda: setattr(house, "state", 1), observer.look_now, lambda: observer.mains(True))
    for count, change in enumerate(changes, 1):
        change()
        assert wait_until(lambda count=count: len(told) == count)
        time.sleep(0.5)
        assert len(told) == count
    assert told[-1].host.power.on_battery
    stop.set()
    room.join(30)
