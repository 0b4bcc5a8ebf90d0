"""A roll-out: who is on the way, who failed, and when to stop."""

from __future__ import annotations

import json

import pytest

from gateway.fleet.box import Box, Presence
from gateway.fleet.reports import Session, health_of
from gateway.fleet.settings import WaveSettings
from gateway.fleet.waves import Stage, progress_of, stage_of
from tests.fleet import health as health_body

WALL = 10_000.0
WAVE = WaveSettings(name="pilot", version="2.0", boxes=["ct*"], settle_s=100, abort_percent=20)
WELL = health_of(json.dumps(health_body()).encode())
ILL = health_of(json.dumps(health_body("critical")).encode())


def box(*versions: str, at: float = 0.0, health=WELL, name: str = "ct1", **facts) -> Box:
    found = Box("default", name, 0.0, 0.0, health=health, versions=versions, version_at=at)
    for fact, value in facts.items():
        setattr(found, fact, value)
    return found


UPDATING = {"presence": Presence.OFFLINE, "goodbye": Session(False, "update", "a" * 32)}

CASES = {
    "nobody began": (box("1.0"), Stage.WAITING),
    "nothing is known": (box(), Stage.WAITING),
    "it installs": (box("1.0", update="executing", update_at=WALL - 50), Stage.IN_PROGRESS),
    "it installs for too long": (box("1.0", update="executing", update_at=WALL - 101), Stage.FAILED),
    "its installation failed": (box("1.0", update="failed"), Stage.FAILED),
    "it restarts for the update": (box("1.0", since=WALL - 50, **UPDATING), Stage.IN_PROGRESS),
    "it does not come back": (box("1.0", since=WALL - 101, **UPDATING), Stage.FAILED),
    "it is new and well": (box("1.0", "2.0", at=WALL - 50), Stage.IN_PROGRESS),
    "it has settled": (box("1.0", "2.0", at=WALL - 100), Stage.DONE),
    "it had it from the start": (box("2.0"), Stage.DONE),
    "it is ill": (box("1.0", "2.0", health=ILL), Stage.FAILED),
    "it is gone": (box("1.0", "2.0", presence=Presence.STALE), Stage.FAILED),
    "it says nothing": (box("1.0", "2.0", health=None), Stage.FAILED),
    "it went back": (box("1.0", "2.0", "1.0"), Stage.ROLLED_BACK),
    "it went on": (box("1.0", "2.0", "3.0"), Stage.WAITING),
}


@pytest.mark.parametrize("case", CASES)
def test_stage(case):
    found, stage = CASES[case]
    assert stage_of(found, WAVE, WALL) is stage


def test_too_many_failures_say_abort():
    well, back = box("1.0", "2.0"), box("1.0", "2.0", "1.0")
    some = [well] * 8 + [back] * 2 + [box("1.0")] * 90
    (progress,) = progress_of([WAVE], some, WALL)
    assert (progress.failed_percent, progress.abort, progress.state) == (20.0, False, "in progress")
    (progress,) = progress_of([WAVE], [*some, back], WALL)
    assert (progress.abort, progress.state) == (True, "abort")
    (progress,) = progress_of([WAVE], [box("1.0")], WALL)
    assert (progress.abort, progress.state) == (False, "waiting")
    (progress,) = progress_of([WAVE], [well], WALL)
    assert progress.state == "done"


def test_a_box_belongs_to_the_first_wave_that_names_it():
    rest = WAVE.model_copy(update={"name": "rest", "boxes": ["*"]})
    mine = WAVE.model_copy(update={"name": "mine", "tenant": "other", "boxes": ["*"]})
    found = progress_of([mine, WAVE, rest], [box("1.0"), box("1.0", name="mr1")], WALL)
    assert [len(progress.boxes) for progress in found] == [0, 1, 1]
