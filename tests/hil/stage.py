"""What a case is given: scanners to send with, an archive and lines to trouble, an oracle that it answers to."""

from __future__ import annotations

import csv
import hashlib
import json
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from gateway.emulator.exam import Act, Outcome, Places, Scanner
from gateway.emulator.objects import Limits
from gateway.emulator.profile import load
from gateway.emulator.sender import Sent
from gateway.emulator.urgent import Urgent
from tests.conftest import until
from tests.hil.target import Target
from tests.hil.verdict import Failed, NotApplicable, Object, Span, Sums, judge
from tests.hil.world import World

SHORT = Limits(images=2, frames=3, side=64)
FULL = Limits(images=12, frames=16)
"""Per series, in its real size; what takes hours in a clinic shall not take hours here."""


@dataclass(slots=True)
class Work:
    """One scanner's work, as it can be repeated."""

    profile: str
    quirks: dict[str, Any]
    act: Act


@dataclass(slots=True)
class Run:
    """What all cases of one run share."""

    target: Target
    world: World
    seed: int
    short: bool
    speed_up: float = 120.0
    """An hour of trouble takes so many times less."""
    day_speed: float = 0.0
    """A clinic's day passes so many times as fast; 0 leaves it to the scenario."""
    sent: set[Object] = field(default_factory=set)
    """By all cases."""


