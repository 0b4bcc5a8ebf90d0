"""What is remembered over a restart, and that it ends."""

from __future__ import annotations

import sqlite3

import pytest

from gateway.fleet.box import Presence
from gateway.fleet.settings import StoreSettings
from gateway.fleet.store import History, Store, StoreError
from tests.fleet import alarm, birth, health, reason, session
from tests.unit.fleet.boxes import House

KEY = ("default", "ct1")


@pytest.fixture
def house():
    return House(max_boxes=500)


@pytest.fixture
def settings(tmp_path):
    return StoreSettings(path=tmp_path / "deep" / "fleet.db", history_days=1, max_events=1000)


@pytest.fixture
def store(settings, house):
    store = Store(settings, house.inventory)
    yield store
    store.close()


def restarted(settings) -> House:
    house = House()
    Store(settings, house.inventory).close()
    return house


def test_a_box_comes_back_as_it_was(house, store, settings):
    house.say("ct1/session", session())
    for version in ("1.0", "2.0", "1.0"):
        house.say("ct1/birth", birth(version))
    house.say("ct1/health", health("degraded", (reason(),), disk=83.0))
    house.say("ct1/a/disk_filling", alarm())
    since = house.box().alarms["disk_filling"].alarm.since
    house.inventory.acknowledge(KEY, "disk_filling", since, "Ada", house.wall)
    house.say("ct1/session", session("offline", "update"))
    assert store.turn()
    before, after = house.box(), restarted(settings).box()
    assert (after.presence, after.since, after.goodbye) == (Presence.OFFLINE, before.since, before.goodbye)
    assert after.versions == ("1.0", "2.0", "1.0")
    assert after.health == before.health
    assert after.alarms["disk_filling"].acknowledged_by == "Ada"
    house.say("ct1/a/disk_filling", None)
    store.turn()
    assert restarted(settings).box().alarms == {}


def test_history_can_be_looked_at_beside_the_writer(house, store, settings):
    history = History(settings.path, store.suspect)
    for _ in range(3):
        house.say("ct1/health", health(disk=40.0, offset_ms="unknown"))
        house.now += 300
    house.say("ct1/session", session("offline", "will"))
    house.say("ct1/a/disk_filling", alarm())
    house.say("ct1/a/disk_filling", None)
    store.turn()
    past = history.past(KEY, 0, 2, 10)
    assert [(row[4], row[5]) for row in past.samples] == [(40.0, None)] * 2
    assert past.samples[0][0] < past.samples[1][0]
    assert past.events[0][1:] == ("offline", "will")
    assert past.ended_alarms[0][:2] == ("disk_filling", "warning")
    assert history.past(("default", "nobody"), 0, 2, 10).samples == []


def test_what_is_too_old_or_too_much_is_given_up(house, store, settings):
    for number in range(1500):
        state = "online" if number % 2 else "offline"
        house.say("ct1/session", session(state))
        house.say("ct1/a/hot", alarm("hot", since=f"2026-01-01T00:{number // 60 % 60:02d}:{number % 60:02d}Z"))
    house.say("ct1/health", health())
    while store.turn():
        pass
    store.prune(house.wall)
    history = History(settings.path, store.suspect)
    assert len(history.past(KEY, 0, 5, 5000).ended_alarms) == 999  # and the one that holds
    assert len(history.past(KEY, 0, 5, 5000).events) == 1000
    assert len(history.past(KEY, 0, 5, 5000).samples) == 1
    store.prune(house.wall + 86401)
    assert history.past(KEY, 0, 5, 5000).events == []
    assert history.past(KEY, 0, 5, 5000).samples == []
    assert history.past(KEY, 0, 5, 5000).ended_alarms == []
    assert list(restarted(settings).box().alarms) == ["hot"]


def test_a_box_that_is_gone_leaves_nothing(house, store, settings):
    house.say("ct1/session", session())
    house.say("ct1/health", health())
    store.turn()
    house.say("ct1/session", None)
    store.turn()
    with sqlite3.connect(settings.path) as db:
        assert [db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("box", "sample", "event")] == [
            0
        ] * 3
    house.say("ct1/session", session())
    store.turn()
    assert restarted(settings).box() is not None


def test_damage_while_it_runs_loses_history_and_nothing_of_the_present(house, store, settings):
    house.say("ct1/session", session())
    house.say("ct1/a/disk_filling", alarm())
    store.turn()
    store.suspect()
    store.turn()
    assert store.set_aside == 1
    store.turn()
    after = restarted(settings).box()
    assert list(after.alarms) == ["disk_filling"]
    assert len(list(settings.path.parent.glob("*.damaged-*"))) >= 1


def test_a_file_that_is_no_database_is_set_aside(settings, house):
    settings.path.parent.mkdir()
    settings.path.write_bytes(b"no database, " * 1000)
    store = Store(settings, house.inventory)
    assert store.set_aside == 1
    store.close()


def test_a_database_of_a_later_program_is_refused(settings, house, store):
    with sqlite3.connect(settings.path) as db:
        db.execute("PRAGMA user_version = 9")
    with pytest.raises(StoreError, match="version 9"):
        Store(settings, House().inventory)


def test_while_the_disk_is_full_everything_else_goes_on(house, store, settings):
    store._db.execute("PRAGMA max_page_count = 1")
    house.say("ct1/session", session())
    for number in range(200):
        house.say(f"b{number}/session", session())
    assert not store.turn()
    assert "full" in store.reason
    store._db.execute("PRAGMA max_page_count = 100000")
    assert store.turn()
    assert store.reason == ""
    assert restarted(settings).box() is not None
