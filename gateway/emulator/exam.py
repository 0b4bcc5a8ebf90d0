"""A scanner at work: from the worklist to the commitment, patient by patient, with its habits."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

from gateway.emulator import services
from gateway.emulator.drop import drop
from gateway.emulator.link import Over
from gateway.emulator.objects import JPEG_BASELINE, Limits, Made, study
from gateway.emulator.orders import Order, order, unscheduled
from gateway.emulator.profile import Profile
from gateway.emulator.reports import ReportListener
from gateway.emulator.sender import Console, Sender, Sent
from gateway.emulator.services import Commitments, Peer


@dataclass(frozen=True, slots=True)
class Places:
    """Where a scanner sends, asks and writes. Without a place a step is left out."""

    store: Peer | None = None
    worklist: Peer | None = None
    mpps: Peer | None = None
    commitment: Peer | None = None
    folder: Path | None = None
    listen: int = 0
    """Port of its listener for reports; 0 takes a free one."""


UNLIMITED = Limits()


@dataclass(frozen=True, slots=True)
class Act:
    """What happens, and how fast. The chances are between 0 and 1."""

    studies: int = 1
    seed: int = 1
    limits: Limits = UNLIMITED
    pace: float = 1.0
    """The profile's pauses are so many times as long; 0 leaves them out."""
    rounds: int = 1
    """What is not acknowledged is sent so often in all."""
    retry_s: float = 0.5
    timeout_s: float = 30.0
    unscheduled: float = 0.0
    emergency: float = 0.0
    again: float = 0.0
    """The patient before comes again."""
    retake: float = 0.0
    """The first series is made a second time."""
    delete: float = 0.0
    """What was retaken is deleted before it is sent."""
    discontinue: float = 0.0
    """The study ends half-way."""


@dataclass(slots=True)
class Outcome:
    """What a scanner knows afterwards."""

    studies: int = 0
    sent: dict[tuple[str, str], Sent] = field(default_factory=dict)
    """(SOP Instance UID, SHA-256) -> the last word on it."""
    stat: set[str] = field(default_factory=set)
    """Studies of emergencies."""
    worklist: int = 0
    """Patients that a worklist gave."""
    steps: dict[str, str] = field(default_factory=dict)
    """Procedure step -> the last status that was told and taken."""
    commitments: Commitments = field(default_factory=Commitments)
    console: Console = field(default_factory=Console)
    deleted: int = 0
    files: int = 0
    troubles: list[str] = field(default_factory=list)
    """What failed beside storing."""

    @property
    def acknowledged(self) -> int:
        """Objects that the scanner takes for stored."""
        return sum(one.acknowledged for one in self.sent.values())

    @property
    def complete(self) -> bool:
        """True when everything was acknowledged, and everything else went well too."""
        asked = set().union(*self.commitments.asked.values()) if self.commitments.asked else set()
        return self.acknowledged == len(self.sent) and not self.troubles and asked <= self.commitments.kept


