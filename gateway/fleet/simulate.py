"""Thousands of boxes from one process: one loop over non-blocking sockets, one heap of timers, no thread per box.

What a box says is in `likeness.py`, how it goes over the wire in `wire.py` and `line.py`; here is when, and what
happens to lines.
"""

from __future__ import annotations

import math
import resource
import selectors
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from threading import Event
from typing import Any

from gateway.fleet import wire
from gateway.fleet.likeness import NEW_VERSION, OLD_VERSION, Fate, Likeness
from gateway.fleet.line import Broker, Line, LineEnded
from gateway.model.backoff import next_delay_s
from gateway.model.errors import GatewayError

CONNECT_S = 20.0
"""From the first SYN to CONNACK."""
KEEPALIVE_S = 30
SESSION_EXPIRY_S = 600
FAREWELL_S = 20.0
TELL_S = 10.0
SAMPLES = 200_000
"""Times of acknowledgement that are kept for the quantiles."""
SPARE_FILES = 64
UPDATE_TOLD_S = 2.0
UPDATE_S = (20.0, 60.0)
"""A box that is updated is away for so long, at least and at most."""
RETRY_FIRST_S, RETRY_CEILING_S = 1.0, 60.0
"""As those of real boxes."""


class CannotSimulate(GatewayError):
    """So many boxes cannot be simulated here."""

    exit_code = 75


@dataclass(frozen=True, slots=True)
class Plan:
    """What is simulated."""

    boxes: int
    tenant: str = "simulated"
    seed: int = 1
    seconds: float = math.inf
    """From the start of the ramp."""
    interval_s: float = 60.0
    """Between two health messages of a box."""
    ramp_per_s: float = 200.0
    """Connections begun a second, at the start as after a storm."""
    will_delay_s: int = 30
    hasten: float = 60.0
    """How much faster than real a box's fate goes: 60 makes its day one of 24 minutes."""
    flap_s: float = 60.0
    """Mean time until a flapping line breaks again."""
    storm_every_s: float = math.inf
    storm_pct: float = 20.0
    """Share of the fleet whose lines break at once."""
    wave_every_s: float = math.inf
    steady: bool = False
    """Nothing befalls any box, but for storms and waves."""
    wave_pct: float = 10.0
    """Share of the fleet that is updated with each wave."""


@dataclass(slots=True)
class Numbers:
    """What came of it."""

    connects: int = 0
    published: int = 0
    acknowledged: int = 0
    refused: int = 0
    cuts: int = 0
    updates: int = 0
    gone: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    """Lines that ended although nobody here wanted it, by reason."""
    ack_s: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))


def _quantile_ms(ordered: list[float], share: float) -> float | None:
    return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else None


def allow_files(boxes: int) -> None:
    """Let this process open a socket for each box; raises CannotSimulate with what to set."""
    needed = boxes + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, max(needed, hard)))
    except (ValueError, OSError):
        raise CannotSimulate(
            f"{boxes} boxes need {needed} open files, and {hard} are allowed here",
            hint=f"`ulimit -n {needed}` as root, or LimitNOFILE={needed} in a systemd unit; the broker needs as many",
        ) from None


class Box:
    """One simulated box with the line that it has at the moment."""

    def __init__(self, likeness: Likeness) -> None:
        self.likeness = likeness
        self.line: Line | None = None
        self.life = 0
        """Counts connections: what was timed for an earlier one is void."""
        self.attempt = 0
        self.greeted = False
        self.gone = False
        self.wrong: set[str] = set()


