"""Lanes: one per destination, a few couriers each.

Who is to blame decides who waits (contract D9): an ill destination makes its whole lane wait behind one probe, a
refused instance is HELD alone and the rest goes on. Nothing is ever dropped.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from gateway.config.destinations import DestinationSettings
from gateway.model.backoff import next_delay_s
from gateway.model.errors import CustodyRot, SpoolError, Stopped
from gateway.model.instance import Priority
from gateway.model.lifecycle import DeliveryEvent
from gateway.model.verdict import Blame, Outcome, Verdict
from gateway.prepare.worker import Renderer
from gateway.send.bandwidth import Limit, Pace, Paced
from gateway.send.carry import Carrier
from gateway.send.courier import Courier
from gateway.send.schedule import Turns
from gateway.send.shaping import Shaper
from gateway.send.throughput import Stays, Throughput
from gateway.spool.committer import REPLY_PATIENCE_S, Wish
from gateway.spool.rows import Claim, Held
from gateway.spool.spool import Spool

log = logging.getLogger("gateway.send")

CLAIMS_PER_COURIER = 8
RECORD_WAIT_S = 2.0
"""For a verdict to become durable before the next instance is whole at its peer."""
MAX_RECORDING = 64
"""Verdicts that may be on their way into the ledger."""
CLAIMS_PER_ASSOCIATION = 4
SOLO_S = 1.0
"""A further courier helps when so much waits, or when the first is busy for so long with one instance."""
DIVERT_S = 5.0
"""Between looks whether something waits behind an ill destination that another may have."""
DIVERT_BATCH = 200
"""Deliveries moved in one transaction: scanners wait no longer than for that."""
REFILL_WAIT_S = 1.0
"""For another courier that claims at present."""
IDLE_WAIT_S = 0.5
"""The wake-up is only a hint: what is due by the clock is found by looking this often."""


@dataclass
class Health:
    """How a destination is."""

    ill_since: float = 0.0
    """Monotonic time; 0 when it is well."""
    failing_since: float = 0.0
    """Monotonic time of the first failure after the last delivery; a probe that succeeds does not end it: an archive
    with a full disk answers C-ECHO gladly."""
    retry_at: float = 0.0
    attempts: int = 0
    reason: str = ""
    delivered: int = 0
    delivered_at: float | None = None
    """Wall clock of the last success."""
    code: int | None = None
    """Of the last failure: DIMSE or HTTP status, 0 where there was no answer; None: there was none yet."""
    paused_until: float = 0.0
    """Monotonic: an operator lets nothing leave until then."""
    probing: bool = field(default=False, repr=False)

    @property
    def ill(self) -> bool:
        """True while the lane waits behind one probe."""
        return self.ill_since > 0

    @property
    def paused(self) -> bool:
        """True while an operator lets nothing leave."""
        return time.monotonic() < self.paused_until


class Lane:
    """All deliveries to one destination."""

    def __init__(
        self,
        settings: DestinationSettings,
        spool: Spool,
        make_courier: Callable[[], Courier],
        renderer: Renderer,
        stand_ins: Callable[[], Collection[str]] = tuple,
        line: Limit | None = None,
    ) -> None:
        """`stand_ins` names the destinations that can take this one's place at present; `line` is the limit that it
        shares with other lanes."""
        self.settings = settings
        self.health = Health()
        self._spool = spool
        self._make_courier = make_courier
        self._stand_ins = stand_ins
        self._diverted_at = 0.0
        self.shaper = Shaper(settings.compression, renderer.rates)
        self._carrier = Carrier(settings.name, spool, renderer, self.shaper, allow_decompress=settings.allow_decompress)
        self.limits = {"destination": Limit(settings.bandwidth)}
        if line is not None:
            self.limits["box"] = line
        self.throughput = Throughput()
        self.stays = Stays()
        self._lock = threading.Lock()
        self._refilling = threading.Lock()
        self._turns = Turns()
        self._ready: dict[Priority, deque[Claim]] = {priority: deque() for priority in Priority}
        self._looked: dict[Priority, tuple[int, float]] = {}
        """By class: the hint and the time when there was nothing to claim."""
        self._more: dict[Priority, bool] = dict.fromkeys(Priority, False)
        """By class: the last claim got as many as it asked for, so that more is likely to wait in the ledger."""
        self._in_hand: set[int] = set()
        """Instances this process has claimed and not yet written down the end of."""
        self._doubtful = False
        """A claim failed: the ledger may have granted it all the same, or may yet, when nobody waits for it."""
        self._ready_since = 0.0
        self._busy: set[int] = set()
        """Couriers that carry something."""
        self._own: dict[int, Wish[None] | None] = {}
        """By courier: its last verdict, while that is being written down."""
        self._recording: list[tuple[Wish[None], Claim, Verdict, float]] = []
        self._unrecorded: list[tuple[Claim, Verdict, float]] = []

    @property
    def name(self) -> str:
        """The destination's name."""
        return self.settings.name

    def run(self, number: int, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Be courier `number` of this lane until stopped."""
        courier = self._make_courier()
        busy_at = time.monotonic()
        try:
            while not stop.is_set():
                beat()
                if self.health.paused:
                    courier.close()
                    stop.wait(IDLE_WAIT_S)
                    continue
                if self.health.ill and not self._probe_if_due(courier):
                    courier.close()
                    self._give_back()  # what was claimed while another courier found it ill
                    self._divert()
                    stop.wait(IDLE_WAIT_S)
                    continue
                claim = self._next(number)
                if claim is not None:
                    self._carry(number, courier, claim, stop, beat)
                    busy_at = time.monotonic()
                    continue
                if number and self._waiting():
                    stop.wait(SOLO_S / 10)
                    continue
                if time.monotonic() - busy_at > getattr(self.settings, "linger_s", 0.0):
                    courier.close()
                with self._spool.work:
                    self._spool.work.wait(IDLE_WAIT_S)
        finally:
            courier.close()
            self._settle(wait=True)
            self._give_back()

    def _next(self, number: int) -> Claim | None:
        """Return an instance to carry; STAT is looked for each time: it waits only for what is on the line."""
        self._record_late()
        with self._lock:
            order = self._turns.order()
        for place, priority in enumerate(order):
            if any(limit.closed(priority) for limit in self.limits.values()):
                self._give_back([priority])
                continue
            if not self._ready[priority]:
                only_its_turn = min(order[place:]) < priority
                self._refill(priority, 1 if only_its_turn else CLAIMS_PER_COURIER * self.settings.associations)
            with self._lock:
                if self._ready[priority]:
                    if not self._helps(number, priority):
                        return None
                    self._turns.went(priority)
                    return self._ready[priority].popleft()
        return None

    def _waiting(self) -> int:
        return sum(map(len, self._ready.values()))

    def _helps(self, number: int, priority: Priority) -> bool:
        """Judge whether this courier is to take one too. A little work stays with the first: many archives serve one
        association after the other, and a second one would stand in their queue for nothing. STAT does not wait for
        what the first has under way."""
        if number == 0 or self._more[priority] or (priority is Priority.STAT and 0 in self._busy):
            return True
        waited_s = time.monotonic() - self._ready_since
        return self._waiting() > CLAIMS_PER_ASSOCIATION * number or waited_s > SOLO_S

    def _refill(self, priority: Priority, limit: int) -> None:
        """Claim up to `limit` that are due of one class; not again within a moment when there was none and nobody gave
        a hint."""
        if not self._refilling.acquire(timeout=REFILL_WAIT_S):
            return
        try:
            hint, looked_at = self._looked.get(priority, (-1, 0.0))
            hints, now = self._spool.hints, time.monotonic()
            if self._ready[priority] or (hint == hints and now - looked_at < IDLE_WAIT_S):
                return
            if self._spool.committer.fault:
                limit += len(self._in_hand)  # they cannot be marked, and are looked up again
            elif self._doubtful:
                self._put_back_strays()
            claims = self._spool.claim(self.name, priority, limit, self.settings.retry_ceiling_s)
            self._settle(wait=False)  # what was written down before it was claimed again is in nobody's hand any more
            with self._lock:
                fresh = [claim for claim in claims if claim.held.seq not in self._in_hand]
                if not fresh:
                    self._looked[priority] = (hints, now)
                if not self._waiting():
                    self._ready_since = now
                self._more[priority] = len(claims) == limit > 1
                self._in_hand.update(claim.held.seq for claim in fresh)
                self._ready[priority].extend(fresh)
        except SpoolError:
            self._doubtful = True  # the committer has said so; delivery goes on when the ledger can be asked again
        finally:
            self._refilling.release()

    def _put_back_strays(self) -> None:
        """Queue again what a claim took that was given up; the ledger does it after that claim, if that comes at all.

        Nobody else claims meanwhile. Raises SpoolError.
        """
        with self._lock:
            in_hand = frozenset(self._in_hand)
        strays = self._spool.change(lambda ledger: ledger.restart_deliveries(self.name, in_hand))
        self._doubtful = False
        if strays:
            log.warning("claims_restarted dest=%s objects=%d", self.name, strays)

    def _offers(self, claim: Claim) -> list[tuple[str, str]]:
        with self._lock:
            helds = [claim.held, *(waiting.held for ready in self._ready.values() for waiting in ready)]
        pairs = dict.fromkeys((held.instance.sop_class_uid, held.instance.transfer_syntax_uid) for held in helds)
        classes = dict.fromkeys(sop_class for sop_class, _ in pairs)
        return [*pairs, *((sop_class, syntax) for sop_class in classes for syntax in self.shaper.candidates())]

    def _carry(
        self, number: int, courier: Courier, claim: Claim, stop: threading.Event, beat: Callable[[], None]
    ) -> None:
        """Deliver one instance and write down what became of it."""
        held, started = claim.held, time.monotonic()
        pace = Pace(self.limits.values(), claim.priority, self.throughput, stop, beat, lambda: self._settle_own(number))
        paced = Paced(courier, pace)
        self._busy.add(number)
        try:
            verdict = self._carrier.carry(paced, claim, self._offers(claim), beat)
        except Stopped:
            with self._lock:
                self._ready[claim.priority].appendleft(claim)  # given back with the others
            return
        except CustodyRot as rot:
            if self._quarantine(held, rot):
                return
            verdict = Verdict.deferred(Blame.GATEWAY, text=rot.detail)
        except SpoolError as error:  # too many open files, say: neither the instance nor the destination is ill
            verdict = Verdict.deferred(Blame.GATEWAY, text=error.detail)
        finally:
            self._busy.discard(number)
        if verdict.outcome is Outcome.ACCEPTED:
            self.stays.add(time.time() - held.instance.received_at)
        delay_s = self._delay_after(claim, verdict)
        log.log(
            logging.INFO if verdict.outcome is Outcome.ACCEPTED else logging.WARNING,
            "%s object=%s dest=%s ms=%d bytes=%d code=0x%04X reason=%r",
            "delivered" if verdict.outcome is Outcome.ACCEPTED else verdict.outcome.value,
            held.instance.object_id,
            self.name,
            (time.monotonic() - started) * 1000,
            held.instance.length,
            verdict.code,
            verdict.text,
        )
        self._own[number] = self._record(claim, verdict, delay_s)

    def _delay_after(self, claim: Claim, verdict: Verdict) -> float:
        """Judge the destination's health by a verdict; return how long this instance waits."""
        if verdict.outcome is Outcome.ACCEPTED:
            with self._lock:
                self.health.delivered += 1
                self.throughput.add(time.monotonic(), objects=1)
                self.health.delivered_at = time.time()
                self.health.attempts = 0
                self.health.failing_since = 0.0
                self._well()
            return 0.0 if self.settings.confirm == "stored" else self.settings.confirm_after_s
        if verdict.outcome is Outcome.DEFERRED and verdict.blame is Blame.DESTINATION:
            return self._fall_ill(verdict)
        return self._back_off_s(claim.attempts, verdict)

    def _back_off_s(self, attempts: int, verdict: Verdict) -> float:
        """Return our own delay on top of what is asked, or all boxes that were sent away would return at one moment."""
        first_s, ceiling_s = self.settings.retry_first_s, self.settings.retry_ceiling_s
        return min(ceiling_s, verdict.wait_s + next_delay_s(attempts, first_s, ceiling_s, random.random()))

    def _fall_ill(self, verdict: Verdict) -> float:
        with self._lock:
            health, now = self.health, time.monotonic()
            retry_at, alone = now + self._back_off_s(health.attempts, verdict), health.retry_at <= now
            health.attempts += alone  # couriers that fail together count as one failure
            if alone or verdict.wait_s:
                health.retry_at = max(health.retry_at, retry_at)
            health.failing_since = health.failing_since or now
            health.reason, health.code = verdict.text, verdict.code
            if not health.ill:
                health.ill_since = now
                log.warning("destination_ill dest=%s reason=%r", self.name, verdict.text)
            delay_s = max(0.0, health.retry_at - now)
        self._give_back()
        return delay_s

    def _well(self) -> None:
        if self.health.ill:
            log.warning("destination_well dest=%s", self.name)
        self.health.ill_since, self.health.reason = 0.0, ""

    def _probe_if_due(self, courier: Courier) -> bool:
        """Ask an ill destination when its time has come, one courier for all; return whether it is well."""
        with self._lock:
            if self.health.probing or time.monotonic() < self.health.retry_at:
                return False
            self.health.probing = True
        try:
            verdict = courier.probe()
            if verdict.outcome is Outcome.ACCEPTED:
                with self._lock:
                    self._well()
                return True
            self._fall_ill(verdict)
            return False
        finally:
            with self._lock:
                self.health.probing = False

    @property
    def given_up(self) -> bool:
        """True when the destination fails for so long that another of its failover group is to take its place."""
        health = self.health
        return health.ill and time.monotonic() - health.failing_since >= self.settings.failover_after_s

    def _divert(self) -> None:
        """Let stand-ins have what waits here and may go there."""
        now = time.monotonic()
        with self._lock:
            if not self.given_up or now - self._diverted_at < DIVERT_S:
                return
            self._diverted_at = now
        well = self._stand_ins()
        moved = 0
        try:
            while well and (step := self._spool.change(lambda ledger: ledger.reroute(self.name, well, DIVERT_BATCH))):
                moved += step
        except SpoolError:
            pass  # the committer has said so; what went is written down, the rest is asked for again
        if moved:
            log.warning("rerouted dest=%s objects=%d", self.name, moved)

    def limited_by(self) -> str | None:
        """Return whose bandwidth holds deliveries back at present: "destination", "box", or None."""
        now = time.monotonic()
        return next((name for name, limit in self.limits.items() if limit.holds_back(now)), None)

    def pause(self, for_s: float) -> None:
        """Let nothing leave for so long, 0 ends it; claims that nobody has begun go back into the queue."""
        self.health.paused_until = time.monotonic() + for_s if for_s else 0.0
        if for_s:
            self._give_back()

    def retry_now(self) -> None:
        """Let the next probe be at once: a person asked for it."""
        with self._lock:
            self.health.retry_at = 0.0

    def _record(self, claim: Claim, verdict: Verdict, delay_s: float) -> Wish[None] | None:
        """Have a verdict written down; the next instance is on its way meanwhile."""
        with self._lock:  # whoever claims it again must find it among those that are being written down
            try:
                wish = self._spool.record(claim, verdict, delay_s, suffices=self.settings.confirm == "stored")
            except SpoolError:
                self._unrecorded.append((claim, verdict, delay_s))
                return None
            self._recording.append((wish, claim, verdict, delay_s))
            return wish

    def _settle_own(self, number: int) -> None:
        """Wait until the last verdict of this courier is durable: after a crash, one instance for each association is
        sent once more at most. A ledger that fails or is silent stops no delivery."""
        wish = self._own.pop(number, None)
        if wish is not None:
            wish.wait(RECORD_WAIT_S)

    def _settle(self, *, wait: bool) -> None:
        """Let go of what is written down; what could not be stays in hand, so that it is not sent again."""
        for wish, *_ in list(self._recording) if wait else ():
            wish.wait(REPLY_PATIENCE_S)  # what waits still then is settled another time
        with self._lock:
            taken = [entry for entry in self._recording if entry[0].done]
            self._recording = [entry for entry in self._recording if entry not in taken]
            for wish, claim, verdict, delay_s in taken:
                try:
                    wish.outcome()
                except SpoolError:
                    self._unrecorded.append((claim, verdict, delay_s))
                else:
                    self._in_hand.discard(claim.held.seq)

    def _record_late(self) -> None:
        self._settle(wait=len(self._recording) > MAX_RECORDING)
        with self._lock:
            if not self._unrecorded or self._spool.committer.fault:
                return
            late, self._unrecorded = self._unrecorded, []
        for claim, verdict, delay_s in late:
            self._record(claim, verdict, delay_s)

    def _quarantine(self, held: Held, rot: CustodyRot) -> bool:
        """Put a rotten instance aside; False when that cannot be written down at present: it is found again."""
        log.error("custody_rot object=%s reason=%s", held.instance.object_id, rot.detail)
        try:
            self._spool.quarantine(held, rot.detail)
        except SpoolError as error:
            log.error("quarantine_failed object=%s reason=%s", held.instance.object_id, error.detail)
            return False
        with self._lock:
            self._in_hand.discard(held.seq)
        return True

    def _give_back(self, classes: Iterable[Priority] = Priority) -> None:
        """Put claims that nobody has begun back into the queue."""
        with self._lock:
            claims = [claim for priority in classes for claim in self._ready[priority]]
            seqs = [claim.held.seq for claim in claims]
            for priority in classes:
                self._ready[priority].clear()
            self._in_hand.difference_update(seqs)
        if not seqs:
            return
        try:
            self._spool.change(lambda ledger: ledger.operate(seqs, self.name, DeliveryEvent.RESTARTED))
        except SpoolError:  # the ledger says that they are ours: they stay, and go when they may
            with self._lock:
                self._in_hand.update(seqs)
                for claim in reversed(claims):
                    self._ready[claim.priority].appendleft(claim)
