"""What an operator sees at a terminal; a simulated box is what is watched."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from gateway.cli.fleet_watch_cmd import _screen
from gateway.fleet.inventory import Heard
from gateway.fleet.likeness import Fate, Likeness
from gateway.fleet.settings import BrokerSettings, FleetSettings
from gateway.fleet.watch import Watch

NOON = 1e9 + 60_000.0


@pytest.fixture
def watch():
    return Watch(FleetSettings(broker=BrokerSettings(host="localhost")), ["simulated"])


def hear(watch, messages) -> None:
    for said in messages:
        watch.inventory.hear(Heard(said.topic, said.payload, False, None, 1.0, NOON))


def box_of(fate: Fate) -> Likeness:
    boxes = (Likeness(number, 1, "simulated", 60, 1e9) for number in range(5000))
    box = next(box for box in boxes if box.fate is fate)
    box.begin_session()
    return box


def test_the_most_urgent_comes_first(watch):
    boxes = {fate: box_of(fate) for fate in (Fate.STEADY, Fate.SILENT, Fate.DYING)}
    for box in boxes.values():
        hear(watch, box.greeting(NOON + 15_000, 1.0))
    shown = [line.box for line in watch.lines()]
    assert shown == [boxes[fate].id for fate in (Fate.DYING, Fate.SILENT, Fate.STEADY)]
    assert watch.lines()[0].reason.endswith(" disk")
    assert watch.sums() == {"boxes": 3, "online": 3, "stale": 0, "offline": 0, "critical": 1, "degraded": 1}


def test_only_what_changed_is_told_again(watch):
    box = box_of(Fate.STEADY)
    hear(watch, box.greeting(NOON, 1.0))
    assert [line.presence for line in watch.changes()] == ["online"]
    hear(watch, [box.health(box.state(NOON, 1.0), NOON)])
    assert list(watch.changes()) == []
    hear(watch, [box.said("offline", "shutdown", NOON)])
    assert [line.presence for line in watch.changes()] == ["offline"]


def test_the_screen_fits_and_says_everything_in_words(watch):
    for number in range(30):
        box = Likeness(number, 1, "simulated", 60, 1e9)
        box.begin_session()
        hear(watch, box.greeting(NOON, 1.0))
    hear(watch, [box.said("offline", "will", NOON)])
    console = Console(width=80, height=24, no_color=True, record=True, file=StringIO())
    watch.trouble = "it does not answer"
    console.print(_screen(watch, 10))
    text = console.export_text()
    assert len(text.splitlines()) <= 14
    assert box.id in text
    assert "offline" in text
    assert "30 boxes" in text
    assert "version" in text
    assert "(20 more below)" in text
    assert "NO LINE TO THE BROKER: it does not answer" in text
