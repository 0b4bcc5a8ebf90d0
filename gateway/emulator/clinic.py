"""A whole clinic around one box: scanners, a RIS, an archive behind a line, outages; and the sum of what was promised
against what arrived, written down outside the box."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, TextIO

from gateway.emulator.exam import Act, Outcome, Places, Scanner
from gateway.emulator.line import Line
from gateway.emulator.link import Over
from gateway.emulator.objects import Limits
from gateway.emulator.orders import Order, scheduled_day
from gateway.emulator.pacs import Commits, Pacs
from gateway.emulator.profile import Profile, load
from gateway.emulator.ris import Ris
from gateway.emulator.scenario import Outage, ScannerSettings, Scenario
from gateway.emulator.sender import Sent
from gateway.emulator.services import Peer
from gateway.emulator.shelf import Received, Shelf
from gateway.emulator.shipped import ProfileError
from gateway.emulator.stow import Stow
from gateway.emulator.urgent import Passed, Span, Urgent, urgent
from gateway.emulator.wan import Wan

NAMED = 20
"""So many missing instances are named."""
SAMPLES = 400
"""So many points of the backlog are kept, at most."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the clinic is found, by whoever configures the box."""

    archive: int
    line: int | None
    ris: int | None
    web: str | None

    @property
    def destination(self) -> int:
        """Where the box has to deliver."""
        return self.line if self.line is not None else self.archive


@dataclass(slots=True)
class _Cast:
    """One scanner of the cast, and what came of it."""

    title: str
    settings: ScannerSettings
    profile: Profile
    act: Act
    outcome: Outcome | None = None
    trouble: str = ""
    sent_at_s: dict[tuple[str, str], float] = field(default_factory=dict)
    """When an object was acknowledged, seconds since the epoch."""


