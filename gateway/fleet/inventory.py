"""Every box that we heard of, and what we know of it; no I/O. Time comes in as arguments: `now` is the monotonic clock,
`wall` ours. A box's own clock decides nothing here.

Threads may share an inventory: the lines write, page, exporter and store read, each under `lock`.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from gateway.fleet import reports
from gateway.fleet.alarms import MISSED, Standing
from gateway.fleet.box import Box, Key, Presence
from gateway.fleet.reports import Unreadable
from gateway.model.topics import RESERVED, ROOT

MAX_JOURNAL = 100_000
MAX_VERSIONS = 8
MAX_KEPT_BYTES = 16384
"""Of a health message that is to be there after a restart; ours have about one kilobyte."""
LIFE_PERIODS = 3
"""So long a health message is kept by the broker."""
_TOPIC = re.compile(
    rf"{ROOT}/(?P<tenant>[a-z0-9-]{{1,63}})/(?P<box>[a-z0-9-]{{1,63}})/(?P<part>(?P<kind>[a-z]{{1,8}})"
    r"(?:/(?P<name>[a-z0-9_.-]{1,63}))?)(?:/[a-z0-9-]{1,63})?"
)


@dataclass(frozen=True, slots=True)
class Heard:
    """One message, as the broker gave it."""

    topic: str
    payload: bytes
    retained: bool
    """It lay there when we subscribed."""
    left_s: int | None
    """What is left of the life that its sender gave it."""
    now: float
    wall: float


Reported = TypeVar("Reported")
Hearing = Callable[[Box, str, Heard], None]
"""Takes what a message says of a box; the text is the part of the topic after its kind, or empty."""


@dataclass(slots=True)
class Counters:
    """What was heard since the start."""

    messages: int = 0
    invalid: int = 0
    bad_names: int = 0
    too_many: int = 0
    """Messages of boxes beyond the limit."""
    journal_lost: int = 0


class Inventory:
    """All boxes of all tenants."""

    def __init__(self, max_boxes: int, stale_periods: float, sample_s: float) -> None:
        self.lock = threading.Lock()
        self.boxes: dict[Key, Box] = {}
        self.counters = Counters()
        self.journal: deque[tuple[Any, ...]] = deque()
        """What the store is to write down: (table, values...); bounded, the oldest is lost first."""
        self._max_boxes = max_boxes
        self._stale_periods = stale_periods
        self._sample_s = sample_s
        self._hearings: dict[str, Hearing] = {
            "session": self._session,
            "birth": self._birth,
            "health": self._health,
            "mod": self._modality,
            "dst": self._destination,
            "a": self._alarm,
            "e": self._event,
            "res": self._result,
        }

    def hear(self, message: Heard) -> None:
        """Take one message."""
        self.counters.messages += 1
        topic = _TOPIC.fullmatch(message.topic)
        hearing = self._hearings.get(topic["kind"]) if topic else None
        if topic is None or hearing is None or topic["box"] in RESERVED:
            self.counters.bad_names += 1
            return
        box = self.boxes.get((topic["tenant"], topic["box"])) or self._meet(topic["tenant"], topic["box"], message)
        if box is None:
            return
        box.revision += 1
        kind, part, name = topic["kind"], topic["part"], topic["name"] or ""
        try:
            hearing(box, name, message)
        except Unreadable as error:
            self.counters.invalid += 1
            if kind not in ("e", "res") and (part in box.invalid or len(box.invalid) < reports.MAX_NAMES):
                box.invalid[part] = str(error)
            return
        box.invalid.pop(part, None)

    def _meet(self, tenant: str, name: str, message: Heard) -> Box | None:
        if not message.payload:
            return None  # something was taken back of a box that we do not know
        if len(self.boxes) >= self._max_boxes:
            self.counters.too_many += 1
            return None
        box = Box(tenant, name, message.now, message.wall, since=message.wall)
        self.boxes[box.key] = box
        self._note("box", box)
        return box

    def restore(self, box: Box) -> None:
        """Take back a box from the store."""
        if len(self.boxes) < self._max_boxes:
            self.boxes.setdefault(box.key, box)

    def _note(self, *entry: Any) -> None:
        if len(self.journal) >= MAX_JOURNAL:
            self.journal.popleft()
            self.counters.journal_lost += 1
        self.journal.append(entry)

    def note_everything(self) -> None:
        """Have the store write down anew all that is known: it lost what it had."""
        for box in self.boxes.values():
            self._note("box", box)
            for standing in box.alarms.values():
                self._note("alarm", box.key, standing)

    def _become(self, box: Box, presence: Presence, since: float, exact: bool) -> None:
        if box.presence is not presence:
            box.presence, box.since, box.since_exact = presence, since, exact
            box.revision += 1
            self._note("box", box)
            self._note("event", box.key, since, presence.value, box.goodbye.reason if box.goodbye else "")

    def _alive(self, box: Box, message: Heard) -> None:
        box.heard, box.heard_at, box.guessed = message.now, message.wall, False
        if box.goodbye is None:
            self._become(box, Presence.ONLINE, message.wall, True)

    def _session(self, box: Box, name: str, message: Heard) -> None:
        if not message.payload:  # how central IT takes a box out of the fleet
            del self.boxes[box.key]
            self._note("gone", box.key)
            return
        said = reports.session_of(message.payload)
        box.said = True
        if not said.online:
            box.goodbye = said
            if not message.retained:
                box.heard_at = message.wall
            self._become(box, Presence.OFFLINE, message.wall, not message.retained)
            return
        if box.session and said.session != box.session and not message.retained:
            box.reconnects.append(message.now)
        box.session, box.goodbye = said.session, None
        if not message.retained:
            self._alive(box, message)
        elif box.presence is Presence.OFFLINE:  # it came back while we were away
            box.heard, box.guessed = message.now, True
            self._become(box, Presence.ONLINE, message.wall, False)

    def _health(self, box: Box, name: str, message: Heard) -> None:
        if not message.payload:
            return
        box.health = reports.health_of(message.payload)
        box.health_payload = message.payload if len(message.payload) <= MAX_KEPT_BYTES else b""
        if message.retained:
            self._age(box, message)
            return
        if box.goodbye is not None and box.goodbye.session != box.health.session:
            box.goodbye = None  # a will that came late: whoever speaks is there
        self._alive(box, message)
        self._compare(box, message.wall)
        if not box.sampled or message.now - box.sampled >= self._sample_s:
            box.sampled = message.now
            self._note("box", box)
            self._note("sample", box.key, message.wall, box.health)

    def _age(self, box: Box, message: Heard) -> None:
        """Learn from the broker for how long a retained health message has lain there: it lives for three periods."""
        if message.left_s is None:
            return
        old_s = max(0.0, LIFE_PERIODS * box.interval_s - message.left_s)
        heard, heard_at = message.now - old_s, message.wall - old_s
        if not box.guessed:  # `heard` may have been excused for what we could not hear: each has its own newest
            heard, heard_at = max(heard, box.heard), max(heard_at, box.heard_at)
        box.heard, box.heard_at, box.guessed = heard, heard_at, False

    def _compare(self, box: Box, wall: float) -> None:
        """End what the box no longer complains of."""
        reasons = box.health.complaints if box.health else ()
        if len(reasons) >= reports.MAX_NAMES:
            return  # there may be more than it can say
        codes = {reason.code for reason in reasons}
        for code, standing in list(box.alarms.items()):
            standing.missed = 0 if code in codes else standing.missed + 1
            if standing.missed >= MISSED:
                self._clear(box, code, wall)

    def _birth(self, box: Box, name: str, message: Heard) -> None:
        if not message.payload:
            return
        box.birth = reports.birth_of(message.payload)
        if not box.versions or box.versions[-1] != box.birth.version:
            box.versions = (*box.versions[-MAX_VERSIONS + 1 :], box.birth.version)
            box.version_at = message.wall
            box.update = ""
            self._note("box", box)

    def _modality(self, box: Box, name: str, message: Heard) -> None:
        _keep(box.modalities, name, message.payload, reports.modality_of)

    def _destination(self, box: Box, name: str, message: Heard) -> None:
        _keep(box.destinations, name, message.payload, reports.destination_of)

    def _alarm(self, box: Box, code: str, message: Heard) -> None:
        if not message.payload:
            self._clear(box, code, message.wall)
            return
        alarm = reports.alarm_of(message.payload)
        if alarm.code != code:
            raise Unreadable("is of another code than its topic")
        before = box.alarms.get(code)
        if before is not None and before.alarm.since == alarm.since:
            before.alarm, before.missed = alarm, 0
        elif before is not None or len(box.alarms) < reports.MAX_NAMES:
            self._clear(box, code, message.wall)
            box.alarms[code] = Standing(alarm, message.wall)
            self._note("alarm", box.key, box.alarms[code])

    def _clear(self, box: Box, code: str, wall: float) -> None:
        standing = box.alarms.pop(code, None)
        if standing is not None:
            box.revision += 1
            self._note("cleared", box.key, code, standing.alarm.since, wall)

    def acknowledge(self, key: Key, code: str, since: str, who: str, wall: float) -> bool:
        """Note that `who` has seen this occurrence; False when it does not hold any more."""
        box = self.boxes.get(key)
        standing = box.alarms.get(code) if box else None
        if box is None or standing is None or standing.alarm.since != since:
            return False
        standing.acknowledge(who, wall)
        box.revision += 1
        self._note("alarm", key, standing)
        return True

    def _event(self, box: Box, name: str, message: Heard) -> None:
        if message.payload:
            event = reports.event_of(message.payload)
            words = (event.code, event.verb, event.kid and f"key {event.kid}")
            self._note("event", box.key, message.wall, event.kind, " ".join(filter(None, words)))

    def _result(self, box: Box, verb: str, message: Heard) -> None:
        if message.payload and verb == "update.install":
            box.update, box.update_at = reports.result_of(message.payload), message.wall
            self._note("box", box)

    def judge(self, tenants: set[str], now: float, wall: float) -> None:
        """Find boxes of these tenants, which we are connected for, that are silent though nobody said goodbye."""
        for box in self.boxes.values():
            silent_s = now - box.heard
            watched = box.presence is Presence.ONLINE and box.tenant in tenants
            if watched and silent_s > self._stale_periods * box.interval_s:
                self._become(box, Presence.STALE, wall, True)

    def deaf(self, tenant: str, for_s: float) -> None:
        """For so long we could hear nothing of a tenant: that is no silence of its boxes."""
        for box in self.of(tenant):
            box.heard += for_s

    def incomplete(self, tenant: str, but: Set[Key], most: int) -> list[Key]:
        """Return boxes that were heard and of which session or birth is missing, without those in `but`."""
        found = (
            box.key
            for box in self.of(tenant)
            if box.key not in but and ((box.birth is None and "birth" not in box.invalid) or not box.said)
        )
        return list(islice(found, most))

    def of(self, tenant: str) -> Iterator[Box]:
        """Yield the boxes of a tenant."""
        return (box for box in self.boxes.values() if box.tenant == tenant)


def _keep(held: dict[str, Reported], name: str, payload: bytes, read: Callable[[bytes], Reported]) -> None:
    """Keep the newest of each name; an empty payload takes it back."""
    if not payload:
        held.pop(name, None)
        return
    found = read(payload)
    if name in held or len(held) < reports.MAX_NAMES:
        held[name] = found
