"""What goes wrong around a box: line, archive, broker, power, clock; and how fast it is, and what it says of itself."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from gateway.emulator.line import Line
from gateway.emulator.objects import Limits
from gateway.emulator.rules import parse
from gateway.model.payloads import NAMES, faults
from tests.hil.cases import Case
from tests.hil.stage import Stage
from tests.hil.verdict import Failed
from tests.hil.world import bad

SMALL = Limits(images=4, side=128)
MORE = Limits(images=12)
OUTAGE_HOURS = 2.0
AT_WORK_S = 120.0
"""A scanner that has not sent anything after so long never will."""
PATIENT_ID = r"EMU[0-9]{8}"
RAISE_S = CLEAR_S = 30.0
"""`destination_ill` must hold for so long before it is told, and be gone for so long before it is cleared."""


def _outage_s(stage: Stage) -> float:
    return 2.0 if stage.short else OUTAGE_HOURS * 3600 / stage.run.speed_up


@contextmanager
def _working(stage: Stage) -> Iterator[None]:
    """While this lasts, and a moment after, two scanners send without a pause; no trouble may keep them waiting."""
    stop, failures = threading.Event(), []
    limits = SMALL if stage.short else MORE

    def work(profile: str) -> None:
        try:
            while not stop.is_set():
                outcome = stage.scan(profile, limits=limits, rounds=3)
                if outcome.acknowledged < len(outcome.sent):
                    failures.append(f"{profile}: {dict(outcome.console.broken)}")
                stop.wait(0.2)
        except (Failed, OSError) as error:
            failures.append(f"{profile}: {error}")

    threads = [threading.Thread(target=work, args=(profile,)) for profile in ("ct", "cr")]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.3)
        yield
        time.sleep(0.3)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if failures:
        raise Failed(f"a scanner was kept waiting: {failures[0]}")


def _out(stage: Stage, outage: AbstractContextManager[None]) -> None:
    """Scanners work on while something is away; then all of it arrives."""
    with _working(stage), outage:
        time.sleep(_outage_s(stage))
        stage.wait_for("anything that waits", lambda: stage.acknowledged - stage.world.known(), AT_WORK_S)
        stage.figures["waiting_at_the_end"] = len(stage.acknowledged - stage.world.known())
    stage.all_acknowledged()
    began = time.monotonic()
    stage.all_arrive()
    stage.figures["drained_s"] = round(time.monotonic() - began, 2)


def _line(stage: Stage, how: Line) -> None:
    _out(stage, bad(stage.world.line, how))


def _archive(stage: Stage) -> None:
    _out(stage, stage.world.no_archive())


def _moody(stage: Stage, rules: tuple[str, ...]) -> None:
    """The archive misbehaves by rule, and gets everything all the same."""
    with stage.world.archive_that(*map(parse, rules)) as archive:
        outcome = stage.scan("ct", limits=SMALL)
        stage.all_acknowledged([outcome])
        stage.all_arrive()
        stage.figures["misbehaved"] = archive.rules.met
        if not archive.rules.met:
            raise Failed("the archive had no occasion to misbehave")


def _broker(stage: Stage) -> None:
    """Images go on without the broker; when it is back the box says anew who and how it is."""
    stage.needs("broker")
    assert stage.world.broker_line is not None and stage.world.heard is not None and stage.rig.broker is not None
    heard = stage.world.heard
    patience_s = stage.rig.broker.interval_s + 60
    stage.wait_for("a session", lambda: heard.last("/session"), patience_s)
    before = heard.last("/session")
    with bad(stage.world.broker_line, Line(refuse=True)):
        stage.all_acknowledged([stage.scan("ct", limits=SMALL)])
        stage.all_arrive()
        time.sleep(_outage_s(stage))

    def again() -> bool:
        now = heard.last("/session")
        return bool(now and before and now["state"] == "online" and now["session"] != before["session"])

    stage.figures["online_again_s"] = stage.wait_for("a new session", again, patience_s)


def _killed(stage: Stage, how: str) -> None:
    """The box goes in the midst of its work and comes back; scanners send again what was not answered."""
    stage.needs(how)
    end, over = threading.Event(), threading.Event()
    limits = Limits(images=6 if stage.short else 40, side=256)

    def fall() -> None:
        stage.wait_for("work", lambda: len(stage.acknowledged) > 2, AT_WORK_S)
        stage.target.kill() if how == "kill" else stage.target.cut_power()
        time.sleep(0.5)
        began = time.monotonic()
        stage.target.restore()
        stage.figures["back_after_s"] = round(time.monotonic() - began, 2)

    def scan(profile: str) -> Any:
        """Studies until the box fell, and one more round than it takes to come back."""
        while not end.is_set():
            stage.scan(profile, limits=limits, rounds=200, retry_s=1.0, timeout_s=10.0, stop=over)

    threads = [threading.Thread(target=scan, args=(profile,)) for profile in ("ct", "mr")]
    for thread in threads:
        thread.start()
    try:
        fall()
    except Failed:
        over.set()
        raise
    finally:
        end.set()
        for thread in threads:
            thread.join()
    stage.all_acknowledged()
    stage.all_arrive()


def _clock(stage: Stage) -> None:
    """Twenty years ahead, a year back, and right again: nothing waits for a date, nothing is lost."""
    stage.needs("clock")
    year_s = 365 * 86400
    try:
        for offset_s in (20 * year_s, -year_s, 0):
            with bad(stage.world.line, Line(refuse=True)):
                stage.all_acknowledged([stage.scan("ct", limits=SMALL)])
                time.sleep(1.0)
                stage.target.set_clock(offset_s)
            stage.all_acknowledged([stage.scan("ct", limits=SMALL)])
            stage.all_arrive()
    finally:
        stage.target.set_clock(0)


def _commitment(stage: Stage) -> None:
    """Scanners ask whether their images are safe, and hear it on the association of their request."""
    stage.needs("commitment")
    for profile in ("ct", "us", "mg") if not stage.short else ("ct",):
        outcome = stage.scan(profile, quirks={"Q20": True}, commitment=True)
        stage.all_acknowledged([outcome])
        missing = {uid for uid, _ in outcome.sent} - outcome.commitments.kept
        if missing:
            raise Failed(f"the box did not commit to {len(missing)} objects that it acknowledged")
    stage.all_arrive()


def _patients(stage: Stage) -> None:
    """An emergency, the same patient again, a retake, a deletion, a study that ends half-way."""
    habits: list[dict[str, float]] = [{"emergency": 1.0}, {"again": 1.0}, {"retake": 1.0}, {"discontinue": 1.0}]
    for told in [*habits, {"retake": 1.0, "delete": 1.0}]:
        outcome = stage.scan("mg", limits=Limits(images=1, side=64), studies=2, **told)
        stage.all_acknowledged([outcome])
    stage.all_arrive()


def _load(stage: Stage) -> None:
    """Four CT scanners at once; what the rig asks for must be reached."""
    limits = Limits(images=4 if stage.short else 60)
    began = time.monotonic()
    works: list[Callable[[], Any]] = [partial(stage.scan, "ct", limits=limits, studies=2) for _ in range(4)]
    outcomes = stage.at_once(*works)
    seconds = time.monotonic() - began
    stage.all_acknowledged(outcomes)
    stage.all_arrive()
    rate = round(len(stage.acknowledged) / seconds, 1)
    stage.figures.update(scanners=4, objects_per_s=rate)
    answers = sorted(stage.answer_s)
    p95, wanted = answers[len(answers) * 95 // 100], stage.rig.limits
    if wanted.objects_per_s > rate:
        raise Failed(f"{rate} objects a second, and {wanted.objects_per_s:g} are asked for")
    if wanted.ack_p95_s and wanted.ack_p95_s < p95:
        raise Failed(f"one answer in twenty took {p95:.2f} s or more, and {wanted.ack_p95_s:g} s are asked for")


def _health(stage: Stage) -> None:
    """By MQTT: who the box is, how it is, sums that grow by what was acknowledged; every message fits its schema, and
    none names a patient."""
    stage.needs("broker")
    assert stage.world.heard is not None and stage.rig.broker is not None
    heard, patience_s = stage.world.heard, stage.rig.broker.interval_s * 2 + 30
    own = f"/{stage.rig.box.mqtt_id}/health"
    count = len(heard.of(own))  # a message from before may not know of everything yet
    stage.wait_for("birth and health", lambda: heard.last("/birth") and len(heard.of(own)) > count, patience_s)
    before = (heard.last(own) or {})["sums"]["accepted"]
    stage.all_acknowledged([stage.scan("ct", limits=SMALL), stage.scan("us", limits=SMALL)])
    stage.all_arrive()

    def told() -> bool:
        sums = (heard.last(own) or {})["sums"]
        return bool(sums["agree"] and sums["accepted"] >= before + len(stage.acknowledged))

    stage.figures["sums_told_s"] = stage.wait_for("the sums of what was acknowledged", told, patience_s)
    _well_formed(stage)


def _well_formed(stage: Stage) -> None:
    assert stage.world.heard is not None
    lines = [line for line in stage.world.heard.lines() if line["payload"] and "/cmd/" not in line["topic"]]
    for line in lines:
        parts = line["topic"].split("/")[4:]
        name = parts[0] if parts[0] in NAMES else ""
        wrong = faults(name, json.loads(line["payload"])) if name else ["no schema"]
        if wrong:
            raise Failed(f"a message on {'/'.join(parts)} does not fit its schema: {wrong[0]}")
    text = stage.world.heard.text()
    named = [uid for uid, _ in stage.run.sent if uid in text]
    if named or re.search(PATIENT_ID, text):
        raise Failed("a message names a patient or an object")
    stage.figures["messages"] = len(lines)


def _alarm(stage: Stage) -> None:
    """A destination that does not answer is told as an alarm in time, and cleared in time."""
    stage.needs("broker")
    assert stage.world.heard is not None and stage.rig.broker is not None
    heard, most_s = stage.world.heard, stage.rig.broker.interval_s + 30
    with bad(stage.world.line, Line(refuse=True)):
        stage.all_acknowledged([stage.scan("ct", limits=SMALL)])
        raised = stage.wait_for("the alarm destination_ill", lambda: heard.last("a/destination_ill"), RAISE_S + most_s)
    stage.all_arrive()
    cleared = stage.wait_for("its end", lambda: heard.last("a/destination_ill") is None, CLEAR_S + most_s)
    stage.figures.update(raised_s=raised, cleared_s=cleared)


MOODS = {
    "archive-busy": ("an archive that is full for a while (0xA700)", ("do=busy count=4",)),
    "archive-drops": ("an archive that breaks off within objects", ("on=inside do=reset every=3 count=3",)),
    "archive-mute": ("an archive that keeps and does not answer", ("on=stored do=reset count=2",)),
    "archive-slow": ("an archive that takes its time", ("do=slow seconds=0.2",)),
}


def troubles() -> list[Case]:
    """Return the cases of this file."""
    of = "Trouble"
    moods = [Case(n, f"Gets all to {t}", of, partial(_moody, rules=r), short=False) for n, (t, r) in MOODS.items()]
    return [
        Case("line-outage", "The line is out", of, partial(_line, how=Line(refuse=True)), plotted=True),
        Case("line-hole", "The line swallows", of, partial(_line, how=Line(black_hole=True)), False, True),
        Case("archive-outage", "The archive is off", of, _archive, False, True),
        *moods,
        Case("broker-outage", "The broker is away", of, _broker, short=False),
        Case("kill", "The service is killed at work", of, partial(_killed, how="kill"), False, True),
        Case("power-cut", "The plug is pulled at work", of, partial(_killed, how="power"), False, True),
        Case("clock-jump", "The clock jumps by years", of, _clock, short=False),
        Case("commitment", "Storage commitment", "Services", _commitment, short=False),
        Case("patients", "Emergencies, retakes, deletions", "Services", _patients, short=False),
        Case("health", "Tells who and how it is", "Health", _health),
        Case("alarm", "Raises an alarm in time", "Health", _alarm, short=False),
        Case("load", "Throughput and latency", "Figures", _load, plotted=True),
    ]
