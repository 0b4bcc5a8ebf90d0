"""Taken once, answered always, whatever happens to the box in between."""

from __future__ import annotations

import threading

import pytest

from gateway.health.commands import PER_MINUTE, WAITING, Commands, Done
from gateway.health.messages import Speaker
from gateway.health.mqtt import Incoming
from gateway.health.replay import KEPT, ReplayStore
from tests.conftest import until
from tests.operator import Operator


class Bench:
    """A box's commands without a box."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.ops, self.eyes = Operator(), Operator("eyes", "viewer")
        self.keyring = folder / "keyring.toml"
        self.keyring.write_text(self.ops.entry() + self.eyes.entry())
        self.keyring.chmod(0o600)
        self.did, self.noted, self.trying = [], [], False
        self.restart()

    def restart(self) -> None:
        self.told = []
        store = ReplayStore(self.folder / "commands.json")
        deeds = {
            verb: (lambda _, args, v=verb: self._do(v, args)) for verb in ("queue.retry", "rebirth", "service.restart")
        }
        note = lambda *facts: self.noted.append(facts)  # noqa: E731
        self.commands = Commands(
            Speaker("default", "gateway"), self.keyring, store, deeds, self.told.append, note, lambda: self.trying
        )

    def _do(self, verb, args):
        self.did.append((verb, dict(args)))
        return Done(True, "done", later=verb == "service.restart")

    def hears(self, body, by=None, retained=False) -> None:
        payload = (by or self.ops).seal(body)
        topic = f"gw/v1/default/gateway/cmd/{body['type']}/{body['id']}"
        self.commands.hear(Incoming(topic, payload, retained))

    def works(self) -> None:
        stop = threading.Event()
        worker = threading.Thread(target=self.commands.run, args=(stop, lambda: None))
        worker.start()
        until(self.commands._waiting.empty)
        stop.set()
        worker.join(30)

    def results(self):
        return [m.body["status"] for m in self.told if m.schema == "res"]

    def codes(self):
        return [m.body["code"] for m in self.told if m.schema == "res"]

    def rejected(self):
        return [m.body["code"] for m in self.told if m.topic.endswith("e/command_rejected")]


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_a_command_goes_through_its_states(bench):
    bench.hears(bench.ops.body("queue.retry", {"destination": "pacs"}))
    bench.works()
    assert bench.did == [("queue.retry", {"destination": "pacs"})]
    assert bench.results() == ["accepted", "executing", "successful"]
    assert [m.body["event"] for m in bench.told if m.schema == "e"] == ["command_accepted", "command_done"]


def test_the_same_again_is_answered_and_not_done_again_also_after_a_restart(bench):
    body = bench.ops.body("rebirth")
    bench.hears(body)
    bench.works()
    bench.restart()
    bench.hears(body)
    bench.works()
    assert len(bench.did) == 1
    assert bench.results() == ["successful"]
    assert bench.rejected() == ["replayed"]


def test_an_old_number_is_refused_also_after_a_restart(bench):
    early, late = bench.ops.body("rebirth"), bench.ops.body("rebirth")
    bench.hears(late)
    bench.works()
    bench.restart()
    bench.hears(early)
    bench.works()
    assert len(bench.did) == 1
    assert bench.codes() == ["replayed"]
    assert bench.noted


def test_an_id_is_not_taken_for_another_command(bench):
    first = bench.ops.body("rebirth")
    bench.hears(first)
    bench.hears(bench.ops.body("queue.retry", id=first["id"]))
    bench.works()
    assert [verb for verb, _ in bench.did] == ["rebirth"]
    assert bench.rejected() == ["replayed"]


def test_numbers_are_counted_per_key(bench):
    for _ in range(3):
        bench.hears(bench.ops.body("rebirth"))
    bench.hears(bench.eyes.body("rebirth"), bench.eyes)
    bench.works()
    assert len(bench.did) == 4


def test_the_number_outlives_the_result(bench):
    store = ReplayStore(bench.folder / "commands.json")
    first = None
    for number in range(KEPT + 5):
        from gateway.health.envelope import Command

        taken = Command(f"id{number}", "rebirth", {}, "ops-1", number + 1, "d")
        first = first or taken
        store.take(taken)
    assert store.known("id0") is None
    assert not store.fresh(first)
    assert not ReplayStore(bench.folder / "commands.json").fresh(first)


def test_what_cannot_be_written_down_is_not_done(bench):
    (bench.folder / ".commands.json.part").mkdir()
    bench.hears(bench.ops.body("rebirth"))
    bench.works()
    assert bench.did == []
    assert bench.codes() == ["replay_unsafe"]


def test_a_broken_memory_takes_no_command(bench):
    (bench.folder / "commands.json").write_text('{"seqs": 5}')
    bench.restart()
    bench.hears(bench.ops.body("rebirth"))
    bench.works()
    assert bench.did == []
    assert bench.codes() == ["replay_unsafe"]


def test_what_the_box_cannot_do_is_said_so(bench):
    bench.hears(bench.ops.body("reboot"))
    assert bench.codes() == ["not_supported"]
    assert "reboot" not in bench.commands.capabilities
    assert bench.commands.capabilities["queue.retry"] == ["operator", "admin"]


def test_a_restart_in_the_middle_is_told(bench):
    bench.hears(bench.ops.body("queue.retry"))
    bench.restart()
    bench.works()
    assert bench.did == []
    assert bench.codes() == ["interrupted"]


def test_the_end_of_a_restart_is_told_by_the_next_life(bench):
    bench.hears(bench.ops.body("service.restart"))
    bench.works()
    assert bench.results() == ["accepted", "executing"]
    bench.restart()
    bench.works()
    assert bench.results() == ["successful"]
    assert len(bench.did) == 1


def test_too_many_are_refused(bench):
    for _ in range(WAITING + 1):
        bench.hears(bench.ops.body("rebirth"))
    assert bench.rejected() == ["busy"]
    bench.works()
    assert PER_MINUTE < 2 * WAITING
    for _ in range(WAITING):
        bench.hears(bench.ops.body("rebirth"))
    assert "too_many" in bench.rejected()


def test_a_revoked_key_is_out_at_once(bench):
    bench.keyring.write_text(bench.ops.entry(revoked=True))
    bench.hears(bench.ops.body("rebirth"))
    assert bench.rejected() == ["unknown_key"]
    assert bench.results() == []


def test_a_flood_of_forgeries_is_not_a_flood_of_events(bench):
    stranger = Operator()
    for _ in range(200):
        bench.hears(stranger.body("rebirth"), stranger)
    assert len(bench.told) <= 30


def desired(bench, by=None, **other):
    document = {"v": 1, "tenant": "default", "target": "gateway", "version": 1, **other}
    payload = (by or bench.ops).seal(document)
    bench.commands.hear(Incoming("gw/v1/default/desired/gateway", payload, True))


def test_a_desired_state_is_taken_once_and_never_an_older_one(bench):
    applied = []
    bench.commands._deeds = {"config.apply": lambda _, args: applied.append(args["config"]) or Done(True, later=True)}
    desired(bench, version=5, config="new", sha256="0" * 64)
    desired(bench, version=5, config="again", sha256="0" * 64)
    desired(bench, version=4, config="old", sha256="0" * 64)
    assert applied == ["new"]


def test_a_desired_state_that_finds_a_trial_going_on_is_not_forgotten(bench):
    applied = []
    bench.commands._deeds = {"config.apply": lambda _, args: applied.append(args["config"]) or Done(True, later=True)}
    bench.trying = True
    desired(bench, version=5, config="new", sha256="0" * 64)
    assert applied == []
    bench.trying = False
    desired(bench, version=5, config="new", sha256="0" * 64)
    assert applied == ["new"]


def test_a_desired_state_of_a_stranger_a_viewer_or_for_another_box_changes_nothing(bench):
    bench.commands._deeds = {"config.apply": lambda _, args: pytest.fail("applied")}
    config = {"config": "new", "sha256": "0" * 64}
    desired(bench, Operator(), **config)
    desired(bench, bench.eyes, **config)
    desired(bench, target="other", **config)
    desired(bench, config="no sum")
    assert bench.rejected() == ["bad_signature", "wrong_role", "misaddressed", "malformed"]
