"""The compiled check and the one that names the fault agree, but for names of other versions."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

from gateway.model.payloads import faults, readable
from tests.fleet import alarm, birth, destination, health, modality, reason, session

GOOD = {
    "session": session(),
    "birth": birth(),
    "health": health("degraded", (reason(),)),
    "mod": modality(),
    "dst": destination(),
    "a": alarm(),
}
ODD = (None, True, 0, -1, 1.5, 1e400, "", "unknown", "x\n", "2026-11-26T00:00:00Z\n", "٣", [], {}, ["x"] * 65, "a" * 99)


def places(body: Any, path: tuple = ()) -> list[tuple]:
    """Every place inside a document."""
    inner = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    return [path, *(found for key, value in inner for found in places(value, (*path, key)))]


def changed(body: Any, path: tuple, value: Any) -> Any:
    if not path:
        return value
    found = copy.deepcopy(body)
    at = found
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return found


@pytest.mark.parametrize("name", GOOD)
def test_both_checks_agree_on_every_value(name):
    body = GOOD[name]
    assert readable(name, body)
    assert faults(name, body) == []
    luck = random.Random(name)
    tried = [(path, value) for path in places(body) for value in ODD if value != {}]
    for path, value in luck.sample(tried, min(250, len(tried))):
        other = changed(body, path, value)
        assert readable(name, other) == (faults(name, other) == []), other


@pytest.mark.parametrize("name", GOOD)
def test_a_box_of_another_version_can_be_read_by_central_it(name):
    body = GOOD[name]
    for left_out in body:
        assert readable(name, {key: value for key, value in body.items() if key != left_out})
    assert readable(name, {**body, "of_a_later_version": {"x": [1]}})
    assert not readable(name, {**body, "v": 2})
    assert not readable(name, [])
