"""An operator commands running boxes with the command line, by way of a real broker."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from gateway.cli import cli
from gateway.model.errors import GatewayError
from tests.operator import Operator


class Desk:
    """The operator's machine: a folder with fleet.toml and keys."""

    def __init__(self, folder, broker) -> None:
        self.folder = folder
        folder.mkdir()
        broker.as_user("operator")
        files = f'ca_file = "{broker.folder}/ca.pem", cert_file = "{broker.folder}/operator.pem", '
        (folder / "fleet.toml").write_text(
            f'[broker]\nhost = "127.0.0.1"\nport = {broker.port}\n'
            f'tls = {{ {files}key_file = "{broker.folder}/operator.key" }}\n[store]\npath = "{folder}/fleet.db"\n'
        )

    def run(self, *words: str, code: int = 0) -> str:
        """In this process: a new one for each command would take longer than all commands together."""
        config = str(self.folder / "fleet.toml")
        done = CliRunner().invoke(cli, ["fleet", *words], env={"DICOM_GATEWAY_FLEET_CONFIG": config})
        said, found = done.output, done.exit_code
        if isinstance(done.exception, GatewayError):  # `main` prints it and ends so
            said, found = f"{said}{done.exception} {done.exception.hint}", done.exception.exit_code
        assert found == code, said
        return said

    def tell(self, boxes: str, *words: str, key: str = "ops-1", code: int = 0) -> list[dict]:
        said = self.run(
            "command", boxes, *words, "--key", f"{key}.key", "--json", "--timeout", "15", "--yes", code=code
        )
        return json.loads(said)


@pytest.fixture
def desk(tmp_path, broker, monkeypatch):
    desk = Desk(tmp_path / "desk", broker)
    monkeypatch.chdir(desk.folder)
    for kid, role in (("ops-1", "admin"), ("eyes", "viewer")):
        desk.run("keys", "make", kid, "--role", role)
    return desk


@pytest.fixture
def box(make_box, make_archive, dimse, broker, desk, wait_until):
    archive = make_archive().start()
    heard = broker.record()
    box = make_box(dimse(archive.port), more=broker.table(more=f'keyring_file = "{desk.folder}/keyring.toml"'))
    box.heard = heard
    box.start()
    assert wait_until(lambda: heard.last("cap/rebirth"))
    yield box
    box.kill()


def test_commands_are_signed_obeyed_and_followed_to_their_end(desk, box):
    (tested,) = desk.tell("gateway", "destination.test", "destination=pacs", "--reason", "morning round")
    assert (tested["box"], tested["status"], tested["code"]) == ("gateway", "successful", "reached")
    assert tested["values"]["ms"] >= 0
    (paused,) = desk.tell("g*", "queue.pause", "destination=pacs", "for_s=600")
    assert paused["status"] == "successful"
    assert box.ask("status")["destinations"]["pacs"]["paused_for_s"] > 0
    said = desk.run("command", "gateway", "queue.resume", "destination=pacs", "--key", "ops-1.key")
    assert [word in said for word in ("accepted", "executing", "successful")] == [True] * 3
    (failed,) = desk.tell("gateway", "queue.pause", "destination=nowhere", "for_s=1", code=1)
    assert (failed["status"], failed["code"]) == ("failed", "unknown_destination")


def test_whoever_may_not_is_told_why(desk, box, broker):
    (seen,) = desk.tell("gateway", "rebirth", key="eyes")
    assert seen["status"] == "successful"
    (refused,) = desk.tell("gateway", "queue.retry", key="eyes", code=1)
    assert (refused["status"], refused["code"]) == ("rejected", "wrong_role")
    desk.run("keys", "revoke", "ops-1")
    assert "revoked" in desk.run("keys", "list")
    said = desk.run("command", "gateway", "rebirth", "--key", "ops-1.key", "--timeout", "2", code=1)
    assert "does not know the key" in said
    said = desk.run("command", "nobody", "rebirth", "--key", "eyes.key", "--timeout", "1", code=1)
    assert "unanswered" in said or "undelivered" in said


def test_what_no_box_would_understand_is_not_sent(desk):
    for words, why in (
        (("gateway", "rm"), "there are: health.report"),
        (("gateway", "queue.pause", "destination=pacs"), "needs for_s"),
        (("gateway", "queue.pause", "destination=pacs", "for_s=0"), "would not understand"),
        (("gateway", "queue.pause", "destination=../x", "for_s=5"), "would not understand"),
        (("gateway", "rebirth", "force=true"), "it takes: none"),
        (("gw/+", "rebirth"), "is no name of a box"),
        (("nothing-*", "rebirth"), "fits none"),
    ):
        assert why in desk.run("command", *words, "--key", "ops-1.key", code=2), words


def test_a_broker_that_is_not_there_is_said_so(desk, broker):
    broker.kill()
    assert "is not reached" in desk.run("command", "gateway", "rebirth", "--key", "ops-1.key", code=69)


def test_answers_of_strangers_are_not_believed(desk, broker, wait_until):
    """Who cannot sign may still write results for another box's name when the broker lets him; ours does not."""
    heard = broker.record()
    words = ("command", "gateway", "rebirth", "--key", "ops-1.key", "--timeout", "3")
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "fleet", *words], cwd=desk.folder, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "DICOM_GATEWAY_FLEET_CONFIG": str(desk.folder / "fleet.toml")},
    )  # fmt: skip
    assert wait_until(lambda: [line for line in heard.lines() if "/cmd/rebirth/" in line["topic"]])
    (sent,) = [line for line in heard.lines() if "/cmd/rebirth/" in line["topic"]]
    command_id = sent["topic"].rpartition("/")[2]
    assert sent["properties"]["message-expiry-interval"] <= 3
    result = {"v": 1, "ts": "2026-01-01T00:00:00Z", "session": "0" * 32, "seq": 1, "id": command_id, "type": "rebirth"}
    result |= {"status": "successful", "code": "done"}
    topic = f"gw/v1/default/gateway/res/rebirth/{command_id}"
    broker.publish(topic, json.dumps(result).encode(), user="other-box")
    broker.publish(topic, b'{"status": "successful"}')
    assert process.wait(20) == 1
    assert "successful" not in process.stdout.read()


def test_a_desired_configuration_reaches_the_box_and_can_be_taken_back(desk, box, broker, dimse, wait_until):
    text = box.config.read_text() + dimse(1, "second")
    (desk.folder / "new.toml").write_text(text)
    assert "1 of 1" in desk.run("desire", "gateway", "new.toml", "--key", "ops-1.key")
    assert wait_until(lambda: box.heard.last("e/config_changed"), 30)
    assert box.config.read_text() == text
    desk.run("desire", "gateway", "--clear")
    kept = broker.record("gw/v1/default/desired/gateway")
    assert kept.lines() == []


def test_the_envelope_is_what_another_implementation_reads(desk, broker, wait_until):
    """The box's side of the form was written from its description too: see tests/operator.py."""
    heard = broker.record()
    desk.run("command", "gateway", "rebirth", "--key", "eyes.key", "--timeout", "1", code=1)
    assert wait_until(lambda: [line for line in heard.lines() if "/cmd/rebirth/" in line["topic"]])
    (sent,) = [line for line in heard.lines() if "/cmd/rebirth/" in line["topic"]]
    envelope = json.loads(sent["payload"])
    assert set(envelope) == set(json.loads(Operator().seal({})))
    assert sent["retain"] == 0
    assert sent["qos"] == 1
