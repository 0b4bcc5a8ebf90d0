"""What of an observation is worth a message."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gateway.health import reporter as module
from gateway.health.messages import Speaker, counters
from gateway.health.observer import Observation
from gateway.health.outbox import Outbox
from gateway.health.reporter import Reporter
from gateway.model.health import Custodian, Host, Identity, Status, Sums
from gateway.model.payloads import faults

CUSTODIAN = Custodian(
    Sums(accepted=10), codecs={"jpeg-ls": (4, 2000, 700), "rle": (1, 100, 60)}, stays_s=(0.5, 1.0, 2.0, 9.0)
)
SEEN = Observation(1000.0, 5.0, Status.OK, (), CUSTODIAN, Host(), (), 60.0)
SPEAKER = Speaker("default", "gateway")


@pytest.fixture
def outbox():
    return Outbox()


@pytest.fixture
def reporter(outbox):
    return Reporter(SPEAKER, outbox, lambda: Identity("1"), {}, lambda identity: [])


def told(outbox) -> list[str]:
    found = []
    while (message := outbox.take()) is not None:
        found.append(message.topic.removeprefix("gw/v1/default/gateway/"))
    return found


def test_numbers_of_codecs_and_latency_are_flat_and_keep_the_schema():
    groups = counters(SEEN)
    assert groups["codec"] == {
        "jpeg_ls_objects": 4,
        "jpeg_ls_bytes": 2000,
        "jpeg_ls_sent_bytes": 700,
        "rle_objects": 1,
        "rle_bytes": 100,
        "rle_sent_bytes": 60,
    }
    assert groups["latency"] == {"p50_s": 2.0, "p95_s": 9.0, "p99_s": 9.0}
    for message in SPEAKER.counters(SEEN):
        assert faults("m", json.loads(message.payload("0" * 32, 0))) == []


def test_what_is_not_known_yet_is_no_group():
    assert set(counters(replace(SEEN, custodian=Custodian(Sums())))) == {"receive", "forward"}


def test_numbers_for_charts_are_told_at_once_and_then_rarely(reporter, outbox, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    reporter.take(SEEN)
    assert {"m/receive", "m/forward", "m/codec", "m/latency", "health"} <= set(told(outbox))
    more = replace(SEEN, custodian=replace(CUSTODIAN, sums=Sums(accepted=11)))
    now[0] += 60
    reporter.take(more)
    assert told(outbox) == ["health"]
    now[0] += 241
    reporter.take(more)
    assert "m/receive" in told(outbox)