class Clinic:
    """Listens after `open`, works through one day in `run`, until `close`. Raises ProfileError and OSError."""

    def __init__(self, scenario: Scenario, log: TextIO | None = None, around: tuple[Pacs, Wan] | None = None) -> None:
        """`log` gets a JSON line for each object that a scanner was told is stored, and each that came. `around` are an
        archive and a line that are there already: the scenario's own are left out, and these go on afterwards."""
        self._scenario, self._log = scenario, log
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self.stop = threading.Event()
        """Ends the day early."""
        self._cast = [one for settings in scenario.scanner for one in self._casted(settings)]
        self._archive: Pacs | None = around[0] if around else None
        self._wan: Wan | None = around[1] if around else None
        self._shelf = self._archive.shelf if self._archive is not None else Shelf(log=log)
        self._before = len(self._shelf.received)
        """What came earlier is not of this day."""
        self._ris: Ris | None = None
        self._samples: list[tuple[float, int, int]] = []
        self._acknowledged = 0
        self.outages: list[tuple[str, Span]] = []
        """What was away, and when."""

    def _casted(self, settings: ScannerSettings) -> list[_Cast]:
        profile = load(settings.profile, settings.quirks)
        made = []
        for number in range(1, settings.number + 1):
            title = settings.ae_title or profile.network.ae_title
            title = f"{title[:14]}{number}" if settings.number > 1 else title
            # A quirk such as Q1 takes the title away on the wire; the clinic knows the scanner by it all the same.
            shown = profile.network.ae_title and title
            mine = profile.model_copy(update={"network": profile.network.model_copy(update={"ae_title": shown})})
            limits = Limits(settings.images, settings.frames, settings.series, settings.side)
            act = Act(
                studies=settings.studies,
                seed=self._scenario.seed * 100_000 + sum(map(ord, title)) * 100,
                limits=limits,
                pace=1 / self._scenario.speed,
                rounds=settings.rounds,
                retry_s=1.0,
                unscheduled=settings.unscheduled,
                emergency=settings.emergency,
                again=settings.again,
                retake=settings.retake,
                delete=settings.delete,
                discontinue=settings.discontinue,
            )
            made.append(_Cast(title or settings.profile, settings, mine, act))
        return made

    def open(self) -> Ports:
        """Start archive, line and RIS, and say where they are."""
        scenario, here = self._scenario, self._scenario.address
        web = self._open_archive() if self._archive is None else None
        if scenario.ris is not None:
            self._ris = Ris(self._orders(), port=scenario.ris.port, ae_title=scenario.ris.ae_title, address=here)
            self._ris.start()
            self._stack.callback(self._ris.stop)
        assert self._archive is not None
        line, ris = (one.port if one is not None else None for one in (self._wan, self._ris))
        return Ports(self._archive.port, line, ris, web.url if web is not None else None)

    def _open_archive(self) -> Stow | None:
        """Start the archive, its web door, and the line before whichever the box is to use."""
        scenario, told, here = self._scenario, self._scenario.archive, self._scenario.address
        self._archive = Pacs(
            told.port,
            ae_title=told.ae_title,
            address=here,
            rules=told.rules,
            refuse_syntaxes=told.refuse_syntaxes,
            commits=Commits(told.commit, port=told.commit_port),
            shelf=self._shelf,
        )
        self._archive.start()
        self._stack.callback(self._archive.stop)
        web = None
        if told.http_port is not None:
            web = Stow(self._shelf, self._archive.rules, port=told.http_port, address=here)
            web.start()
            self._stack.callback(web.stop)
        if scenario.line is not None:
            behind = (self._here, web.port if web is not None else self._archive.port)
            self._wan = self._stack.enter_context(Wan(self._line(), behind, address=here, port=scenario.line.port))
        return web

    def close(self) -> None:
        """Close every port."""
        self.stop.set()
        self._stack.close()

    @property
    def _here(self) -> str:
        """Where this machine reaches its own ports."""
        return "127.0.0.1" if self._scenario.address == "0.0.0.0" else self._scenario.address

    def _line(self) -> Line:
        told = self._scenario.line
        return Line() if told is None else Line(**told.model_dump(exclude={"port"}), seed=self._scenario.seed)

    def _received(self) -> list[Received]:
        return self._shelf.received[self._before :]

    def _orders(self) -> list[Order]:
        orders: list[Order] = []
        for number, one in enumerate(self._cast):
            if one.settings.worklist and one.profile.network.ae_title:
                name = f"{one.settings.profile}={one.profile.network.ae_title}"
                orders += scheduled_day([name], one.act.studies, self._scenario.seed * 100 + number, "20260101")
        return orders

    def run(self, tell: Callable[[int, int], None] = lambda *_: None) -> dict[str, Any]:
        """Work through the day; `tell` hears now and then what was acknowledged and what arrived. Return the sum."""
        began_s = time.monotonic()
        threads = [threading.Thread(target=self._work, args=(one,), name=one.title, daemon=True) for one in self._cast]
        threads += [threading.Thread(target=self._break, args=(one,), daemon=True) for one in self._scenario.outage]
        for thread in threads:
            thread.start()
        last_s = None
        while last_s is None or time.monotonic() - last_s < self._scenario.settle_s:
            self.stop.wait(0.25)
            arrived = len(self._received())
            self._samples.append((round(time.monotonic() - began_s, 2), self._acknowledged, arrived))
            if len(self._samples) > SAMPLES:
                del self._samples[1::2]
            tell(self._acknowledged, arrived)
            if last_s is None and not any(thread.is_alive() for thread in threads):
                last_s = time.monotonic()
            if self.stop.is_set() or (last_s is not None and not self._missing()):
                break
        for thread in threads:
            thread.join(self._cast[0].act.timeout_s)
        return self._summed(time.monotonic() - began_s, (last_s or time.monotonic()) - began_s)

    def _work(self, one: _Cast) -> None:
        scenario, settings = self._scenario, one.settings
        self.stop.wait(settings.start_min * 60 / scenario.speed)
        target = scenario.target
        box = Peer(target.host, target.port, target.ae_title)
        ris = Peer(self._here, self._ris.port, scenario.ris.ae_title) if self._ris and scenario.ris else None
        places = Places(
            box,
            worklist=ris if settings.worklist else None,
            mpps=ris if settings.mpps else None,
            commitment=box if settings.commitment else None,
        )

        def told(sent: Sent) -> None:
            if sent.acknowledged:
                one.sent_at_s[(sent.sop_instance_uid, sent.sha256)] = time.time()
                with self._lock:
                    self._acknowledged += 1
                    if self._log is not None:
                        event = {"scanner": one.title, "uid": sent.sop_instance_uid, "sha256": sent.sha256}
                        when = {"acknowledged_at_s": round(time.time(), 3), "seconds": round(sent.seconds, 4)}
                        self._log.write(json.dumps({**event, **when}) + "\n")

        try:
            scanner = Scanner(one.profile, places, one.act, told, stop=self.stop)
            one.outcome = scanner.outcome
            scanner.run()
        except (ProfileError, OSError, Over) as error:
            one.trouble = str(error)

    def _break(self, outage: Outage) -> None:
        """Take something away for a while."""
        speed = self._scenario.speed
        if self.stop.wait(outage.from_min * 60 / speed):
            return
        lasts_s, began_s = outage.for_min * 60 / speed, time.time()
        if outage.of == "line" and self._wan is not None:
            self._wan.set_line(replace(self._line(), black_hole=True))
            self._wan.cut()
            self.stop.wait(lasts_s)
            self._wan.set_line(self._line())
        elif (peer := self._archive if outage.of == "archive" else self._ris) is not None:
            peer.stop()
            self.stop.wait(lasts_s)
            peer.start()
        self.outages.append((outage.of, (began_s, time.time())))

    def _arrived(self) -> tuple[set[tuple[str, str]], set[str]]:
        kept = [one for one in self._received() if one.kept]
        return {(one.sop_instance_uid, one.sha256) for one in kept}, {one.sop_instance_uid for one in kept}

    def _missing(self) -> list[tuple[str, str]]:
        """What was acknowledged and is not with the archive: the very bytes, or at least the instance."""
        bytes_there, there = self._arrived()
        told = [key for one in self._cast for key in one.sent_at_s]
        if self._scenario.archive.identical:
            return [key for key in told if key not in bytes_there]
        return [key for key in told if key[0] not in there]

    def _summed(self, seconds: float, scanned_s: float) -> dict[str, Any]:
        missing = self._missing()
        sent_uids = {uid for one in self._cast if one.outcome for uid, _ in one.outcome.sent}
        _, there = self._arrived()
        scanners = [self._scanner_sum(one, set(missing)) for one in self._cast]
        lost_to_scanners = sum(row["sent"] - row["acknowledged"] for row in scanners)
        strangers = sorted(there - sent_uids)
        return {
            "seconds": round(seconds, 1),
            "scanned_s": round(scanned_s, 1),
            "acknowledged": sum(row["acknowledged"] for row in scanners),
            "arrived": len(there),
            "missing": len(missing),
            "missing_uids": [uid for uid, _ in missing[:NAMED]],
            "never_sent": strangers[:NAMED],
            "not_acknowledged": lost_to_scanners,
            "delivery_s": self._delivery_times(),
            "steps": len(self._ris.steps) if self._ris is not None else 0,
            "scanners": scanners,
            "backlog": [{"at_s": at, "acknowledged": told, "arrived": came} for at, told, came in self._samples],
            "complete": not (missing or strangers or lost_to_scanners or any(row["trouble"] for row in scanners)),
        }

    def _scanner_sum(self, one: _Cast, missing: set[tuple[str, str]]) -> dict[str, Any]:
        outcome = one.outcome or Outcome()
        return {
            "ae_title": one.title,
            "profile": one.settings.profile,
            "studies": outcome.studies,
            "sent": len(outcome.sent),
            "acknowledged": outcome.acknowledged,
            "missing": sum(key in missing for key in one.sent_at_s),
            "from_worklist": outcome.worklist,
            "steps": sorted(outcome.steps.values()),
            "deleted": outcome.deleted,
            "slow": outcome.console.slow,
            "broken": outcome.console.broken,
            "troubles": outcome.troubles[:NAMED],
            "trouble": one.trouble,
        }

    def _passed(self) -> Iterator[tuple[str, Passed]]:
        """Yield each object that was acknowledged and came, with its study where that is an emergency's, else ""."""
        came: dict[str, Received] = {}
        for instance in self._received():
            if instance.kept:
                came.setdefault(instance.sop_instance_uid, instance)
        for one in self._cast:
            if one.outcome is None:
                continue
            for key, at_s in one.sent_at_s.items():
                sent, there = one.outcome.sent.get(key), came.get(key[0])
                if sent is not None and there is not None:
                    study = sent.study_instance_uid
                    yield study if study in one.outcome.stat else "", Passed(at_s, there.at_s, there.length)

    def urgent(self) -> list[Urgent]:
        """Return what became of each study of an emergency, as far as it arrived."""
        studies: dict[str, list[Passed]] = {}
        for study, passed in self._passed():
            studies.setdefault(study, []).append(passed)
        behind = [span for of, span in self.outages if of != "ris"]
        return [urgent(objects, self._line(), behind) for study, objects in studies.items() if study]

    def _delivery_times(self) -> dict[str, dict[str, float]]:
        """From the acknowledgement to the arrival: median and worst, of emergencies and of the rest; seconds."""
        times: dict[str, list[float]] = {"stat": [], "routine": []}
        for study, passed in self._passed():
            times["stat" if study else "routine"].append(max(0.0, passed.came_at_s - passed.stored_at_s))
        return {
            kind: {"objects": len(some), "median": round(statistics.median(some), 2), "worst": round(max(some), 2)}
            for kind, some in times.items()
            if some
        }
