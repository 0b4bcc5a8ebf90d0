"""Nothing that is published can raise: a message that did would come again with each connection, retained as it is."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fleet.exporter import Exporter
from gateway.fleet.fleet_page import fleet_page
from gateway.fleet.page import View
from gateway.fleet.settings import ThresholdSettings
from tests.fleet import alarm, birth, destination, health, modality, reason, session
from tests.unit.fleet.boxes import House
from tests.unit.fleet.test_exporter import LINES, STORE
from tests.unit.model.test_payloads import ODD, changed, places

GOOD = {
    "session": session(),
    "birth": birth(),
    "health": health("degraded", (reason(),)),
    "mod/ct1/health": modality(),
    "dst/pacs/health": destination(),
    "a/disk_filling": alarm(),
    "e/boot": {**session(), "event": "boot"},
    "res/update.install/1": {**session(), "status": "failed"},
}
WORSE = (*ODD, "\ud800", "<script>", 10**400, -(10**400), 1e308, [[]] * 3, {"": {}}, "x" * 60_000)


def shown(house: House) -> None:
    """Everything that is made of it can be made."""
    view = View("/", {}, LINES, ThresholdSettings(), house.now, house.wall)
    assert fleet_page(list(house.inventory.boxes.values()), view, [])
    assert Exporter(house.inventory, LINES, STORE, list).text()


@pytest.mark.parametrize("topic", GOOD)
def test_one_value_after_the_other_is_replaced(topic):
    house, luck = House(), random.Random(topic)
    tried = [(path, value) for path in places(GOOD[topic]) for value in WORSE]
    for path, value in luck.sample(tried, min(300, len(tried))):
        house.say(f"ct1/{topic}", json.dumps(changed(GOOD[topic], path, value)).encode(), retained=luck.random() < 0.5)
    for left_out in GOOD[topic]:
        house.say(f"ct1/{topic}", {name: value for name, value in GOOD[topic].items() if name != left_out})
    house.judge()
    shown(house)


@pytest.mark.parametrize("depth", range(50, 1000, 50))
@pytest.mark.parametrize("topic", ["health", "session"])
def test_what_is_deep(topic, depth):
    house = House()
    nest = b"[" * depth + b"]" * depth
    house.say(f"ct1/{topic}", nest)
    house.say(f"ct1/{topic}", b'{"v":1,"session":' + nest + b',"status":' + nest + b',"reasons":[' + nest + b"]}")
    shown(house)


@settings(max_examples=200)
@given(st.sampled_from(list(GOOD)), st.binary(max_size=200), st.booleans(), st.one_of(st.none(), st.integers(0, 2**32)))
def test_noise(topic, payload, retained, left_s):
    house = House()
    house.say(f"ct1/{topic}", payload, retained=retained, left_s=left_s)
    shown(house)


@settings(max_examples=200)
@given(st.text(max_size=80))
def test_topics_of_noise(topic):
    house = House()
    house.say("gw/v1/" + topic, session())
    assert len(house.inventory.boxes) <= 1