class Stage:
    """One case under way."""

    def __init__(self, run: Run, name: str, folder: Path) -> None:
        self.run, self.name, self.folder = run, name, folder
        self.target, self.world, self.rig, self.short = run.target, run.world, run.target.rig, run.short
        self.limits = SHORT if run.short else FULL
        self.figures: dict[str, float | int | str] = {}
        self.marks: list[Span] = []
        self.urgent: list[Urgent] = []
        self.seed = self._number(f"{run.seed}/{name}")
        self.works: list[Work] = []
        self.profiles: list[str] = []
        self.sent: dict[Object, int] = {}
        """The last status of each object, -1 without one; `acknowledged` has what ever was."""
        self.acknowledged: set[Object] = set()
        self.answer_s: list[float] = []
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self._log = open(folder / "sent.jsonl", "w")  # noqa: SIM115 (closed by settle)

    @staticmethod
    def _number(text: str) -> int:
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:5], "big")

    # What a case does

    def scan(
        self,
        profile: str,
        *,
        limits: Limits | None = None,
        quirks: dict[str, Any] | None = None,
        commitment: bool = False,
        folder: Path | None = None,
        places: Places | None = None,
        stop: threading.Event | None = None,
        **act: Any,
    ) -> Outcome:
        """Let a scanner work against the box; return what it knows."""
        place = self.target.place
        where = places or Places(place, commitment=place if commitment else None, folder=folder)
        with self._lock:
            seed = self._number(f"{self.seed}/{profile}/{len(self.works)}")
            told = {"pace": 0, "retry_s": 0.2, "timeout_s": 30.0, "limits": limits or self.limits, **act}
            work = Work(profile, quirks or {}, Act(seed=seed, **told))
            self.works.append(work)
            self.profiles.append(profile)
        with warnings.catch_warnings(action="ignore"):
            return Scanner(load(profile, work.quirks), where, work.act, self._told, stop=stop).run()

    def _told(self, sent: Sent) -> None:
        """A scanner knows more of an object."""
        one = (sent.sop_instance_uid, sent.sha256)
        with self._lock:
            self.sent[one] = sent.status
            self.run.sent.add(one)
            self._log.write(json.dumps({**asdict(sent), "at_s": round(time.time(), 3)}) + "\n")
        if sent.acknowledged:
            self.safe(one, sent.seconds)

    def safe(self, one: Object, answer_s: float) -> None:
        """A scanner was told after so long that an object is safe: this stands outside the box."""
        with self._lock:
            self.answer_s.append(answer_s)
            self.sent.setdefault(one, 0)
            self.run.sent.add(one)
            self.acknowledged.add(one)
        self.world.timeline.acknowledged(one)

    def at_once(self, *works: Callable[[], Outcome]) -> list[Outcome]:
        """Let several scanners work at the same time; return what each knows."""
        with ThreadPoolExecutor(len(works)) as pool:
            return list(pool.map(lambda work: work(), works))

    def all_acknowledged(self, outcomes: Sequence[Outcome] = ()) -> None:
        """Fail unless every object of the case was acknowledged, and what else the scanners did went well."""
        refused = [one for one in self.sent if one not in self.acknowledged]
        if refused or not self.sent:
            statuses = sorted({_status(self.sent[one]) for one in refused})
            raise Failed(f"{len(refused)} of {len(self.sent)} objects were not acknowledged: {', '.join(statuses)}")
        troubles = [trouble for one in outcomes for trouble in one.troubles]
        if troubles:
            raise Failed(f"a scanner complains: {'; '.join(troubles[:3])}")

    def all_arrive(self, within_s: float | None = None) -> None:
        """Fail unless everything acknowledged is with the archive, byte for byte, before the patience is over."""
        until(lambda: self.acknowledged <= self.world.known(), within_s or self.rig.box.patience_s)
        wrong = self.sums().words()
        if wrong:
            raise Failed(wrong)

    def needs(self, what: str) -> None:
        """Not applicable unless the target can do it. Fail when the rig names a broker that does not answer us."""
        lacking = self.target.why_not(what)
        if lacking:
            raise NotApplicable(lacking)
        if what == "broker" and (deaf := self.world.deaf()):
            raise Failed(deaf)

    def wait_for(self, what: str, condition: Callable[[], Any], within_s: float) -> float:
        """Wait until a condition holds; return how long it took, in seconds. Fail with `what` was awaited."""
        began = time.monotonic()
        if not until(condition, within_s):
            raise Failed(f"{what} did not come within {within_s:g} s")
        return round(time.monotonic() - began, 2)

    # What is found out afterwards

    def sums(self) -> Sums:
        """Compare what scanners were told with what the archive has, as of now."""
        return judge(set(self.sent), self.acknowledged, self.world.known(), self.run.sent | self.world.before)

    def settle(self) -> None:
        """The case is over: write down how fast it was."""
        line, quick = self.world.timeline, sorted(self.answer_s)
        later = sorted(line.archived_at[one] - line.acknowledged_at[one] for one in self.acknowledged & line.arrived())
        for name, values in (("answer", quick), ("to_archive", later)):
            if values:
                self.figures[f"{name}_p50_s"] = round(max(0.0, values[len(values) // 2]), 4)
                self.figures[f"{name}_p95_s"] = round(max(0.0, values[len(values) * 95 // 100]), 4)
        self._log.close()

    def clear(self) -> None:
        """The case has passed: forget the files that came."""
        for _, digest in self.acknowledged:
            (self.world.kept / f"{digest[:32]}.dcm").unlink(missing_ok=True)

    def keep(self, log: str) -> None:
        """The case has failed: lay side by side what was sent, what the box logged and what the archive got."""
        (self.folder / "box.log").write_text(log)
        got = self.folder / "archive"
        got.mkdir(exist_ok=True)
        uids = {uid for uid, _ in self.sent}
        arrived: dict[str, list[str]] = {}
        for one in [one for one in list(self.world.shelf.received) if one.sop_instance_uid in uids]:
            arrived.setdefault(one.sop_instance_uid, []).append(f"0x{one.status:04X} {one.sha256}")
            path = self.world.kept / f"{one.sha256[:32]}.dcm"
            if path.exists():
                path.rename(got / path.name)
        with open(self.folder / "side-by-side.csv", "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("sop_instance_uid", "scanner_was_told", "sha256_sent", "archive_answered_and_got"))
            for (uid, digest), status in self.sent.items():
                rows.writerow((uid, _status(status), digest, "; ".join(arrived.get(uid, ["nothing"]))))
        self._make_again(self.folder / "sent")

    def _make_again(self, folder: Path) -> None:
        """Write what the scanners sent as files: a seed gives the same objects again."""
        folder.mkdir(exist_ok=True)
        for work in self.works:
            with warnings.catch_warnings(action="ignore"):
                quirks = {name: told for name, told in work.quirks.items() if name != "endless"}
                act = replace(work.act, rounds=1, pace=0)
                Scanner(load(work.profile, quirks), Places(folder=folder), act).run()


def _status(status: int) -> str:
    return "no answer" if status < 0 else f"0x{status:04X}"
