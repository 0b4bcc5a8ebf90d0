"""Simulated boxes say what real boxes could say, and their lines behave as real lines do."""

from __future__ import annotations

import json
import resource
import threading
from collections import Counter

import pytest

from gateway.fleet.likeness import SEVERITY, SHARES, Fate, Likeness
from gateway.fleet.line import Broker as Address
from gateway.fleet.simulate import CannotSimulate, Plan, Simulation, allow_files
from gateway.model.codes import CODES
from gateway.model.payloads import faults

DAY_S = 86400.0


def box_of(fate: Fate) -> Likeness:
    boxes = (Likeness(number, 1, "simulated", 60, 1e9) for number in range(5000))
    return next(box for box in boxes if box.fate is fate)


def test_every_fate_says_only_what_the_schemas_allow_all_day():
    for fate in Fate:
        box = box_of(fate)
        for hour in range(25):
            now = 1e9 + hour * 3600
            box.begin_session()
            box.study(now)
            said = [box.will(now), *box.greeting(now, 1.0), box.said("offline", "update", now)]
            for message in said:
                assert faults(message.schema, json.loads(message.payload)) == [], (fate, message.topic)
            assert [json.loads(message.payload)["seq"] for message in said[1:]] == list(range(len(said) - 1))


def test_each_sum_agrees():
    for fate in Fate:
        box = box_of(fate)
        for hour in range(25):
            now = 1e9 + hour * 3600
            state = box.state(now, 1.0)
            sums = json.loads(box.health(state, now).payload)["sums"]
            assert sums["accepted"] == sums["held"] + sums["released"] + sums["quarantined"]
            for message in box.rooms(state, now)[: len(box.destinations)]:
                told = json.loads(message.payload)
                assert told["accepted"] == sum(
                    told[name] for name in ("queued", "sending", "sent", "confirmed", "held", "retired")
                )


def test_severities_are_those_of_real_boxes():
    assert {code: str(CODES[code].severity) for code in SEVERITY} == SEVERITY


def test_a_fleet_has_each_fate_in_its_share():
    found = Counter(Likeness(number, 3, "simulated", 60, 1e9).fate for number in range(5000))
    for fate, share in SHARES.items():
        assert share / 2 < found[fate] / 5000 < share * 2, fate


def test_the_same_seed_gives_the_same_fleet():
    one, same, other = (Likeness(7, seed, "simulated", 60, 1e9) for seed in (1, 1, 2))
    one.begin_session()
    same.begin_session()
    assert one.greeting(1e9, 60) == same.greeting(1e9, 60)
    assert other.id != one.id or other.greeting(1e9, 60) != one.greeting(1e9, 60)


def test_a_dying_disk_is_told_before_the_box_is_gone():
    box = box_of(Fate.DYING)
    seen = [box.state(1e9 + DAY_S * part / 50, 1.0) for part in range(51)]
    assert not seen[0].wrong
    assert "disk_worn" in seen[25].wrong or "disk_worn" in seen[35].wrong
    assert any(state.read_only and not state.gone for state in seen)
    assert seen[-1].gone


def test_too_few_files_are_said_with_what_to_set(monkeypatch):
    def refuse(what, limits):
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda what: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    with pytest.raises(CannotSimulate) as caught:
        allow_files(10_000)
    assert "ulimit -n 10064" in caught.value.hint
    allow_files(900)


def test_nobody_there_is_counted_and_not_fatal(wait_until):
    def all_are_refused() -> bool:
        numbers = Simulation(Plan(boxes=3, seconds=1), Address(("127.0.0.1", 1))).run(threading.Event())
        assert numbers["connected"] == 0
        return numbers["lost"].get("Connection refused", 0) >= 3

    assert wait_until(all_are_refused)  # a second is too short for a process that is held up in it
