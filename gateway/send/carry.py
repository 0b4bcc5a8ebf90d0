"""How one instance is carried, as it came or as its recipe makes it: the only place where spool, prepare and courier
meet."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from gateway.model.errors import CustodyRot, PrepareError, PrepareLater, SpoolError
from gateway.model.transfer_syntax import LOSSY_METHODS
from gateway.model.verdict import Blame, Outcome, Verdict
from gateway.prepare.recipe import Rendition
from gateway.prepare.worker import Renderer
from gateway.send.courier import Body, Consignment, Courier
from gateway.send.shaping import Shaper
from gateway.spool.capacity import Room
from gateway.spool.rows import Claim, Held
from gateway.spool.spool import Spool

log = logging.getLogger("gateway.send")


@dataclass(frozen=True, slots=True)
class Cargo:
    """What is to go: the instance as it came, or what was made of it. Its Transfer Syntax may yet have to change."""

    sop_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    length: int
    open: Callable[[], Iterator[bytes]]
    """Yields the data set; the last block only after the whole matched (contract D3)."""
    made: Rendition | None = None
    """None: as it came."""


class Carrier:
    """Carries instances to one destination, by whichever of its couriers."""

    def __init__(
        self, name: str, spool: Spool, renderer: Renderer, shaper: Shaper, *, allow_decompress: bool = False
    ) -> None:
        self._name = name
        self._spool = spool
        self._renderer = renderer
        self._shaper = shaper
        self._allow_decompress = allow_decompress

    def carry(
        self, courier: Courier, claim: Claim, offers: Sequence[tuple[str, str]], beat: Callable[[], None]
    ) -> Verdict:
        """Deliver one instance; `offers` are the (SOP Class, Transfer Syntax) pairs that wait. Raises CustodyRot,
        SpoolError.

        With a recipe nothing but what it makes ever goes: when it cannot be applied, that is the verdict.
        """
        try:
            cargo = self._cargo(claim, beat)
        except PrepareLater as error:
            return Verdict.deferred(Blame.GATEWAY, text=f"not sent: {error.detail}")
        except PrepareError as error:
            return Verdict.refused(text=f"not sent, {' and '.join(claim.recipe)} cannot be applied: {error.detail}")
        own = claim.held.instance.sop_instance_uid
        try:
            verdict = self._carry_cargo(courier, claim.held, cargo, offers, beat)
            return verdict if cargo.sop_instance_uid == own else replace(verdict, sent_as=cargo.sop_instance_uid)
        finally:
            self._discard(cargo)

    def _cargo(self, claim: Claim, beat: Callable[[], None]) -> Cargo:
        """Return what the recipe makes of the instance, or the instance; raises PrepareError, SpoolError."""
        held, instance = claim.held, claim.held.instance
        original = Cargo(
            instance.sop_instance_uid,
            instance.header.study_instance_uid,
            instance.transfer_syntax_uid,
            instance.length,
            lambda: self._spool.body(held),
        )
        if not claim.recipe:
            return original
        self._check_room()
        self._prove(original, beat)
        return self._cargo_of(self._renderer.apply(held, claim.recipe, beat))

    def _cargo_of(self, made: Rendition) -> Cargo:
        return Cargo(
            made.sop_instance_uid,
            made.study_instance_uid,
            made.transfer_syntax_uid,
            made.length,
            lambda: self._spool.store.derived_body(made.path, made.sha256),
            made,
        )

    def _discard(self, cargo: Cargo) -> None:
        if cargo.made is not None:
            self._renderer.clear(cargo.made.path)

    def _carry_cargo(
        self, courier: Courier, held: Held, cargo: Cargo, offers: Sequence[tuple[str, str]], beat: Callable[[], None]
    ) -> Verdict:
        """Carry it in the Transfer Syntax that the line wants, else in its own, else in one that the peer takes."""
        started = time.monotonic()
        target = self._shaper.wanted(held.instance.sop_class_uid, cargo.transfer_syntax_uid, started)
        through, done = self._shaper.through[target], 0
        through.begin(started)
        try:
            courier.prepare(offers)
            verdict = self._carry_coded(courier, held, cargo, target, beat) if target is not None else None
            if verdict is None:
                verdict = self._hand_over(courier, held, cargo, beat)
                if verdict.syntax_refused:
                    verdict = self._carry_rendition(courier, held, cargo, verdict, beat)
            self._shaper.learn(held.instance.sop_class_uid, courier.accepts(held.instance.sop_class_uid))
            done = cargo.length if verdict.outcome is Outcome.ACCEPTED else 0
            return verdict
        finally:
            through.end(time.monotonic(), done)

    def _hand_over(self, courier: Courier, held: Held, cargo: Cargo, beat: Callable[[], None]) -> Verdict:
        """Let the courier carry, and measure the line by it."""
        consignment = Consignment(
            held.instance.object_id,
            held.instance.sop_class_uid,
            cargo.sop_instance_uid,
            cargo.study_instance_uid,
            cargo.transfer_syntax_uid,
            cargo.length,
            self._beating(cargo.open, beat),
        )
        self._shaper.line.begin(time.monotonic())
        carried = 0
        try:
            verdict = courier.deliver(consignment)
            if verdict.outcome is Outcome.ACCEPTED:
                carried = consignment.length
            return verdict
        finally:
            self._shaper.line.end(time.monotonic(), carried)

    @staticmethod
    def _beating(open_body: Callable[[], Iterator[bytes]], beat: Callable[[], None]) -> Body:
        def body() -> Iterator[bytes]:
            for block in open_body():
                beat()
                yield block

        return body

    def _carry_coded(
        self, courier: Courier, held: Held, cargo: Cargo, target: str, beat: Callable[[], None]
    ) -> Verdict | None:
        """Carry it in the Transfer Syntax `target`; None: it is to go in its own."""
        try:
            self._check_room()
            self._prove(cargo, beat)
            rendition = self._renderer.render_in(held, target, beat, cargo.made)
        except CustodyRot:
            raise
        except (PrepareError, SpoolError) as error:  # a disk without room for a rendition holds what is to go
            self._shaper.passed_on += 1
            log.info("passed_on object=%s dest=%s reason=%r", held.instance.object_id, self._name, error.detail)
            return None
        verdict = self._carry_made(courier, held, rendition, beat)
        if verdict.outcome is Outcome.REFUSED:
            self._shaper.refuse(held.instance.sop_class_uid, target)
            return None
        if verdict.outcome is Outcome.ACCEPTED:
            self._shaper.count(target, cargo.length, rendition.length)
            share = 100 * rendition.length / cargo.length
            verdict = replace(verdict, text=f"{verdict.text}; sent in {target}, {share:.0f} % of its size")
        return verdict

    def _check_room(self) -> None:
        """Raise SpoolError when there is no room for a rendition: the reserve is not for it, and that it fails is not
        to be blamed on the instance."""
        capacity = self._spool.capacity()
        if capacity.room is Room.FULL:
            raise SpoolError(f"no room for a rendition: {capacity.reason}")

    @staticmethod
    def _prove(cargo: Cargo, beat: Callable[[], None]) -> None:
        """Read it through: a rendition of rotten bytes would carry a good hash."""
        for _ in cargo.open():
            beat()

    def _carry_made(self, courier: Courier, held: Held, rendition: Rendition, beat: Callable[[], None]) -> Verdict:
        cargo = self._cargo_of(rendition)
        try:
            return self._hand_over(courier, held, cargo, beat)
        finally:
            self._discard(cargo)

    def _carry_rendition(
        self, courier: Courier, held: Held, cargo: Cargo, refusal: Verdict, beat: Callable[[], None]
    ) -> Verdict:
        """Try once more in a Transfer Syntax that the peer takes; the refusal stands when there is none."""
        accepted = courier.accepts(held.instance.sop_class_uid) or frozenset()
        allowed = self._allow_decompress
        try:
            self._check_room()
            self._prove(cargo, beat)
            rendition = self._renderer.render(held, accepted, beat, allow_decompress=allowed, made=cargo.made)
        except PrepareError as error:
            return Verdict.refused(refusal.code, f"{refusal.text}; no rendition: {error.detail}")
        if rendition is not None:
            return self._carry_made(courier, held, rendition, beat)
        if cargo.transfer_syntax_uid in LOSSY_METHODS and not allowed:
            return replace(refusal, text=f"{refusal.text}; lossy pixels are decoded only with allow_decompress")
        return refusal
