"""/metrics: read by Prometheus's own reader, bounded whatever boxes say, made anew only where something changed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.fleet import exporter as module
from gateway.fleet.exporter import Exporter
from gateway.fleet.settings import WaveSettings
from gateway.fleet.waves import progress_of
from tests.fleet import alarm, birth, health, session
from tests.unit.fleet.boxes import House

LINES = [SimpleNamespace(tenant="default", connected=True, drops=False)]
STORE = SimpleNamespace(reason="", set_aside=0)
WAVE = WaveSettings(name="all", version="2.0", boxes=["*"], settle_s=0)


@pytest.fixture
def house():
    return House(max_boxes=500)


@pytest.fixture
def exporter(house):
    return Exporter(
        house.inventory, LINES, STORE, lambda: progress_of([WAVE], house.inventory.boxes.values(), house.wall)
    )


def samples(exporter: Exporter) -> dict[tuple, float]:
    families = text_string_to_metric_families(exporter.text().decode())
    return {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}


def test_nothing_is_a_fleet_too(exporter):
    assert samples(exporter)["dicom_fleet_boxes", "default", "online"] == 0


def test_what_is_told_of_boxes(house, exporter):
    house.say("ct1/session", session())
    house.say("ct1/birth", birth("2.0"))
    house.say("ct1/health", health("critical", oldest_s=77.5, objects=3, disk="unknown"))
    house.say("ct1/a/hot", alarm("hot"))
    house.say("ct1/a/new_code", alarm("new_code"))
    house.say("mr1/session", session("offline", "will"))
    found = samples(exporter)
    assert found["dicom_fleet_box_oldest_unsent_seconds", "ct1", "default"] == 77.5
    assert ("dicom_fleet_box_disk_used_percent", "ct1", "default") not in found
    assert found["dicom_fleet_boxes", "default", "offline"] == 1
    assert found["dicom_fleet_alarms", "hot"] == 1
    assert found["dicom_fleet_alarms", "other"] == 1
    assert found["dicom_fleet_alarms_unacknowledged",] == 2
    assert found["dicom_fleet_wave_abort", "all"] == 1
    assert found["dicom_fleet_version_boxes", "2.0"] == 1


def test_boxes_cannot_make_labels_without_end(house, exporter):
    for number in range(100):
        house.say(f"b{number}/birth", birth(f"9.{number}"))
        house.say(f"b{number}/a/c{number}", alarm(f"c{number}"))
    names = [key[0] for key in samples(exporter)]
    assert names.count("dicom_fleet_version_boxes") == 21
    assert names.count("dicom_fleet_alarms") == len(module.CODES) + 1


def test_only_what_changed_is_made_anew(house, exporter, monkeypatch):
    for number in range(300):
        house.say(f"b{number}/session", session())
    exporter.text()
    made = []
    lines = module._lines
    monkeypatch.setattr(module, "_lines", lambda box: made.append(box.name) or lines(box))
    house.say("b7/health", health(objects=5))
    assert samples(exporter)["dicom_fleet_box_unsent_objects", "b7", "default"] == 5
    assert made == ["b7"]
    house.say("b8/session", None)
    assert ("dicom_fleet_box_online", "b8", "default") not in samples(exporter)


def test_several_may_ask_at_once_while_boxes_come_and_go(house, exporter):
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(exporter.text) for _ in range(40)]
        for number in range(400):
            with house.inventory.lock:
                house.say(f"b{number % 50}/session", session() if number % 3 else None)
        assert all(answer.result() for answer in asked)
