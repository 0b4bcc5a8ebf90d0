"""The example for mosquitto, run as it stands: who may do what, judged by what arrives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.broker import ACL, Broker


class Shipped(Broker):
    """mosquitto with the shipped configuration: only paths, port and user are those of the test."""

    def __init__(self, folder) -> None:
        super().__init__(folder)
        self._issue("broker", "127.0.0.1")
        text = ACL.with_name("mosquitto.conf").read_text()
        for shipped, ours in {
            "listener 8883": f"user root\nlistener {self.port} 127.0.0.1",
            "/etc/mosquitto/certs/": f"{folder}/",
            "/etc/mosquitto/mosquitto.acl": f"{folder}/shipped.acl",
            "persistence_location /var/lib/mosquitto/": f"persistence_location {folder}/",
        }.items():
            assert shipped in text
            text = text.replace(shipped, ours)
        (folder / "shipped.acl").write_text(ACL.read_text())
        (folder / "shipped.acl").chmod(0o600)
        self._config.write_text(text)


@pytest.fixture
def shipped(tmp_path):
    broker = Shipped(tmp_path / "broker")
    yield broker.start()
    broker.stop()


BOX = "gw/v1/default/ct1"


def test_each_may_say_and_hear_what_is_its_own_and_no_more(shipped, wait_until):
    everything = shipped.record("gw/#", user="fleet-monitor")
    others = shipped.record("gw/v1/default/ct1/cmd/#", "gw/v1/default/desired/+", user="mr1")
    own = shipped.record(f"{BOX}/cmd/#", "gw/v1/default/desired/+", "gw/v1/default/host/state", user="ct1")
    tries = {
        ("ct1", f"{BOX}/session"): True,
        ("ct1", f"{BOX}/res/rebirth/1"): True,
        ("ct1", f"{BOX}/cmd/reboot/1"): False,
        ("ct1", "gw/v1/default/desired/ct1"): False,
        ("ct1", "gw/v1/default/host/state"): False,
        ("mr1", f"{BOX}/session"): False,
        ("mr1", f"{BOX}/a/disk_full"): False,
        ("fleet-monitor", "gw/v1/default/host/state"): True,
        ("fleet-monitor", f"{BOX}/cmd/reboot/2"): False,
        ("operator", f"{BOX}/cmd/rebirth/3"): True,
        ("operator", "gw/v1/default/desired/ct1"): True,
        ("operator", f"{BOX}/session"): False,
        ("broker-admin", f"{BOX}/birth"): True,
        ("simulator", "gw/v1/simulated/sim-00001-ct/health"): True,
        ("simulator", f"{BOX}/health"): False,
        ("telegraf", f"{BOX}/health"): False,
        ("nobody-known", "gw/v1/default/host/state"): False,
    }
    for number, (user, topic) in enumerate(tries):
        shipped.publish(topic, str(number).encode(), user=user)
    shipped.publish(f"{BOX}/session", b"last", user="ct1")
    assert wait_until(lambda: "last" in everything.text())
    heard = {line["topic"]: line["payload"] for line in everything.lines() if line["payload"] != "last"}
    expected = {topic: str(number) for number, ((_, topic), good) in enumerate(tries.items()) if good}
    assert heard == expected
    assert wait_until(lambda: len(own.lines()) == 3), own.text()
    assert {line["topic"] for line in own.lines()} == {
        *(f"{BOX}/cmd/rebirth/3", "gw/v1/default/desired/ct1", "gw/v1/default/host/state")
    }
    time.sleep(0.3)
    assert others.lines() == [], "a subscription is granted, and nothing is delivered"


def test_nobody_comes_in_without_a_certificate_of_ours(shipped):
    plain = ["mosquitto_pub", "-V", "5", "-h", "127.0.0.1", "-p", str(shipped.port), "-t", "gw/x", "-m", "x"]
    for more in ([], ["--cafile", f"{shipped.folder}/ca.pem"]):
        assert subprocess.run([*plain, *more], capture_output=True, timeout=10).returncode != 0


@pytest.fixture
def fleet(shipped, tmp_path):
    """The command line of central IT, as a certificate's name."""

    def start(*words: str, user: str = "operator", tenant: str = "simulated"):
        shipped.as_user(user)
        files = f'cert_file = "{shipped.folder}/{user}.pem", key_file = "{shipped.folder}/{user}.key"'
        config = tmp_path / f"{user}.toml"
        config.write_text(
            f'tenants = ["{tenant}"]\n[broker]\nhost = "127.0.0.1"\nport = {shipped.port}\n'
            f'tls = {{ ca_file = "{shipped.folder}/ca.pem", {files} }}\n[store]\npath = "{tmp_path}/fleet.db"\n'
        )
        command = [sys.executable, "-m", "gateway", "fleet", *words, "--config", str(config)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ})

    return start


def test_a_simulated_fleet_is_watched_line_by_line_and_at_a_glance(fleet, shipped, wait_until):
    simulating = fleet("simulate", "-n", "12", "--steady", "--will-delay", "0", "--json", user="simulator")
    heard = shipped.record("gw/v1/simulated/+/health", user="fleet-monitor")
    assert wait_until(lambda: len({line["topic"] for line in heard.lines()}) == 12)
    watching = fleet("watch", "--json")
    lines = [json.loads(watching.stdout.readline()) for _ in range(12)]
    glance = fleet("watch", "--once")
    out, err = glance.communicate(timeout=60)
    assert glance.returncode == 0, out + err
    assert out.count(" online ok 0.8.2 -") == 12
    simulating.send_signal(signal.SIGTERM)
    out, err = simulating.communicate(timeout=60)
    assert simulating.returncode == 0, err
    numbers = json.loads(out.splitlines()[-1])
    assert (numbers["boxes"], numbers["connected"], numbers["lost"]) == (12, 12, {})
    lines += [json.loads(watching.stdout.readline()) for _ in range(12)]
    watching.send_signal(signal.SIGTERM)
    watching.communicate(timeout=30)
    assert [line["presence"] for line in lines] == ["online"] * 12 + ["offline"] * 12
    assert {line["box"] for line in lines[:12]} == {line["box"] for line in lines[12:]}
    gone = fleet("watch", "--once")
    gone.communicate(timeout=60)
    assert gone.returncode == 1, "not all are online"
