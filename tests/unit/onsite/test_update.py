"""Versions of the image by RAUC's command line, as a script plays it; and what an update is judged by."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli import cli, update_cmd
from gateway.config.load import parse
from gateway.config.schema import Settings
from gateway.model.errors import GatewayError, NotRunning
from gateway.onsite import errand, probation, rauc

FAKE = """#!/bin/sh
here={here}
echo "$@" >>$here/calls
case "$1" in
status)
    case "$2" in
    mark-*) exit 0 ;;
    *) cat $here/status.json ;;
    esac
    ;;
info)
    case "$3" in
    *changed*)
        echo "rauc-Message: Verifying bundle signature..." >&2
        echo "signature verification failed: Verify error: self-signed certificate" >&2
        exit 1 ;;
    esac
    echo '{{"compatible":"box-amd64","version":"2.0","description":null,"build":null,"hooks":[],"images":[]}}' ;;
install)
    case "$2" in
    *forged*)
        echo "installing"
        echo "LastError: signature verification failed: Verify error: self-signed certificate in certificate chain"
        exit 1 ;;
    *foreign*)
        echo " 40% Verifying signature done."
        echo "LastError: Compatible mismatch: Expected 'box-amd64' but bundle manifest has 'other'"
        exit 1 ;;
    *odd*)
        echo "LastError: the moon is full"
        echo idle
        echo "Installing \\`$2\\` failed"
        exit 1 ;;
    *damaged*)
        echo "LastError: Installation error: Failed to copy data: Error reading from file: Input/output error"
        echo idle
        echo "Installing \\`$2\\` failed"
        exit 1 ;;
    esac
    echo " 20% Checking bundle"
    echo "100% Installing done."
    ;;
esac
"""
STATUS = {
    "compatible": "box-amd64",
    "variant": "",
    "booted": "A",
    "boot_primary": "system.0",
    "slots": [
        {
            "system.0": {
                "class": "system",
                "device": "/dev/disk/by-partlabel/system_a",
                "type": "ext4",
                "bootname": "A",
                "state": "booted",
                "parent": None,
                "mountpoint": "/",
                "boot_status": "good",
                "slot_status": {"bundle": {"compatible": "box-amd64", "version": "1.0"}, "status": "ok"},
            }
        },
        {
            "system.1": {
                "class": "system",
                "device": "/dev/disk/by-partlabel/system_b",
                "type": "ext4",
                "bootname": "B",
                "state": "inactive",
                "parent": None,
                "mountpoint": None,
                "boot_status": "good",
            }
        },
    ],
}


class Place:
    """A box with a RAUC that writes down what it was asked."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        self.folder = folder
        tools = folder / "bin"
        tools.mkdir()
        (tools / "rauc").write_text(FAKE.format(here=folder))
        (tools / "rauc").chmod(0o755)
        (tools / "systemctl").write_text(f'#!/bin/sh\necho systemctl "$@" >>{folder}/calls\n')
        (tools / "systemctl").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
        self.say(STATUS)
        self.config = folder / "gateway.toml"
        self.data = folder / "data"
        self.data.mkdir()
        self.config.write_text(
            f'[gateway]\ndata_dir = "{self.data}"\n[update]\nsource = "{folder}/{{version}}.raucb"\n'
        )

    def say(self, status: object) -> None:
        (self.folder / "status.json").write_text(json.dumps(status))

    def run(self, *words: str):
        return CliRunner().invoke(cli, ["--config", str(self.config), *words])

    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def booted(self, bootname: str) -> None:
        status = json.loads(json.dumps(STATUS))
        for entry in status["slots"]:
            for row in entry.values():
                row["state"] = "booted" if row["bootname"] == bootname else "inactive"
        self.say(status)


@pytest.fixture
def place(tmp_path, monkeypatch):
    return Place(tmp_path, monkeypatch)


def test_status_names_both_slots_and_what_starts_next(place):
    outcome = place.run("update", "status")
    assert outcome.exit_code == 0
    assert [row.split() for row in outcome.output.splitlines()[1:3]] == [
        ["A", "1.0", "runs", "starts", "next", "good"],
        ["B", "factory", "good"],
    ]
    assert json.loads(place.run("update", "status", "--json").output)["next"] == "system.0"


def test_without_rauc_the_reason_and_the_other_way_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for words in (["status"], ["install", "x.raucb"], ["rollback"]):
        found = CliRunner().invoke(cli, ["--config", str(tmp_path / "none"), "update", *words]).exception
        assert isinstance(found, GatewayError)
        assert "no RAUC" in str(found)
        assert "apt install" in found.hint