class Simulation:
    """Runs a plan against one broker."""

    def __init__(self, plan: Plan, broker: Broker) -> None:
        """Nothing happens yet."""
        self.plan = plan
        self.numbers = Numbers()
        self._broker = broker
        self._luck = Random(plan.seed)
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._next_start = 0.0
        self._ending = False
        self._began = time.monotonic()
        wall = time.time()
        self.boxes = [
            Box(Likeness(number, plan.seed, plan.tenant, plan.interval_s, wall, steady=plan.steady))
            for number in range(plan.boxes)
        ]
        self._not_updated = deque(self._luck.sample(self.boxes, len(self.boxes)))

    def run(self, stop: Event, tell: Callable[[dict[str, Any]], None] = lambda _: None) -> dict[str, Any]:
        """Simulate until the plan's end or `stop`, then let all boxes say goodbye. `tell` hears the numbers now and
        then; returns the last."""
        self._began = told_at = time.monotonic()
        for box in self.boxes:
            self._connect_in(box, 0.0)
        self._at(self._began + self.plan.storm_every_s, self._storm)
        self._at(self._began + self.plan.wave_every_s, self._wave)
        while not stop.is_set() and (now := time.monotonic()) < self._began + self.plan.seconds:
            self._turn(0.1)
            if now - told_at >= TELL_S:
                told_at = now
                tell(self.report())
        report = self.report()
        self._farewell()
        return report

    def report(self) -> dict[str, Any]:
        """Return the numbers so far as plain values."""
        numbers, ordered = self.numbers, sorted(self.numbers.ack_s)
        return {
            "boxes": len(self.boxes),
            "connected": sum(box.greeted for box in self.boxes),
            "seconds": round(time.monotonic() - self._began, 1),
            **{
                name: getattr(numbers, name)
                for name in ("connects", "published", "acknowledged", "refused", "cuts", "updates", "gone")
            },
            "lost": dict(numbers.lost),
            "ack_ms": {"p50": _quantile_ms(ordered, 0.5), "p99": _quantile_ms(ordered, 0.99)},
        }

    def _turn(self, wait_s: float) -> None:
        while self._timers and self._timers[0][0] <= time.monotonic():
            heappop(self._timers)[2]()
        if self._timers:
            wait_s = max(0.0, min(wait_s, self._timers[0][0] - time.monotonic()))
        for key, _ in self._selector.select(wait_s):
            self._with(key.data, self._ready)

    def _at(self, when: float, act: Callable[[], None]) -> None:
        if math.isfinite(when):
            self._count += 1
            heappush(self._timers, (when, self._count, act))

    def _later(self, box: Box, delay_s: float, act: Callable[[Box, Line], None]) -> None:
        """Do it then, unless that connection is over."""
        life = box.life

        def due() -> None:
            if box.life == life:
                self._with(box, act)

        self._at(time.monotonic() + delay_s, due)

    def _with(self, box: Box, act: Callable[[Box, Line], None]) -> None:
        """Do something with the line of a box, and see to it when that ends it."""
        line = box.line
        if line is None:
            return
        try:
            act(box, line)
        except LineEnded as ended:
            self.numbers.lost[str(ended)] += 1
            self._drop(box)
            self._retry(box)
        else:
            if box.line is line:
                self._watch(box, line)

    def _watch(self, box: Box, line: Line) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if line.wants_to_write else 0)
        key = self._selector.get_map().get(line.fd)
        if key is None:
            self._selector.register(line.fd, events, box)
        elif key.events != events:
            self._selector.modify(line.fd, events, box)

    def _drop(self, box: Box) -> None:
        """Close a line without goodbye: the broker will publish the will."""
        if box.line is not None:
            if box.line.fd in self._selector.get_map():
                self._selector.unregister(box.line.fd)
            box.line.close()
        box.line, box.greeted = None, False

    def _connect_in(self, box: Box, delay_s: float) -> None:
        """Connect then, or as soon as the ramp has room."""

        def start() -> None:
            self._next_start = max(time.monotonic(), self._next_start) + 1 / self.plan.ramp_per_s
            self._at(self._next_start, lambda: self._connect(box))

        if not (box.gone or self._ending):
            self._at(time.monotonic() + delay_s, start)

    def _retry(self, box: Box) -> None:
        box.attempt += 1
        self._connect_in(box, next_delay_s(box.attempt, RETRY_FIRST_S, RETRY_CEILING_S, self._luck.random()))

    def _connect(self, box: Box) -> None:
        if box.line is not None or self._ending:
            return
        box.life += 1
        likeness = box.likeness
        likeness.begin_session()
        will = likeness.will(time.time())
        greeting = wire.connect(
            likeness.id, KEEPALIVE_S, SESSION_EXPIRY_S, will, self.plan.will_delay_s, self._broker.user,
            self._broker.password,
        )  # fmt: skip
        try:
            box.line = Line(self._broker, greeting)
        except LineEnded as ended:
            self.numbers.lost[str(ended)] += 1
            self._retry(box)
            return
        self._watch(box, box.line)
        self._later(box, CONNECT_S, self._must_be_up)

    def _must_be_up(self, box: Box, line: Line) -> None:
        if not line.up:
            raise LineEnded("no CONNACK")

    def _ready(self, box: Box, line: Line) -> None:
        for seconds, reason in line.ready():
            self.numbers.acknowledged += 1
            self.numbers.refused += reason >= wire.FAILURE
            self.numbers.ack_s.append(seconds)
        if line.up and not box.greeted:
            self._greet(box, line)

    def _greet(self, box: Box, line: Line) -> None:
        box.greeted, box.attempt = True, 0
        self.numbers.connects += 1
        now = time.time()
        self._say(line, *box.likeness.greeting(now, self.plan.hasten))
        box.wrong = set(box.likeness.state(now, self.plan.hasten).wrong)
        self._later(box, self._luck.uniform(0, self.plan.interval_s), self._tell_health)
        self._later(box, KEEPALIVE_S / 2, self._ping)
        self._later(box, box.likeness.until_next_study_s(), self._study)
        if box.likeness.fate is Fate.FLAPPING:
            self._later(box, self._luck.expovariate(1 / self.plan.flap_s), self._break)
        if box.likeness.rolls_back and box.likeness.version == NEW_VERSION:
            self._later(box, UPDATE_TOLD_S, self._reboot)

    def _say(self, line: Line, *messages: wire.Publication) -> None:
        self.numbers.published += len(messages)
        line.say(*messages)

    def _tell_health(self, box: Box, line: Line) -> None:
        now = time.time()
        state = box.likeness.state(now, self.plan.hasten)
        if state.gone:
            self.numbers.gone += 1
            box.gone = True
            self._drop(box)
            return
        changed = box.wrong ^ set(state.wrong)
        box.wrong = set(state.wrong)
        self._say(line, box.likeness.health(state, now), *(box.likeness.alarm(code, state, now) for code in changed))
        if changed:
            self._say(line, *box.likeness.rooms(state, now))
        self._later(box, self.plan.interval_s, self._tell_health)

    def _study(self, box: Box, line: Line) -> None:
        now = time.time()
        box.likeness.study(now)
        self._say(line, *box.likeness.rooms(box.likeness.state(now, self.plan.hasten), now))
        self._later(box, box.likeness.until_next_study_s(), self._study)

    def _ping(self, box: Box, line: Line) -> None:
        if time.monotonic() - line.heard_at > 2 * KEEPALIVE_S:
            raise LineEnded("answers nothing")
        line.send(wire.PINGREQ)
        self._later(box, KEEPALIVE_S / 2, self._ping)

    def _break(self, box: Box, line: Line) -> None:
        """The line is cut; the box does not know before its next try."""
        self.numbers.cuts += 1
        self._drop(box)
        self._retry(box)

    def _storm(self) -> None:
        """Many lines break in the same moment: a provider's fault, a power cut in a town."""
        for box in self._luck.sample(self.boxes, round(len(self.boxes) * self.plan.storm_pct / 100)):
            self._with(box, self._break)
        self._at(time.monotonic() + self.plan.storm_every_s, self._storm)

    def _wave(self) -> None:
        """The next share of the fleet is updated: each says so, goes, and comes back with another version, or not."""
        for _ in range(min(len(self._not_updated), math.ceil(len(self.boxes) * self.plan.wave_pct / 100))):
            self._with(self._not_updated.popleft(), self._update)
        self._at(time.monotonic() + self.plan.wave_every_s, self._wave)

    def _update(self, box: Box, line: Line) -> None:
        self.numbers.updates += 1
        self._say(line, box.likeness.said("offline", "update", time.time()))
        self._later(box, UPDATE_TOLD_S, self._reboot)

    def _reboot(self, box: Box, line: Line) -> None:
        """Come back with the new version; whoever has it already goes back to the old one."""
        line.send(wire.disconnect(SESSION_EXPIRY_S))
        self._drop(box)
        box.likeness.reboot_into(OLD_VERSION if box.likeness.version == NEW_VERSION else NEW_VERSION)
        self._connect_in(box, self._luck.uniform(*UPDATE_S))

    def _farewell(self) -> None:
        """Let every box say that it goes, and end its session with the broker."""
        self._ending = True
        self._timers.clear()
        now = time.time()
        for box in self.boxes:
            if box.greeted:
                self._with(box, lambda box, line: self._say(line, box.likeness.said("offline", "shutdown", now)))
            elif box.line is not None:
                self._drop(box)
        deadline = time.monotonic() + FAREWELL_S
        while any(box.line is not None for box in self.boxes) and time.monotonic() < deadline:
            self._turn(0.1)
            for box in self.boxes:
                if box.line is not None and box.line.idle:
                    self._with(box, lambda box, line: line.send(wire.disconnect(0)))
                    self._drop(box)
        for box in self.boxes:
            self._drop(box)
        self._selector.close()
