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
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from gateway.config.destinations import DestinationSettings
from gateway.model.backoff import next_delay_s
from gateway.model.errors import CustodyRot, SpoolError
from gateway.model.lifecycle import DeliveryEvent
from gateway.model.verdict import Blame, Outcome, Verdict
from gateway.prepare.worker import Renderer
from gateway.send.carry import Carrier
from gateway.send.courier import Courier
from gateway.send.shaping import Shaper
from gateway.spool.committer import Wish
from gateway.spool.rows import Claim, Held
from gateway.spool.spool import Spool

log = logging.getLogger("gateway.send")

CLAIMS_PER_COURIER = 8
MAX_RECORDING = 64
"""Verdicts that may be on their way into the ledger."""
CLAIMS_PER_ASSOCIATION = 4
SOLO_S = 1.0
"""A further courier helps when so much waits, or when the first is busy for so long with one instance."""
DIVERT_S = 5.0
"""Between looks whether something waits behind an ill destination that another may have."""
DIVERT_BATCH = 200
"""Deliveries moved in one transaction: scanners wait no longer than for that."""
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
    ) -> None:
        """`stand_ins` names the destinations that can take this one's place at present."""
        self.settings = settings
        self.health = Health()
        self._spool = spool
        self._make_courier = make_courier
        self._stand_ins = stand_ins
        self._diverted_at = 0.0
        self.shaper = Shaper(settings.compression, renderer.rates)
        self._carrier = Carrier(settings.name, spool, renderer, self.shaper, allow_decompress=settings.allow_decompress)
        self._lock = threading.Lock()
        self._refilling = threading.Lock()
        self._ready: deque[Claim] = deque()
        self._in_hand: set[int] = set()
        """Instances this process has claimed and not yet written down the end of."""
        self._ready_since = 0.0
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
                    self._divert()
                    stop.wait(IDLE_WAIT_S)
                    continue
                claim = self._next(number)
                if claim is not None:
                    self._carry(courier, claim, beat)
                    busy_at = time.monotonic()
                    continue
                if self._ready:
                    stop.wait(SOLO_S / 10 if number else 0)
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
        """Return an instance to carry. A little work stays with the first courier: many archives serve one
        association after the other, and a second one would stand in their queue for nothing."""
        self._record_late()
        with self._lock:
            if self._ready:
                waited_s = time.monotonic() - self._ready_since
                enough = len(self._ready) > CLAIMS_PER_ASSOCIATION * number or waited_s > SOLO_S
                return self._ready.popleft() if number == 0 or enough else None
        self._refill()
        return None

    def _refill(self) -> None:
        if not self._refilling.acquire(blocking=False):
            return
        try:
            limit = CLAIMS_PER_COURIER * self.settings.associations + len(self._in_hand)
            claims = self._spool.claim(self.name, limit, self.settings.retry_ceiling_s)
        except SpoolError:
            return  # the committer has said so; delivery goes on when the ledger can be asked again
        finally:
            self._refilling.release()
        with self._lock:
            fresh = [claim for claim in claims if claim.held.seq not in self._in_hand]
            self._in_hand.update(claim.held.seq for claim in fresh)
            self._ready.extend(fresh)
            self._ready_since = time.monotonic()

    def _offers(self, claim: Claim) -> list[tuple[str, str]]:
        with self._lock:
            helds = [claim.held, *(waiting.held for waiting in self._ready)]
        pairs = dict.fromkeys((held.instance.sop_class_uid, held.instance.transfer_syntax_uid) for held in helds)
        classes = dict.fromkeys(sop_class for sop_class, _ in pairs)
        return [*pairs, *((sop_class, syntax) for sop_class in classes for syntax in self.shaper.candidates())]

    def _carry(self, courier: Courier, claim: Claim, beat: Callable[[], None]) -> None:
        """Deliver one instance and write down what became of it."""
        held, started = claim.held, time.monotonic()
        try:
            verdict = self._carrier.carry(courier, claim, self._offers(claim), beat)
        except CustodyRot as rot:
            self._quarantine(held, rot)
            return
        except SpoolError as error:  # too many open files, say: neither the instance nor the destination is ill
            verdict = Verdict.deferred(Blame.GATEWAY, text=error.detail)
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
        self._record(claim, verdict, delay_s)

    def _delay_after(self, claim: Claim, verdict: Verdict) -> float:
        """Judge the destination's health by a verdict; return how long this instance waits."""
        first_s, ceiling_s = self.settings.retry_first_s, self.settings.retry_ceiling_s
        if verdict.outcome is Outcome.ACCEPTED:
            with self._lock:
                self.health.delivered += 1
                self.health.delivered_at = time.time()
                self.health.attempts = 0
                self.health.failing_since = 0.0
                self._well()
            return 0.0 if self.settings.confirm == "stored" else self.settings.confirm_after_s
        if verdict.outcome is Outcome.DEFERRED and verdict.blame is Blame.DESTINATION:
            return self._fall_ill(verdict)
        return next_delay_s(claim.attempts, first_s, ceiling_s, random.random())

    def _fall_ill(self, verdict: Verdict) -> float:
        with self._lock:
            health, now = self.health, time.monotonic()
            if health.retry_at <= now:  # couriers that fail together count as one failure
                delay_s = next_delay_s(
                    health.attempts, self.settings.retry_first_s, self.settings.retry_ceiling_s, random.random()
                )
                health.attempts += 1
                health.retry_at = now + delay_s
            health.failing_since = health.failing_since or now
            if not health.ill:
                health.ill_since = now
                log.warning("destination_ill dest=%s reason=%r", self.name, verdict.text)
            health.reason, health.code = verdict.text, verdict.code
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

    def pause(self, for_s: float) -> None:
        """Let nothing leave for so long, 0 ends it; claims that nobody has begun go back into the queue."""
        self.health.paused_until = time.monotonic() + for_s if for_s else 0.0
        if for_s:
            self._give_back()

    def retry_now(self) -> None:
        """Let the next probe be at once: a person asked for it."""
        with self._lock:
            self.health.retry_at = 0.0

    def _record(self, claim: Claim, verdict: Verdict, delay_s: float) -> None:
        """Have a verdict written down; the next instance need not wait until that is durable: at worst it is sent
        once more after a crash, which is harmless."""
        try:
            wish = self._spool.record(claim, verdict, delay_s, suffices=self.settings.confirm == "stored")
        except SpoolError:
            with self._lock:
                self._unrecorded.append((claim, verdict, delay_s))
            return
        with self._lock:
            self._recording.append((wish, claim, verdict, delay_s))

    def _settle(self, *, wait: bool) -> None:
        """Let go of what is written down; what could not be stays in hand, so that it is not sent again."""
        with self._lock:
            taken = [entry for entry in self._recording if wait or entry[0].done]
            self._recording = [entry for entry in self._recording if entry not in taken]
        for wish, claim, verdict, delay_s in taken:
            try:
                wish.outcome()
            except SpoolError:
                with self._lock:
                    self._unrecorded.append((claim, verdict, delay_s))
                continue
            with self._lock:
                self._in_hand.discard(claim.held.seq)

    def _record_late(self) -> None:
        self._settle(wait=len(self._recording) > MAX_RECORDING)
        with self._lock:
            if not self._unrecorded or self._spool.committer.fault:
                return
            late, self._unrecorded = self._unrecorded, []
        for claim, verdict, delay_s in late:
            self._record(claim, verdict, delay_s)

    def _quarantine(self, held: Held, rot: CustodyRot) -> None:
        log.error("custody_rot object=%s reason=%s", held.instance.object_id, rot.detail)
        try:
            self._spool.quarantine(held, rot.detail)
        except SpoolError as error:
            log.error("quarantine_failed object=%s reason=%s", held.instance.object_id, error.detail)
        with self._lock:
            self._in_hand.discard(held.seq)

    def _give_back(self) -> None:
        """Put claims that nobody has begun back into the queue."""
        with self._lock:
            seqs = [claim.held.seq for claim in self._ready]
            self._ready.clear()
            self._in_hand.difference_update(seqs)
        if seqs:
            try:
                self._spool.change(lambda ledger: ledger.operate(seqs, self.name, DeliveryEvent.RESTARTED))
            except SpoolError:
                return  # the next start puts them back
