"""The examples for other engines, judged by these engines where they can be installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from gateway.fleet import keys
from gateway.fleet.exporter import Exporter
from gateway.fleet.inventory import Heard, Inventory
from gateway.fleet.likeness import Fate, Likeness
from gateway.fleet.settings import BrokerSettings, StoreSettings, WaveSettings
from gateway.fleet.store import Store
from gateway.fleet.subscriber import Line
from gateway.fleet.waves import progress_of
from gateway.model.codes import CODES
from gateway.model.payloads import schema

EXAMPLES = Path(keys.__file__).parent / "examples"
RULES = (EXAMPLES / "fleet.rules.yml").read_text()


def needs(program: str):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed: `make peers`")


def said(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, cwd=EXAMPLES, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs("promtool")
def test_prometheus_takes_its_configuration_and_the_rules():
    assert "SUCCESS" in said("promtool", "check", "config", "prometheus.yml")


@needs("promtool")
def test_the_alerts_fire_when_they_should_and_not_before():
    assert "SUCCESS" in said("promtool", "test", "rules", "fleet.rules_test.yml")


def test_every_alert_is_in_a_test_of_the_rules():
    tested = (EXAMPLES / "fleet.rules_test.yml").read_text() + " BoxDiskFilling"  # has a series that must not fire
    alerts = re.findall(r"alert: (\w+)", RULES)
    assert len(alerts) > 20
    assert [alert for alert in alerts if alert not in tested] == []


@needs("amtool")
@pytest.mark.parametrize(("severity", "receiver"), [("page", "pager"), ("ticket", "tickets")])
def test_alertmanager_takes_its_configuration_and_tells_the_right_people(severity, receiver):
    said("amtool", "check-config", "alertmanager.yml")
    route = ("amtool", "config", "routes", "test", "--config.file=alertmanager.yml", f"severity={severity}")
    assert said(*route).strip() == receiver


def test_alertmanager_inhibits_by_alerts_that_there_are():
    named = re.findall(r'alertname=~?"([^"]+)"', (EXAMPLES / "alertmanager.yml").read_text())
    alerts = set(re.findall(r"alert: (\w+)", RULES))
    assert {name for names in named for name in names.split("|")} <= alerts


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> set[str]:
    """Names of all samples of a monitor that watches one simulated box of each fate."""
    inventory = Inventory(100, 3.0, 300.0)
    number = {fate: next(n for n in range(5000) if Likeness(n, 1, "simulated", 60, 1e9).fate is fate) for fate in Fate}
    for n in number.values():
        box = Likeness(n, 1, "simulated", 60, 1e9)
        box.begin_session()
        for said in box.greeting(1e9 + 40_000, 1.0):
            inventory.hear(Heard(said.topic, said.payload, False, None, 1.0, 1e9))
    assert not inventory.counters.invalid
    store = Store(StoreSettings(path=tmp_path_factory.mktemp("fleet") / "fleet.db"), inventory)
    line = Line(BrokerSettings(host="localhost"), "simulated", inventory)
    wave = WaveSettings(name="pilot", version="0.9.0", boxes=["sim-*"])
    progress = progress_of([wave], inventory.boxes.values(), 1e9)
    text = Exporter(inventory, [line], store, lambda: progress).text().decode()
    store.close()
    return set(re.findall(r"^(dicom_fleet_[a-z_]+)[{ ]", text, re.MULTILINE))


def named_metrics(text: str) -> set[str]:
    return set(re.findall(r"dicom_fleet_[a-z_]+", text))


@pytest.mark.parametrize("name", ["fleet.rules.yml", "fleet.rules_test.yml", "grafana-dashboard.json"])
def test_every_metric_that_is_named_is_exported(name, exported):
    found = named_metrics((EXAMPLES / name).read_text())
    assert len(found) > 10
    assert found - exported == set()


def test_every_code_that_is_named_is_one_of_a_box():
    named = {code for codes in re.findall(r'code=~?"([a-z_|]+)"', RULES) for code in codes.split("|")}
    assert named
    assert named <= set(CODES)


def test_the_dashboard_asks_something_in_every_panel():
    dashboard = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert all(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])


def test_telegraf_reads_topics_and_fields_of_our_schemas():
    config = tomllib.loads((EXAMPLES / "telegraf.conf").read_text())
    numbers, health = config["inputs"]["mqtt_consumer"]
    for consumer, name in ((numbers, "m"), (health, "health")):
        assert consumer["topics"] == [parsing["topic"] for parsing in consumer["topic_parsing"]]
        known = schema(name)["properties"]
        (form,) = consumer["json_v2"]
        parts = [part for kind in ("object", "tag", "field") for part in form.get(kind, [])]
        asked = [form["timestamp_path"], *(part["path"] for part in parts)]
        assert set(asked) <= set(known)
