"""A simulated fleet and a real broker: what it tells, and what becomes of it when lines, boxes or the broker break."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager

import pytest

from gateway.config.destinations import ClientTls
from gateway.fleet.line import Broker as Address
from gateway.fleet.simulate import Plan, Simulation
from gateway.identity.tls import client_context
from gateway.model.payloads import faults
from tests.broker import Broker


@pytest.fixture
def run(broker: Broker):
    """Simulate against a real broker over TLS; return the numbers and what was heard."""
    broker.as_user("simulator")

    def simulate(**facts):
        heard = broker.record("gw/#")
        files = {f"{name}_file": broker.folder / f"simulator.{end}" for name, end in (("cert", "pem"), ("key", "key"))}
        context = client_context(ClientTls(ca_file=broker.folder / "ca.pem", **files))
        plan = Plan(**{"boxes": 20, "seconds": 100, "interval_s": 1, "will_delay_s": 0, **facts})
        return Simulation(plan, Address(("127.0.0.1", broker.port), context=context, server_name="127.0.0.1")), heard

    return simulate


@contextmanager
def running(simulation: Simulation):
    """Run it beside the test; afterwards all boxes have said goodbye."""
    stop = threading.Event()
    thread = threading.Thread(target=simulation.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()


def states(heard) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in heard.lines():
        if line["topic"].endswith("/session") and line["payload"]:
            told = json.loads(line["payload"])
            found.setdefault(line["topic"], []).append(f"{told['state']} {told['reason']}")
    return found


def test_a_fleet_connects_tells_its_health_and_says_goodbye(run, wait_until):
    simulation, heard = run()

    def health() -> list[dict]:
        end = simulation.boxes[0].likeness.id + "/health"
        return [line for line in heard.lines() if line["topic"].endswith(end)]

    with running(simulation):
        assert wait_until(lambda: simulation.report()["connected"] == 20 and len(health()) >= 3, 60)
        numbers = simulation.report()
    assert numbers["lost"] == {}
    assert numbers["refused"] == 0
    assert wait_until(lambda: [s[-1] for s in states(heard).values()].count("offline shutdown") == 20)
    lines = heard.lines()
    assert {line["topic"].split("/")[3] for line in lines} == {box.likeness.id for box in simulation.boxes}
    for line in lines:
        if line["payload"]:
            part = line["topic"].split("/")[4]
            assert faults(part, json.loads(line["payload"])) == [], line["topic"]
    assert all(line["qos"] == 1 for line in health())


def test_a_storm_cuts_lines_and_the_boxes_come_back(run, wait_until):
    simulation, heard = run(storm_every_s=4, storm_pct=50)
    with running(simulation):
        assert wait_until(lambda: simulation.report()["cuts"] >= 10, 60)
        assert wait_until(lambda: simulation.report()["connected"] >= 15, 60)
        assert wait_until(lambda: any("offline will" in told for told in states(heard).values()))


def test_a_wave_brings_another_version(run, monkeypatch, wait_until):
    monkeypatch.setattr("gateway.fleet.simulate.UPDATE_S", (0.1, 0.5))
    monkeypatch.setattr("gateway.fleet.simulate.UPDATE_TOLD_S", 0.2)
    simulation, heard = run(wave_every_s=1, wave_pct=20)

    def versions() -> set[str]:
        births = [line["payload"] for line in heard.lines() if "/birth" in line["topic"]]
        return {json.loads(birth)["gateway_version"] for birth in births}

    with running(simulation):
        assert wait_until(lambda: simulation.report()["updates"] >= 8, 60)
        assert wait_until(lambda: any("offline update" in told for told in states(heard).values()))
        assert wait_until(lambda: versions() == {"0.8.2", "0.9.0"})


def test_a_broker_that_comes_back_gets_everybody_back(run, broker, wait_until):
    simulation, _ = run()
    with running(simulation):
        assert wait_until(lambda: simulation.report()["connected"] == 20, 60)
        broker.kill()
        assert wait_until(lambda: simulation.report()["connected"] == 0, 60)
        broker.start()
        assert wait_until(lambda: simulation.report()["connected"] == 20, 60)
