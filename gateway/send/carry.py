"""How one instance is carried, as it came or in a rendition: the only place where spool, prepare and courier meet."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from gateway.model.errors import CustodyRot, PrepareError, SpoolError
from gateway.model.transfer_syntax import LOSSY_METHODS
from gateway.model.verdict import Outcome, Verdict
from gateway.prepare.recipe import Rendition
from gateway.prepare.worker import Renderer
from gateway.send.courier import Body, Consignment, Courier
from gateway.send.shaping import Shaper
from gateway.spool.capacity import Room
from gateway.spool.rows import Claim, Held
from gateway.spool.spool import Spool

log = logging.getLogger("gateway.send")


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
        SpoolError."""
        held, started = claim.held, time.monotonic()
        target = self._shaper.wanted(held.instance, started)
        through, done = self._shaper.through[target], 0
        through.begin(started)
        try:
            courier.prepare(offers)
            verdict = self._carry_coded(courier, held, target, beat) if target is not None else None
            if verdict is None:
                verdict = self._hand_over(courier, self._original(held, beat))
                if verdict.syntax_refused:
                    verdict = self._carry_rendition(courier, held, verdict, beat)
            self._shaper.learn(held.instance.sop_class_uid, courier.accepts(held.instance.sop_class_uid))
            done = held.instance.length if verdict.outcome is Outcome.ACCEPTED else 0
            return verdict
        finally:
            through.end(time.monotonic(), done)

    def _hand_over(self, courier: Courier, consignment: Consignment) -> Verdict:
        """Let the courier carry, and measure the line by it."""
        self._shaper.line.begin(time.monotonic())
        carried = 0
        try:
            verdict = courier.deliver(consignment)
            if verdict.outcome is Outcome.ACCEPTED:
                carried = consignment.length
            return verdict
        finally:
            self._shaper.line.end(time.monotonic(), carried)

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
            self._check_room()
            self._prove(held, beat)
            rendition = self._renderer.render_in(held, target, beat)
        except CustodyRot:
            raise
        except (PrepareError, SpoolError) as error:  # a disk without room for a rendition holds the original
            self._shaper.passed_on += 1
            log.info("passed_on object=%s dest=%s reason=%r", held.instance.object_id, self._name, error.detail)
            return None
        verdict = self._carry_made(courier, held, rendition, beat)
        if verdict.outcome is Outcome.REFUSED:
            self._shaper.refuse(held.instance.sop_class_uid, target)
            return None
        if verdict.outcome is Outcome.ACCEPTED:
            self._shaper.renditions += 1
            self._shaper.saved_bytes += held.instance.length - rendition.length
            share = 100 * rendition.length / held.instance.length
            verdict = replace(verdict, text=f"{verdict.text}; sent in {target}, {share:.0f} % of its size")
        return verdict

    def _check_room(self) -> None:
        """Raise SpoolError when there is no room for a rendition: the reserve is not for it, and that it fails is not
        to be blamed on the instance."""
        capacity = self._spool.capacity()
        if capacity.room is Room.FULL:
            raise SpoolError(f"no room for a rendition: {capacity.reason}")

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
            self._renderer.clear(rendition.path)

    def _carry_rendition(self, courier: Courier, held: Held, refusal: Verdict, beat: Callable[[], None]) -> Verdict:
        """Try once more in a Transfer Syntax that the peer takes; the refusal stands when there is none."""
        accepted = courier.accepts(held.instance.sop_class_uid) or frozenset()
        try:
            self._check_room()
            self._prove(held, beat)
            rendition = self._renderer.render(held, accepted, beat, allow_decompress=self._allow_decompress)
        except PrepareError as error:
            return Verdict.refused(refusal.code, f"{refusal.text}; no rendition: {error.detail}")
        if rendition is not None:
            return self._carry_made(courier, held, rendition, beat)
        if held.instance.transfer_syntax_uid in LOSSY_METHODS and not self._allow_decompress:
            return replace(refusal, text=f"{refusal.text}; lossy pixels are decoded only with allow_decompress")
        return refusal
