"""A clinic's day, compressed: the emulated clinic works around the box, with the archive and the line of the suite."""

from __future__ import annotations

import io
import json
import warnings
from functools import partial
from math import ceil, inf
from statistics import median
from typing import Any

from gateway.emulator.clinic import Clinic
from gateway.emulator.line import Line
from gateway.emulator.scenario import Scenario, Target, load
from tests.hil.cases import Case
from tests.hil.stage import Stage
from tests.hil.verdict import Failed


class _Ear(io.StringIO):
    """Hears each line that the clinic writes down: what a scanner was told is safe."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self._stage = stage

    def write(self, text: str) -> int:
        told = json.loads(text)
        if "acknowledged_at_s" in told:
            self._stage.safe((told["uid"], told["sha256"]), told["seconds"])
        return len(text)


def _tenth(scenario: Scenario) -> Scenario:
    """The first tenth of a day, as fast as the whole one: a tenth of the patients, and outages that last a tenth."""
    scanners = [one.model_copy(update={"studies": ceil(one.studies / 10)}) for one in scenario.scanner]
    outages = [
        one.model_copy(update={"from_min": one.from_min / 10, "for_min": one.for_min / 10}) for one in scenario.outage
    ]
    return scenario.model_copy(update={"scanner": scanners, "outage": outages})


STAT_WITHIN = 2.0
"""On the whole day, an emergency's study takes at most so many times as long as by the line alone."""


def _hastened(stage: Stage, within: float) -> None:
    """Write down how fast the emergencies were. Fail when one took longer than the line is to blame for."""
    studies = stage.urgent
    stage.figures["stat_studies"] = len(studies)
    if not studies:
        return
    stage.figures["stat_in_outage"] = sum(one.outage_s > 0 for one in studies)
    for name in ("after_last", "from_first"):
        ratios = sorted(getattr(one, name) for one in studies)
        stage.figures[f"stat_{name}_p50"] = round(median(ratios), 2)
        stage.figures[f"stat_{name}_worst"] = round(ratios[-1], 2)
    worst = max(studies, key=lambda one: max(one.after_last, one.from_first))
    stage.figures["stat_waited_worst_s"] = round(max(one.waited_s for one in studies), 2)
    if max(worst.after_last, worst.from_first) > within:
        raise Failed(
            f"an emergency's study of {worst.objects} objects waited {worst.waited_s:.2f} s after its last and took "
            f"{worst.took_s:.2f} s from its first; the line alone needs {worst.bare_s:.2f} and {worst.alone_s:.2f} s, "
            f"and {within:g} times as much is allowed"
        )


def _memory(stage: Stage, since: int) -> None:
    """What the box said by MQTT that it holds of the memory: at most, and in the end."""
    if stage.world.heard is not None:
        told = stage.world.heard.of(f"/{stage.rig.box.mqtt_id}/health")[since:]
        held = [one["rss_bytes"] for one in told if one and one["rss_bytes"] is not None]
        if held:
            stage.figures |= {"memory_peak_mb": round(max(held) / 1e6), "memory_last_mb": round(held[-1] / 1e6)}


def _day(stage: Stage, name: str, stat_within: float = inf) -> None:
    """Nothing is lost, no scanner waits, emergencies go first, and the backlog drains."""
    heard = len(stage.world.heard.of(f"/{stage.rig.box.mqtt_id}/health")) if stage.world.heard else 0
    place = stage.target.place
    changed: dict[str, Any] = {"speed": stage.run.day_speed} if stage.run.day_speed else {}
    at = Target(host=place.host, port=place.port, ae_title=place.ae_title)
    scenario = load(name, seed=stage.seed % 10_000, target=at, **changed)
    if stage.short:
        scenario = _tenth(scenario)
    clinic = Clinic(scenario, _Ear(stage), around=(stage.world.archive, stage.world.line))
    if scenario.line is not None:
        stage.world.line.set_line(Line(**scenario.line.model_dump(exclude={"port"}), seed=scenario.seed))
    try:
        clinic.open()
        with warnings.catch_warnings(action="ignore"):
            told = clinic.run()
    finally:
        clinic.close()
        stage.world.line.set_line(Line())
    stage.profiles.extend(one.profile for one in scenario.scanner)
    began_at = stage.world.timeline.began_at
    stage.marks += [(f"no {of}", begin_s - began_at, end_s - began_at) for of, (begin_s, end_s) in clinic.outages]
    for kind, times in told["delivery_s"].items():
        stage.figures |= {f"{kind}_median_s": times["median"], f"{kind}_worst_s": times["worst"]}
    stage.figures |= {
        "studies": sum(one["studies"] for one in told["scanners"]),
        "most_waiting": max((one["acknowledged"] - one["arrived"] for one in told["backlog"]), default=0),
        "scanned_s": told["scanned_s"],
        "drained_s": round(told["seconds"] - told["scanned_s"], 1),
        "speed": scenario.speed,
    }
    _memory(stage, heard)
    if told["never_sent"]:
        raise Failed(f"the archive has what nobody sent, such as {told['never_sent'][0]}")
    if told["not_acknowledged"]:
        raise Failed(f"{told['not_acknowledged']} objects were not acknowledged")
    stage.all_arrive()
    stage.urgent += clinic.urgent()
    _hastened(stage, stat_within)
    troubles = [one["trouble"] or one["troubles"][0] for one in told["scanners"] if one["trouble"] or one["troubles"]]
    if troubles:
        raise Failed(f"a scanner complains: {troubles[0]}")


def days() -> list[Case]:
    """Return a case for each scenario that is shipped with the emulator."""
    return [
        Case("morning", "A short morning, compressed", "Days", partial(_day, name="morning"), False, True),
        Case(
            "day", "A clinic's day, compressed", "Days", partial(_day, name="day", stat_within=STAT_WITHIN), False, True
        ),
    ]
