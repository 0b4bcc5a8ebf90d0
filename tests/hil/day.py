"""A clinic's day, compressed: the emulated clinic works around the box, with the archive and the line of the suite."""

from __future__ import annotations

import io
import json
import warnings
from functools import partial
from typing import Any

from gateway.emulator.clinic import Clinic
from gateway.emulator.line import Line
from gateway.emulator.scenario import Target, load
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
            self._stage.safe((told["uid"], told["sha256"]))
        return len(text)


def _day(stage: Stage, name: str) -> None:
    """Nothing is lost, nobody waits, and the backlog drains."""
    place = stage.target.place
    changed: dict[str, Any] = {"speed": stage.run.day_speed} if stage.run.day_speed else {}
    at = Target(host=place.host, port=place.port, ae_title=place.ae_title)
    scenario = load(name, seed=stage.seed % 10_000, target=at, **changed)
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
    for kind, times in told["delivery_s"].items():
        stage.figures |= {f"{kind}_median_s": times["median"], f"{kind}_worst_s": times["worst"]}
    stage.figures |= {
        "studies": sum(one["studies"] for one in told["scanners"]),
        "most_waiting": max((one["acknowledged"] - one["arrived"] for one in told["backlog"]), default=0),
        "speed": scenario.speed,
    }
    if told["never_sent"]:
        raise Failed(f"the archive has what nobody sent, such as {told['never_sent'][0]}")
    if told["not_acknowledged"]:
        raise Failed(f"{told['not_acknowledged']} objects were not acknowledged")
    stage.all_arrive()
    troubles = [one["trouble"] or one["troubles"][0] for one in told["scanners"] if one["trouble"] or one["troubles"]]
    if troubles:
        raise Failed(f"a scanner complains: {troubles[0]}")


def days() -> list[Case]:
    """Return a case for each scenario that is shipped with the emulator."""
    return [
        Case("morning", "A short morning, compressed", "Days", partial(_day, name="morning"), False, True),
        Case("day", "A clinic's day, compressed", "Days", partial(_day, name="day"), False, True),
    ]
