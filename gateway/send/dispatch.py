"""Lanes: one per destination, a few couriers each. The only place where spool, prepare and a courier meet.

Who is to blame decides who waits (contract D9): an ill destination makes its whole lane wait behind one probe, a
refused instance is HELD alone and the rest goes on. Nothing is ever dropped.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from gateway.config.destinations import DestinationSettings
from gateway.model.errors import CustodyRot, PrepareError, SpoolError
from gateway.model.lifecycle import DeliveryEvent
from gateway.model.verdict import Blame, Outcome, Verdict
from gateway.prepare.recipe import Rendition
from gateway.prepare.worker import Renderer
from gateway.send.backoff import next_delay_s
from gateway.send.courier import Body, Consignment, Courier
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
IDLE_WAIT_S = 0.5
"""The wake-up is only a hint: what is due by the clock is found by looking this often."""


@dataclass
class Health:
    """How a destination is."""

    ill_since: float = 0.0
    """Monotonic time; 0 when it is well."""
    retry_at: float = 0.0
    attempts: int = 0
    reason: str = ""
    delivered: int = 0
    probing: bool = field(default=False, repr=False)

    @property
    def ill(self) -> bool:
        """True while the lane waits behind one probe."""
        return self.ill_since > 0


class Lane:
    """All deliveries to one destination."""

    def __init__(
        self, settings: DestinationSettings, spool: Spool, make_courier: Callable[[], Courier], renderer: Renderer
    ) -> None:
        self.settings = settings
        self.health = Health()
        self._spool = spool
        self._make_courier = make_courier
        self._renderer = renderer
        self.shaper = Shaper(settings.compression, renderer.rates)
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
                if self.health.ill and not self._probe_if_due(courier):
                    courier.close()
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
        target = self.shaper.wanted(held.instance, started)
        through, done = self.shaper.through[target], 0
        through.begin(started)
        try:
            courier.prepare(self._offers(claim))
            verdict = self._carry_coded(courier, held, target, beat) if target is not None else None
            if verdict is None:
                verdict = self._hand_over(courier, self._original(held, beat))
                if verdict.syntax_refused:
                    verdict = self._carry_rendition(courier, held, verdict, beat)
            self.shaper.learn(held.instance.sop_class_uid, courier.accepts(held.instance.sop_class_uid))
            done = held.instance.length if verdict.outcome is Outcome.ACCEPTED else 0
        except CustodyRot as rot:
            self._quarantine(held, rot)
            return
        finally:
            through.end(time.monotonic(), done)
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

    def _hand_over(self, courier: Courier, consignment: Consignment) -> Verdict:
        """Let the courier carry, and measure the line by it."""
        self.shaper.line.begin(time.monotonic())
        carried = 0
        try:
            verdict = courier.deliver(consignment)
            if verdict.outcome is Outcome.ACCEPTED:
                carried = consignment.length
            return verdict
        finally:
            self.shaper.line.end(time.monotonic(), carried)

    def _original(self, held: Held, beat: Callable[[], None]) -> Consignment:
        return self._consignment(
            held,
            held.instance.transfer_syntax_uid,
            held.instance.length,
            self._beating(lambda: self._spool.body(held), beat),
        )

    def _consignment(self, held: Held, transfer_syntax_uid: str, length: int, body: Body) -> Consignment:
        instance = held.instance
        return Consignment(
            instance.object_id,
            instance.sop_class_uid,
            instance.sop_instance_uid,
            instance.header.study_instance_uid,
            transfer_syntax_uid,
            length,
            body,
        )

    @staticmethod
    def _beating(open_body: Callable[[], Iterator[bytes]], beat: Callable[[], None]) -> Body:
        def body() -> Iterator[bytes]:
            for block in open_body():
                beat()
                yield block

        return body

    def _carry_coded(self, courier: Courier, held: Held, target: str, beat: Callable[[], None]) -> Verdict | None:
        """Carry the instance in the Transfer Syntax `target`; None: the original is to go."""
        try:
            self._prove(held, beat)
            rendition = self._renderer.render_in(held, target)
        except PrepareError as error:
            self.shaper.passed_on += 1
            log.info("passed_on object=%s dest=%s reason=%r", held.instance.object_id, self.name, error.detail)
            return None
        verdict = self._carry_made(courier, held, rendition, beat)
        if verdict.outcome is Outcome.REFUSED:
            self.shaper.refuse(held.instance.sop_class_uid, target)
            return None
        if verdict.outcome is Outcome.ACCEPTED:
            self.shaper.renditions += 1
            self.shaper.saved_bytes += held.instance.length - rendition.length
            share = 100 * rendition.length / held.instance.length
            verdict = replace(verdict, text=f"{verdict.text}; sent in {target}, {share:.0f} % of its size")
        return verdict

    def _prove(self, held: Held, beat: Callable[[], None]) -> None:
        """Read the instance through: a rendition of rotten bytes would carry a good hash."""
        for _ in self._spool.body(held):
            beat()

    def _carry_made(self, courier: Courier, held: Held, rendition: Rendition, beat: Callable[[], None]) -> Verdict:
        body = self._beating(lambda: self._spool.store.derived_body(rendition.path, rendition.sha256), beat)
        try:
            return self._hand_over(
                courier, self._consignment(held, rendition.transfer_syntax_uid, rendition.length, body)
            )
        finally:
            rendition.path.unlink(missing_ok=True)

    def _carry_rendition(self, courier: Courier, held: Held, refusal: Verdict, beat: Callable[[], None]) -> Verdict:
        """Try once more in a Transfer Syntax that the peer takes; the refusal stands when there is none."""
        accepted = courier.accepts(held.instance.sop_class_uid) or frozenset()
        try:
            self._prove(held, beat)
            rendition = self._renderer.render(held, accepted)
        except PrepareError as error:
            return Verdict.refused(refusal.code, f"{refusal.text}; no rendition: {error.detail}")
        return refusal if rendition is None else self._carry_made(courier, held, rendition, beat)

    def _delay_after(self, claim: Claim, verdict: Verdict) -> float:
        """Judge the destination's health by a verdict; return how long this instance waits."""
        first_s, ceiling_s = self.settings.retry_first_s, self.settings.retry_ceiling_s
        if verdict.outcome is Outcome.ACCEPTED:
            with self._lock:
                self.health.delivered += 1
                self.health.attempts = 0
                self._well()
            return 0.0
        if verdict.outcome is Outcome.DEFERRED and verdict.blame is Blame.DESTINATION:
            return self._fall_ill(verdict.text)
        return next_delay_s(claim.attempts, first_s, ceiling_s, random.random())

    def _fall_ill(self, reason: str) -> float:
        with self._lock:
            health, now = self.health, time.monotonic()
            if health.retry_at <= now:  # couriers that fail together count as one failure
                delay_s = next_delay_s(
                    health.attempts, self.settings.retry_first_s, self.settings.retry_ceiling_s, random.random()
                )
                health.attempts += 1
                health.retry_at = now + delay_s
            if not health.ill:
                health.ill_since = now
                log.warning("destination_ill dest=%s reason=%r", self.name, reason)
            health.reason = reason
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
            self._fall_ill(verdict.text)
            return False
        finally:
            with self._lock:
                self.health.probing = False

    def retry_now(self) -> None:
        """Let the next probe be at once: a person asked for it."""
        with self._lock:
            self.health.retry_at = 0.0

    def _record(self, claim: Claim, verdict: Verdict, delay_s: float) -> None:
        """Have a verdict written down; the next instance need not wait until that is durable: at worst it is sent
        once more after a crash, which is harmless."""
        try:
            wish = self._spool.record(claim, verdict, delay_s)
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
