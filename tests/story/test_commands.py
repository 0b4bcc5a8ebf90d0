"""Central IT commands a running box by way of a real broker; whoever else tries changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import time

import pytest

from tests.operator import Operator
from tests.ports import free_port
from tests.story.test_health import broken

QUICK = 30


@pytest.fixture
def ops():
    return Operator()


@pytest.fixture
def eyes():
    return Operator("eyes", "viewer")


@pytest.fixture
def keyring(tmp_path, ops, eyes):
    path = tmp_path / "keyring.toml"
    path.write_text(ops.entry() + eyes.entry())
    path.chmod(0o644)
    return f'keyring_file = "{path}"'


@pytest.fixture
def commanded(make_box, make_archive, dimse, broker, keyring, wait_until):
    """A box with an archive, its broker, and what was heard."""
    archive = make_archive().start()
    heard = broker.record()
    box = make_box(dimse(archive.port), more=broker.table(more=keyring))
    box.archive = archive
    box.start(env={"INVOCATION_ID": "x", "PATH": os.environ["PATH"]})
    assert wait_until(lambda: heard.last("cap/rebirth") and heard.last("dst/pacs/health"))
    yield box, heard
    if box.process.poll() is None:
        box.kill()


def topic_of(body, box="gateway") -> str:
    return f"gw/v1/default/{box}/cmd/{body['type']}/{body['id']}"


def give(broker, ops, body, *options, topic=None, payload=None) -> dict:
    broker.publish(topic or topic_of(body), payload or ops.seal(body), *options)
    return body


def results(heard, body) -> list[str]:
    return [result["status"] for result in heard.of(f"res/{body['type']}/{body['id']}")]


def test_central_it_pauses_tests_and_resumes_a_destination(commanded, broker, ops, wait_until, ct_files):
    from tests.story.test_health import send

    box, heard = commanded
    assert heard.last("/birth")["cmd"]
    paused = give(broker, ops, ops.body("queue.pause", {"destination": "pacs", "for_s": 600}))
    assert wait_until(lambda: results(heard, paused) == ["accepted", "executing", "successful"], QUICK)
    assert wait_until(lambda: heard.last("a/destination_paused"), QUICK)
    send(ct_files[:3], box.port)
    time.sleep(1)
    assert list(box.archive.folder.iterdir()) == []
    tested = give(broker, ops, ops.body("destination.test", {"destination": "pacs"}))
    assert wait_until(lambda: results(heard, tested)[-1:] == ["successful"], QUICK)
    resumed = give(broker, ops, ops.body("queue.resume", {"destination": "pacs"}))
    assert wait_until(lambda: results(heard, resumed)[-1:] == ["successful"], QUICK)
    assert wait_until(lambda: len(list(box.archive.folder.iterdir())) == 3, QUICK)
    assert wait_until(lambda: heard.of("a/destination_paused")[-1] is None, QUICK), "taken back"
    unknown = give(broker, ops, ops.body("destination.test", {"destination": "nowhere"}))
    assert wait_until(lambda: results(heard, unknown)[-1:] == ["failed"], QUICK)
    assert broken(heard.lines()) == []


def test_the_log_level_goes_back_by_itself(commanded, broker, ops, wait_until):
    box, heard = commanded
    given = give(broker, ops, ops.body("log.level", {"level": "warning", "for_s": 1}))
    assert wait_until(lambda: results(heard, given)[-1:] == ["successful"], QUICK)
    assert wait_until(lambda: "log_level_reverted" in box.log(), QUICK)


def test_no_hostile_command_changes_anything_and_each_leaves_a_trace(commanded, broker, ops, eyes, wait_until):
    box, heard = commanded
    stranger = Operator()
    now = int(time.time())
    pause = {"destination": "pacs", "for_s": 600}
    early = ops.body("queue.pause", pause)
    good = give(broker, ops, ops.body("rebirth"))
    assert wait_until(lambda: results(heard, good)[-1:] == ["successful"], QUICK)
    attacks = {
        "bad_signature": lambda b: give(broker, stranger, b),
        "expired": lambda b: give(broker, ops, {**b, "iat": now - 700, "exp": now - 60}),
        "misaddressed": lambda b: give(broker, ops, {**b, "target": "other"}),
        "retained": lambda b: give(broker, ops, b, "-r"),
        "oversized": lambda b: give(broker, ops, b, payload=b"x" * 65400),
        "malformed": lambda b: give(broker, ops, b, payload=b'{"body": "x"}'),
        "wrong_role": lambda b: give(broker, eyes, b),
        "replayed": lambda b: give(broker, ops, early),
    }
    for code, attack in attacks.items():
        attack(ops.body("queue.pause", pause))
        if code == "oversized":
            code = "malformed"
        assert wait_until(lambda c=code: [e for e in heard.of("e/command_rejected") if e["code"] == c], QUICK), code
    give(broker, ops, {"type": "queue.pause", "id": "x/../../y"}, payload=ops.seal(ops.body("reboot")))
    assert wait_until(lambda: heard.last("a/command_rejected"), QUICK)
    assert box.ask("status")["destinations"].get("pacs", {}).get("paused_for_s") == 0.0
    assert [r for line in heard.lines() if "/res/" in line["topic"] for r in [line["payload"]] if "successful" in r]
    done = [json.loads(line["payload"]) for line in heard.lines() if "/res/queue.pause/" in line["topic"]]
    assert {result["status"] for result in done} == {"rejected"}
    assert broken(heard.lines()) == []
    assert "room_broke" not in box.log()


def test_a_command_waits_for_a_box_that_is_away_and_dies_when_its_time_is_over(commanded, broker, ops, wait_until):
    box, heard = commanded
    box.kill()
    late = ops.body("queue.retry")
    broker.publish(topic_of(late), ops.seal(late), "-D", "publish", "message-expiry-interval", "1")
    kept = give(broker, ops, ops.body("rebirth"))
    time.sleep(3)  # mosquitto counts in whole seconds: what lives for one may be handed out for two
    box.start(env={"INVOCATION_ID": "x"})
    assert wait_until(lambda: results(heard, kept)[-1:] == ["successful"], QUICK)
    assert results(heard, late) == []


def test_a_restart_is_told_at_its_end_and_not_done_twice(commanded, broker, ops, wait_until):
    box, heard = commanded
    body = ops.body("service.restart")
    give(broker, ops, body)
    box.process.wait(60)
    box.start(env={"INVOCATION_ID": "x"})
    assert wait_until(lambda: results(heard, body)[-1:] == ["successful"], QUICK)
    give(broker, ops, body)
    assert wait_until(lambda: [e for e in heard.of("e/command_rejected") if e["code"] == "replayed"], QUICK)
    assert box.process.poll() is None


def apply(broker, ops, text, confirm_s=60, **other) -> dict:
    args = {"config": text, "sha256": hashlib.sha256(text.encode()).hexdigest(), "confirm_s": confirm_s, **other}
    return give(broker, ops, ops.body("config.apply", args))


def test_a_configuration_that_works_stays(commanded, broker, ops, wait_until, dimse):
    box, heard = commanded
    text = box.config.read_text() + dimse(box.archive.port, "second")
    given = apply(broker, ops, text)
    assert wait_until(lambda: results(heard, given)[-1:] == ["successful"], 60)
    assert wait_until(lambda: heard.last("dst/second/health"), QUICK)
    assert box.config.read_text() == text
    bad = apply(broker, ops, text + "nonsense = 1\n")
    assert wait_until(lambda: results(heard, bad)[-1:] == ["failed"], QUICK)
    assert box.config.read_text() == text


def test_a_configuration_that_cuts_us_off_goes_back_by_itself(commanded, broker, ops, wait_until):
    box, heard = commanded
    before = box.config.read_text()
    text = before.replace(f"port = {broker.port}", f"port = {free_port()}")
    given = apply(broker, ops, text, confirm_s=2)
    assert wait_until(lambda: "reloaded destinations" in box.log(), QUICK)
    assert wait_until(lambda: results(heard, given)[-1:] == ["failed"], 30)
    assert box.config.read_text() == before
    assert heard.of(f"res/config.apply/{given['id']}")[-1]["code"] == "rolled_back"


def test_a_configuration_that_loses_an_archive_goes_back_even_after_a_crash(commanded, broker, ops, wait_until):
    box, heard = commanded
    before = box.config.read_text()
    text = before.replace(f"port = {box.archive.port}", f"port = {free_port()}")
    given = apply(broker, ops, text, confirm_s=10)
    assert wait_until(lambda: "reloaded destinations" in box.log(), QUICK)
    assert box.config.read_text() == text
    box.kill()
    box.start(env={"INVOCATION_ID": "x"})
    assert wait_until(lambda: results(heard, given)[-1:] == ["failed"], 60)
    assert box.config.read_text() == before


def test_a_configuration_that_the_box_cannot_use_never_stays(commanded, broker, ops, wait_until, dimse, tmp_path):
    box, heard = commanded
    before = box.config.read_text()
    (tmp_path / "no.pem").write_text("no certificate")
    tls = f'tls = {{ ca_file = "{tmp_path}/no.pem" }}\n'
    given = apply(broker, ops, before + dimse(box.archive.port, "second", tls), confirm_s=2)
    assert wait_until(lambda: results(heard, given)[-1:] == ["failed"], 45)
    assert box.config.read_text() == before
    assert "room_broke" not in box.log()


def test_a_box_converges_to_what_is_desired_of_it_once(commanded, broker, ops, wait_until, dimse):
    box, heard = commanded
    text = box.config.read_text() + dimse(box.archive.port, "second")
    document = {"v": 1, "tenant": "default", "target": "gateway", "version": 7, "config": text}
    document["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    broker.publish("gw/v1/default/desired/gateway", ops.seal(document), "-r")
    assert wait_until(lambda: heard.last("e/config_changed"), 30)
    assert box.config.read_text() == text
    box.stop()
    box.config.write_text(text + "# mended by hand\n")
    box.start(env={"INVOCATION_ID": "x"})
    assert wait_until(lambda: heard.last("/session")["state"] == "online", QUICK)
    time.sleep(1)
    assert box.config.read_text().endswith("# mended by hand\n")
    assert len(heard.of("e/config_changed")) == 1