def test_an_installation_writes_down_first_what_must_be_reached_afterwards(place, monkeypatch):
    answers = {"status": {"destinations": {"pacs": {}, "ill": {}}, "mqtt": {"connected": True}}}

    def ask(settings, request):
        if request["do"] == "echo":
            return {"outcome": "accepted" if request["destination"] == "pacs" else "deferred"}
        return answers[request["do"]]

    monkeypatch.setattr(update_cmd, "ask_service", ask)
    outcome = place.run("update", "install", "v2.raucb", "--reboot")
    assert outcome.exit_code == 0, outcome.output
    assert "version 2.0 is installed" in outcome.output
    assert probation.recall(place.data) == probation.Before("B", "2.0", ("pacs",), True)
    assert place.calls()[-2:] == [f"install {Path.cwd()}/v2.raucb", "systemctl reboot"]


@pytest.mark.parametrize(
    ("bundle", "words"),
    [
        ("forged.raucb", "not signed by anybody whom this box trusts"),
        ("changed.raucb", "changed.raucb is not taken: it is not signed by anybody whom this box trusts"),
        ("foreign.raucb", "made for another kind of box"),
        ("signature-odd.raucb", "the moon is full"),
        ("damaged.raucb", "it cannot be read to its end"),
    ],
)
def test_a_bundle_that_rauc_refuses_is_told_in_words_and_nothing_waits_to_be_judged(place, bundle, words):
    outcome = place.run("update", "install", bundle, "--reboot")
    assert words in str(outcome.exception)
    assert "rauc" not in outcome.exception.hint  # nobody has a shell on the box
    assert probation.recall(place.data) is None
    assert "status mark-good booted" not in place.calls()
    assert "systemctl reboot" not in place.calls()


def test_the_one_bundle_on_a_stick_is_found(tmp_path):
    with pytest.raises(rauc.UpdateError, match="there are: none"):
        rauc.on_stick(tmp_path)
    (tmp_path / "v2.raucb").touch()
    assert rauc.on_stick(tmp_path).name == "v2.raucb"
    (tmp_path / "v3.raucb").touch()
    with pytest.raises(rauc.UpdateError, match=r"v2\.raucb, v3\.raucb"):
        rauc.on_stick(tmp_path)


def test_going_back_starts_the_other_slot_unless_it_never_worked(place):
    assert place.run("update", "rollback").exit_code == 0
    assert place.calls()[-1] == "status mark-active other"
    status = json.loads(json.dumps(STATUS))
    status["slots"][1]["system.1"]["boot_status"] = "bad"
    place.say(status)
    assert "is not good" in str(place.run("update", "rollback").exception)


def healthy(request):
    if request["do"] == "status":
        return {"sums_agree": True, "ledger_fault": None, "mqtt": {"connected": True}, "destinations": {"pacs": {}}}
    return {"outcome": "accepted"}


TWO = parse(
    '[[destination]]\nname = "pacs"\nkind = "folder"\npath = "/x"\n[mqtt]\nhost = "localhost"\n', Path("/c.toml")
)
BEFORE = probation.Before("B", "2.0", ("pacs", "removed-since"), True)


def judged(**changes) -> list[str]:
    def ask(request):
        answer = healthy(request)
        return {**answer, **changes.get(request["do"], {})}

    return list(probation.complaints(TWO.settings, BEFORE, ask))


def test_an_update_that_reaches_what_was_reached_has_nothing_against_it():
    assert judged() == []


def test_each_thing_that_worked_before_and_does_not_now_is_named():
    assert "pacs was reached" in judged(echo={"outcome": "deferred"})[0]
    assert "broker was reached" in judged(status={"mqtt": {"connected": False}})[0]
    assert "ledger cannot be written" in judged(status={"ledger_fault": "EIO"})[0]
    assert "sums" in judged(status={"sums_agree": False})[0]


def test_what_was_ill_before_is_not_held_against_the_update():
    ill = probation.Before("B", "2.0", (), False)

    def ask(request):
        return (
            {"outcome": "deferred"} if request["do"] == "echo" else {**healthy(request), "mqtt": {"connected": False}}
        )

    assert list(probation.complaints(TWO.settings, ill, ask)) == []


def test_a_service_that_does_not_answer_is_the_only_complaint():
    def ask(request):
        raise NotRunning("nobody")

    assert len(list(probation.complaints(TWO.settings, BEFORE, ask))) == 1


def test_it_is_looked_again_until_the_time_is_over_and_each_complaint_is_told_once():
    now, told, looks = [0.0], [], iter([["a"], ["a", "b"], []])
    sleep = lambda s: now.__setitem__(0, now[0] + s)  # noqa: E731
    assert probation.judge(lambda: next(looks), told.append, 600, lambda: now[0], sleep)
    assert told == ["a", "b"]
    assert not probation.judge(lambda: ["c"], told.append, 600, lambda: now[0], sleep)
    assert 600 <= now[0] < 700


def test_the_box_answers_itself_whatever_it_thinks_of_strangers(make_box):
    box = make_box(more='[admit]\nunknown_senders = "reject"\n').start()
    listener = Settings.model_validate({"listener": [{"port": box.port, "address": "127.0.0.1"}]}).listener[0]
    assert probation.echo_to_itself(listener, "EDGEGW") == ""
    box.stop()
    assert "refused" in probation.echo_to_itself(listener, "EDGEGW").lower()


