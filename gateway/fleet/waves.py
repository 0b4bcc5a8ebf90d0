"""Roll-out: which boxes of a wave run its version, are on their way, failed or went back; whether to go on. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from gateway.fleet.box import Box, Presence
from gateway.fleet.settings import WaveSettings
from gateway.model.health import Status


class Stage(StrEnum):
    """How far a box is on its way to the version of its wave."""

    WAITING = "waiting"
    """It runs another version and nobody began."""
    IN_PROGRESS = "in_progress"
    """It installs or restarts, or runs the new version for less than `settle_s`."""
    DONE = "done"
    FAILED = "failed"
    """It does not install, does not come back, or is not well on the new version after `settle_s`."""
    ROLLED_BACK = "rolled_back"
    """It runs again what it ran before the new version."""


BEGUN = (Stage.IN_PROGRESS, Stage.DONE, Stage.FAILED, Stage.ROLLED_BACK)


@dataclass(frozen=True, slots=True)
class Progress:
    """One wave."""

    name: str
    version: str
    abort_percent: float
    boxes: tuple[tuple[Box, Stage], ...]

    def count(self, stage: Stage) -> int:
        """Return how many boxes are there."""
        return sum(1 for _, found in self.boxes if found is stage)

    @property
    def failed_percent(self) -> float:
        """Return how many of the boxes that began have failed or gone back, 0 before any began."""
        stages = Counter(stage for _, stage in self.boxes)
        begun = sum(stages[stage] for stage in BEGUN)
        return 100.0 * (stages[Stage.FAILED] + stages[Stage.ROLLED_BACK]) / begun if begun else 0.0

    @property
    def abort(self) -> bool:
        """True when more failed than the wave allows: give no further box this version."""
        return self.failed_percent > self.abort_percent

    @property
    def state(self) -> str:
        """Return the wave in one word."""
        if self.abort:
            return "abort"
        if self.boxes and self.count(Stage.DONE) == len(self.boxes):
            return "done"
        return "in progress" if any(stage in BEGUN for _, stage in self.boxes) else "waiting"


def stage_of(box: Box, wave: WaveSettings, wall: float) -> Stage:
    """Return where a box is; `wall` is our clock."""
    if not box.versions or box.versions[-1] != wave.version:
        if wave.version in box.versions:
            before = box.versions[: box.versions.index(wave.version)]
            return Stage.ROLLED_BACK if box.versions[-1] in before else Stage.WAITING
        if box.update in ("failed", "rejected"):
            return Stage.FAILED
        restarts = box.goodbye is not None and box.goodbye.reason == "update"
        if not restarts and not box.update:
            return Stage.WAITING
        began_at = box.since if restarts else box.update_at
        return Stage.FAILED if wall - began_at > wave.settle_s else Stage.IN_PROGRESS
    settled = wall - box.version_at >= wave.settle_s
    well = box.presence is Presence.ONLINE and box.health is not None and box.health.status is not Status.CRITICAL
    if well:
        return Stage.DONE if settled else Stage.IN_PROGRESS
    return Stage.FAILED if settled else Stage.IN_PROGRESS


def progress_of(waves: Sequence[WaveSettings], boxes: Iterable[Box], wall: float) -> list[Progress]:
    """Return every wave; a box belongs to the first that names it."""
    members: dict[str, list[tuple[Box, Stage]]] = {wave.name: [] for wave in waves}
    if waves:
        for box in boxes:
            wave = next((wave for wave in waves if _names(wave, box)), None)
            if wave is not None:
                members[wave.name].append((box, stage_of(box, wave, wall)))
    return [Progress(wave.name, wave.version, wave.abort_percent, tuple(members[wave.name])) for wave in waves]


def _names(wave: WaveSettings, box: Box) -> bool:
    return wave.tenant in (None, box.tenant) and any(fnmatchcase(box.name, pattern) for pattern in wave.boxes)
