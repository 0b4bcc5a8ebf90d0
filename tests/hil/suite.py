"""Runs cases one after the other against a target, and writes down what came of each."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway import __version__
from gateway.emulator.exam import Act
from tests.hil.cases import Case, mistakes, scanners
from tests.hil.day import days
from tests.hil.stage import Run, Stage
from tests.hil.target import Target
from tests.hil.thumbnail import Picture, first_picture
from tests.hil.timeline import Point
from tests.hil.trouble import troubles
from tests.hil.verdict import Failed, NotApplicable, Outcome, Result
from tests.hil.world import World

ROOT = Path(__file__).parents[2]


def cases() -> dict[str, Case]:
    """Return every case by its name, in the order in which they are played."""
    return {one.name: one for one in (*scanners(), *mistakes(), *troubles(), *days())}


@dataclass(slots=True)
class Protocol:
    """All that a report tells of one run."""

    kind: str
    rig: str
    place: str
    seed: int
    form: str
    began_at: float
    """Seconds since the epoch."""
    seconds: float = 0.0
    suite: str = ""
    identity: dict[str, Any] = field(default_factory=dict)
    """What the box says of itself by MQTT."""
    strange: int = 0
    results: list[Result] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """True when no case failed, and at least one passed."""
        outcomes = {one.outcome for one in self.results}
        return Outcome.FAILED not in outcomes and Outcome.PASSED in outcomes


def version() -> str:
    """Return which suite this is: version, and commit where there is one."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=ROOT, capture_output=True, text=True
    )
    commit = f", commit {told.stdout.strip()}" if told.returncode == 0 else ""
    return f"{__version__}{commit}; Python {platform.python_version()}, {platform.platform(terse=True)}"


def play(
    target: Target,
    chosen: Sequence[Case],
    folder: Path,
    *,
    seed: int,
    short: bool,
    speed_up: float = 120.0,
    day_speed: float = 0.0,
    told: Callable[[Result], None] = lambda _: None,
) -> Protocol:
    """Play cases one after the other and return what came of them. Raises OSError when a place of the rig is taken,
    and Failed when there is no box."""
    place = target.place
    form = "short" if short else "full"
    protocol = Protocol(target.kind, target.rig.name, f"{place.host}:{place.port}", seed, form, time.time())
    protocol.suite = version()
    with ExitStack() as stack:
        stack.callback(target.stop)
        world = World(target.rig, folder)
        stack.callback(world.stop)
        world.start()
        target.start()
        run = Run(target, world, seed, short, speed_up, day_speed)
        for case in chosen:
            result, stage = _play(run, case, folder)
            protocol.results.append(result)
            _take_pictures(protocol.pictures, stage)
            told(result)
        protocol.strange = len({uid for uid, _ in world.timeline.arrived()} - {uid for uid, _ in run.sent})
        if target.rig.fresh and protocol.strange:
            protocol.results.append(_strange(protocol.strange))
        protocol.points = list(world.timeline.points)
        protocol.identity = (world.heard.last("/birth") if world.heard else None) or {}
    protocol.seconds = time.time() - protocol.began_at
    return protocol


def _strange(count: int) -> Result:
    reason = f"the archive has {count} objects that nobody sent"
    return Result("oracle", "Nothing is made up", "Figures", Outcome.FAILED, reason)


def _play(run: Run, case: Case, folder: Path) -> tuple[Result, Stage]:
    stage = Stage(run, case.name, folder / "cases" / case.name)
    result = Result(case.name, case.title, case.group, Outcome.PASSED, seed=run.seed, plotted=case.plotted)
    line = run.world.timeline
    result.began_s, logged = line.now_s, len(run.target.log()) if run.target.kind == "process" else 0
    try:
        case.play(stage)
        if not stage.sums().fine:
            raise Failed(stage.sums().words())
    except NotApplicable as reason:
        result.outcome, result.reason = Outcome.NOT_APPLICABLE, str(reason)
    except (Failed, OSError, AssertionError) as reason:
        result.outcome, result.reason = Outcome.FAILED, str(reason) or type(reason).__name__
    result.seconds = line.now_s - result.began_s
    stage.settle()
    result.sums, result.figures = stage.sums(), stage.figures
    result.marks, result.urgent = stage.marks, stage.urgent
    result.profiles = tuple(dict.fromkeys(stage.profiles))
    if result.outcome is Outcome.FAILED:
        stage.keep(run.target.log()[logged:])
        result.kept = str(stage.folder)
    else:
        stage.clear()
    return result, stage


def _take_pictures(pictures: list[Picture], stage: Stage) -> None:
    """One picture of what each profile sent, made again from the seed, and shown only if its SHA-256 was sent."""
    shown = {one.profile for one in pictures}
    for work in stage.works:
        plain = not work.quirks and work.act == Act(seed=work.act.seed, **_pace(work.act))
        if plain and work.profile not in shown:
            picture = first_picture(work.profile, work.act, set(stage.sent))
            if picture is not None:
                pictures.append(picture)
                shown.add(work.profile)


def _pace(act: Act) -> dict[str, Any]:
    return {name: getattr(act, name) for name in ("pace", "retry_s", "timeout_s", "limits", "studies")}
