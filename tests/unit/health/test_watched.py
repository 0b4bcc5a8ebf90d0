"""What a box believes of whoever says that he watches it."""

from __future__ import annotations

import json

import pytest

from gateway.health.mqtt import Incoming
from gateway.health.watched import Watched

SAID = {"v": 1, "ts": "2026-01-01T00:00:00Z", "session": "0" * 32, "seq": 0, "state": "online", "reason": "connect"}


def hear(watched, payload) -> str:
    watched.hear(Incoming("gw/v1/t/host/state", payload, True))
    return watched.state


def test_it_is_noted_and_forgotten_when_the_monitor_takes_it_back():
    watched = Watched()
    assert watched.state == "unknown"
    assert hear(watched, json.dumps(SAID).encode()) == "online"
    assert watched.since > 0
    assert hear(watched, json.dumps({**SAID, "state": "offline", "reason": "will"}).encode()) == "offline"
    assert hear(watched, b"") == "unknown"


@pytest.mark.parametrize(
    "payload",
    [b"nonsense", b"[]", b"7", b"\xff", b"x" * 5000, b"[" * 4000, json.dumps({**SAID, "state": "maybe"}).encode()],
)
def test_nonsense_changes_nothing(payload):
    watched = Watched()
    hear(watched, json.dumps(SAID).encode())
    assert hear(watched, payload) == "online"