def test_a_box_that_works_is_marked_good_by_the_running_service(place, make_box):
    box = make_box().start()
    place.config = box.config
    outcome = place.run("confirm", "--within", "20")
    assert outcome.exit_code == 0, outcome.output
    assert place.calls()[-1] == "status mark-good booted"


def test_an_update_that_fails_is_not_marked_and_left_by_a_restart(place):
    probation.replace_file(place.data / probation.RECORD, json.dumps(asdict(BEFORE)))
    place.booted("B")
    outcome = place.run("confirm", "--within", "0", "--reboot")
    assert outcome.exit_code == 1
    assert place.calls()[-1] == "systemctl reboot"
    assert "status mark-good booted" not in place.calls()


def test_a_box_without_a_configuration_is_good(place):
    place.config.write_text("# nothing yet\n")
    assert place.run("confirm", "--within", "0").exit_code == 0
    assert place.calls()[-1] == "status mark-good booted"


def test_a_box_that_does_not_work_without_an_update_is_not_restarted(place):
    outcome = place.run("confirm", "--within", "0", "--reboot")
    assert outcome.exit_code == 1
    assert "systemctl reboot" not in place.calls()


def test_going_back_is_noticed_and_remembered(place, make_box):
    box = make_box().start()
    place.config, data = box.config, box.folder / "data"
    probation.replace_file(data / probation.RECORD, json.dumps(asdict(BEFORE)))
    outcome = place.run("confirm", "--within", "20", "--reboot")
    assert outcome.exit_code == 0, outcome.output
    assert probation.recall(data) is None
    assert probation.last(data) == {"version": "2.0", "outcome": "went back"}


def test_what_the_service_asks_of_root_is_one_of_five_verbs_and_a_plain_version(tmp_path):
    request = tmp_path / "update.request"
    for content in (
        b"",
        b"[]",
        b'{"verb": "shell", "version": "", "number": "1"}',
        b'{"verb": "install", "version": "../../x", "number": "1"}',
        b'{"verb": "install", "version": "-c/etc/passwd", "number": "1"}',
        b'{"verb": "install", "version": "1", "number": "1", "more": "' + b"x" * 2000 + b'"}',
    ):
        request.write_bytes(content)
        assert errand.receive(request) is None
        assert not request.exists()
    (tmp_path / "secret").write_text('{"verb": "check", "version": "", "number": "1"}')
    request.symlink_to(tmp_path / "secret")
    assert errand.receive(request) is None
    os.mkfifo(request)
    assert errand.receive(request) is None


def obeyed(place, version, monkeypatch) -> str:
    """Let root do an installation that the service asked for; return the answer."""
    monkeypatch.setattr(errand, "REQUEST", place.folder / "update.request")
    monkeypatch.setattr(errand, "ANSWER", place.folder / "answer.json")
    monkeypatch.setattr(update_cmd, "TOLD_S", 0.0)
    errand.REQUEST.write_text(json.dumps({"verb": "install", "version": version, "number": "n1"}))
    place.run("update", "obey")
    return json.loads(errand.ANSWER.read_text())["text"]


def test_another_version_than_the_one_asked_for_is_not_even_written(place, monkeypatch):
    assert obeyed(place, "3.0", monkeypatch) == "the bundle holds version 2.0, not 3.0"
    assert not [call for call in place.calls() if call.startswith(("install", "systemctl"))]


def test_a_command_may_install_from_the_stick_that_stays_plugged_in(place, monkeypatch):
    stick = place.folder / "stick"
    stick.mkdir()
    (stick / "v2.raucb").touch()
    monkeypatch.setattr(update_cmd, "STICKS", (stick,))
    monkeypatch.setattr(update_cmd, "mounted", lambda device, at: contextlib.nullcontext(device))
    place.config.write_text(f'[gateway]\ndata_dir = "{place.data}"\n[update]\nsource = "stick"\n')
    assert obeyed(place, "2.0", monkeypatch) == "version 2.0 installed"
    assert place.calls()[-2:] == [f"install {stick}/v2.raucb", "systemctl reboot"]


def test_a_signed_command_reaches_rauc_by_way_of_root_and_the_answer_comes_back(place, tmp_path, monkeypatch):
    monkeypatch.setattr(errand, "REQUEST", tmp_path / "update.request")
    monkeypatch.setattr(errand, "ANSWER", tmp_path / "answer.json")
    monkeypatch.setattr(update_cmd, "TOLD_S", 0.0)
    said = []

    def ask():
        sent = errand.Errand("install", "2.0", "n1")
        said.append(errand.send(sent, 20))

    thread = threading.Thread(target=ask)
    thread.start()
    for _ in range(200):
        if (tmp_path / "update.request").exists():
            break
        threading.Event().wait(0.05)
    outcome = place.run("update", "obey")
    thread.join(20)
    assert outcome.exit_code == 0, outcome.output
    assert said == ["version 2.0 installed"]
    assert place.calls()[-2:] == [f"install {tmp_path}/2.0.raucb", "systemctl reboot"]