class Scanner:
    """One scanner with one profile. `told` hears of each object; `stop` ends the work after the object under way."""

    def __init__(
        self,
        profile: Profile,
        places: Places,
        act: Act,
        told: Callable[[Sent], None] = lambda _: None,
        *,
        log: TextIO | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._profile, self._places, self._act, self._told = profile, places, act, told
        self._stop = stop or threading.Event()
        self._luck = random.Random(f"{act.seed}/{profile.network.ae_title}")
        self._sender = self._make_sender(log)
        self._scheduled: list[Order] = []
        self._before: Order | None = None
        self.outcome = Outcome()

    def _make_sender(self, log: TextIO | None) -> Sender | None:
        peer = self._places.store
        if peer is None:
            return None
        wanted: dict[str, list[str]] = {}
        for series in self._profile.series:
            syntaxes = wanted.setdefault(self._profile.data.sop_class or series.sop_class, [])
            jpeg = series.pixels is not None and series.pixels.jpeg_quality
            mine = [JPEG_BASELINE] if jpeg else self._profile.network.syntaxes
            mine = [self._profile.data.syntax] if self._profile.data.syntax else mine
            syntaxes += [one for one in mine if one not in syntaxes]
        network, data = self._profile.network, self._profile.data
        place = (peer.host, peer.port)
        timeout_s = self._act.timeout_s
        return Sender(place, network, data, peer.ae_title, list(wanted.items()), log=log, timeout_s=timeout_s)

    def run(self) -> Outcome:
        """Do all studies and return what came of them. Raises ProfileError for a profile that makes no sense, and
        OSError when the listener for reports cannot listen."""
        profile, places = self._profile, self._places
        listener = None
        if profile.exam.commitment and places.commitment and profile.commitment.wait == "new":
            title = profile.commitment.ae_title or profile.network.ae_title
            listener = ReportListener(title, places.listen, self.outcome.commitments, places.commitment)
        try:
            number = 0
            while not self._stop.is_set() and (number < self._act.studies or profile.exam.endless):
                if number:
                    self._pause(profile.exam.pause_study_s)
                self._examine(self._next(number), self._act.seed + number)
                number += 1
            if self._sender is not None:
                self._sender.end()
                self.outcome.console = self._sender.console
        finally:
            if listener is not None:
                listener.close()
        return self.outcome

    def _pause(self, seconds: float) -> None:
        self._stop.wait(seconds * self._act.pace)

    def _happens(self, chance: float) -> bool:
        return self._luck.random() < chance

    def _next(self, number: int) -> Order:
        """Who comes next: the one before, somebody without an appointment, or the next of the worklist."""
        profile, act = self._profile, self._act
        seed, modality = act.seed + number, profile.series[0].modality
        station = profile.network.ae_title
        if self._before is not None and self._happens(act.again):
            return services.of_the_same_patient(self._before, seed)
        emergency = self._happens(act.emergency)
        if emergency or self._happens(act.unscheduled):
            return unscheduled(seed, modality, profile.exam.description, emergency=emergency, station=station)
        if profile.exam.worklist and self._places.worklist is not None:
            if not self._scheduled:
                self._try("worklist", self._ask_worklist)
            if self._scheduled:
                self.outcome.worklist += 1
                return self._scheduled.pop(0)
            return unscheduled(seed, modality, profile.exam.description, emergency=False, station=station)
        return order(seed, modality, profile.exam.description, letters=profile.data.names, station=station)

    def _ask_worklist(self) -> None:
        assert self._places.worklist is not None
        found = services.worklist(self._places.worklist, self._profile, self._act.timeout_s)
        done = {one.study_instance_uid for one in self.outcome.sent.values()}
        self._scheduled = [one for one in found if one.study_instance_uid not in done]

    def _try(self, what: str, step: Callable[[], None]) -> None:
        """A step that fails is told and does not stop the exam: a patient lies on the table."""
        try:
            step()
        except Over as over:
            self.outcome.troubles.append(f"{what}: {over}")

    def _examine(self, comes: Order, seed: int) -> None:
        profile, places, act = self._profile, self._places, self._act
        self._before = comes
        self.outcome.studies += 1
        if comes.stat:
            self.outcome.stat.add(comes.study_instance_uid)
        step: list[str] = []
        if profile.exam.mpps and places.mpps is not None:
            peer = places.mpps
            self._try("step", lambda: step.append(services.begin(peer, profile, comes, seed, act.timeout_s)))
            self.outcome.steps.update(dict.fromkeys(step, "IN PROGRESS"))
        discontinued = self._happens(act.discontinue)
        made = self._acquire(comes, seed, discontinued=discontinued)
        if step and places.mpps is not None:
            peer, status = places.mpps, "DISCONTINUED" if discontinued else "COMPLETED"

            def finish() -> None:
                services.finish(peer, profile, comes, step[0], made, act.timeout_s, discontinued=discontinued)
                self.outcome.steps[step[0]] = status

            self._try("step", finish)
        if profile.exam.commitment and places.commitment is not None:
            self._commit(made, seed)

    def _acquire(self, comes: Order, seed: int, *, discontinued: bool) -> dict[str, list[tuple[str, str]]]:
        """Make and send a study; return what was made: series -> (SOP class, instance)."""
        retaken = self._happens(self._act.retake)
        deleted = retaken and self._happens(self._act.delete)
        done: set[str] = set()
        made: dict[str, list[tuple[str, str]]] = {}
        for attempt in range(self._act.rounds):
            if attempt:
                self._stop.wait(self._act.retry_s)
            last: Made | None = None
            for one in self._taken(comes, seed, discontinued=discontinued, retaken=retaken):
                if self._stop.is_set():
                    break
                if deleted and one.series == 0 and not one.again:
                    self.outcome.deleted += attempt == 0
                    continue
                uid, series = (
                    str(one.dataset[key].value).strip("\0 ") for key in ("SOPInstanceUID", "SeriesInstanceUID")
                )
                if attempt == 0:
                    made.setdefault(series, []).append((str(one.dataset.SOPClassUID), uid))
                if uid not in done:
                    self._between(last, one, pause=attempt == 0)
                    last = one
                    if self._deliver(one):
                        done.add(uid)
            if not self._study_ends():
                done.clear()
            elif all(uid in done for instances in made.values() for _, uid in instances):
                break
        return made

    def _taken(self, comes: Order, seed: int, *, discontinued: bool, retaken: bool) -> Iterator[Made]:
        """A study as it is made: half of it when it is discontinued, its first series twice when that is retaken."""
        limits = self._act.limits
        if discontinued:
            most = limits.images or max(series.images[1] for series in self._profile.series)
            limits = replace(limits, images=max(1, most // 2), series=max(1, len(self._profile.series) // 2))
        yield from study(self._profile, comes, seed, limits)
        if retaken:
            yield from study(self._profile, comes, seed, replace(limits, series=1), again=1)

    def _between(self, last: Made | None, one: Made, *, pause: bool) -> None:
        """What happens between two objects: the association's end, and a pause."""
        if last is None:
            return
        exam, habit = self._profile.exam, self._profile.network.association
        next_series = (last.series, last.again) != (one.series, one.again)
        if self._sender is not None and (habit == "image" or (habit == "series" and next_series)):
            self._sender.end()
        if pause:
            self._pause(exam.pause_series_s if next_series else exam.pause_image_s)

    def _deliver(self, one: Made) -> bool:
        """Send or write one object, as often as this scanner does; True when all of that succeeded."""
        data, fine = self._profile.data, True
        for copy in range(self._profile.network.copies):
            if copy and data.changed_copies:
                one.dataset.ImageComments = f"copy {copy}"
            if self._places.folder is not None:
                sent = drop(one.dataset, self._places.folder, self._profile, self._act.pace)
                self.outcome.files += 1
            elif self._sender is not None:
                sent = self._sender.store(one.dataset, stat=one.stat)
            else:
                return True
            self.outcome.sent[(sent.sop_instance_uid, sent.sha256)] = sent
            self._told(sent)
            fine = fine and sent.acknowledged
        return fine

    def _study_ends(self) -> bool:
        """End the association, unless it is held; False when everything on it has to be sent again."""
        network = self._profile.network
        if self._sender is None or network.association == "held":
            return True
        return self._sender.end() or not network.abort_is_failure

    def _commit(self, made: dict[str, list[tuple[str, str]]], seed: int) -> None:
        """Ask for commitment to what was acknowledged, and wait for the report."""
        peer, told, profile = self._places.commitment, self.outcome.commitments, self._profile
        stored = services.acknowledged(list(self.outcome.sent.values()))
        asked = [one for instances in made.values() for one in instances if one[1] in stored]
        if peer is None or not asked:
            return

        def step() -> None:
            transaction = services.commit(peer, profile, asked, told, seed, self._act.timeout_s)
            if profile.commitment.wait == "new":
                wait_until = time.monotonic() + profile.commitment.wait_s
                while not told.answered(transaction) and time.monotonic() < wait_until and not self._stop.is_set():
                    self._stop.wait(0.05)
            if not told.answered(transaction):
                raise Over("no report came in time")

        self._try("commitment", step)
