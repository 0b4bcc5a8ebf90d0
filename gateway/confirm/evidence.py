"""One room per destination whose word does not suffice: it asks a witness about what was sent (contract D7).

An instance stays SENT, and its bytes stay here, until there is evidence. What the archive does not have goes again.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.config.destinations import DestinationSettings
from gateway.model.backoff import next_delay_s
from gateway.model.errors import SpoolError
from gateway.spool.rows import Sent
from gateway.spool.spool import Spool

log = logging.getLogger("gateway.confirm")

PULSE_S = 0.5
BATCH = 500
"""Instances asked about at a time: a request of some 70 KB."""
MISSES = 3
"""An archive that took an instance so often and does not have it will not have it the next time: a person is needed."""


class Unanswered(Exception):
    """The witness could not be asked, or did not answer; the text says why, for a person."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a witness said at once; what is in neither is answered later, or asked again."""

    kept: Collection[int] = ()
    """`Sent.seq` of what the archive has."""
    missed: Mapping[int, str] = field(default_factory=dict)
    """`Sent.seq` of what it does not have, with the reason in words."""


class Witness(Protocol):
    """Knows whether an archive has what it was sent."""

    evidence: str
    """How the history calls its word."""

    def ask(self, sent: Sequence[Sent], beat: Callable[[], None]) -> Findings:
        """Ask about instances, written down as asked before anything leaves; raises Unanswered, SpoolError."""
        ...


def settle(spool: Spool, destination: str, findings: Findings, evidence: str, resend_after_s: float) -> None:
    """Write down what a witness said; raises SpoolError."""
    at = time.time() + resend_after_s
    by_reason: dict[str, list[int]] = {}
    for seq, reason in findings.missed.items():
        by_reason.setdefault(reason, []).append(seq)
    kept = spool.change(lambda ledger: ledger.confirm(findings.kept, destination, evidence))
    missed = 0
    for reason, seqs in by_reason.items():
        missed += spool.change(
            lambda ledger, seqs=seqs, reason=reason: ledger.miss(seqs, destination, reason, at, MISSES)  # type: ignore[misc]
        )
    if kept:
        log.info("confirmed dest=%s objects=%d by=%s", destination, kept, evidence)
    if missed:
        log.error("missed dest=%s objects=%d by=%s reason=%r", destination, missed, evidence, next(iter(by_reason)))


class Evidence:
    """Gets evidence for one destination."""

    def __init__(self, settings: DestinationSettings, spool: Spool, witness: Witness) -> None:
        self._settings = settings
        self._spool = spool
        self._witness = witness
        self._attempts = 0
        self.reason = ""
        """Why the witness could not be asked the last time; empty when it could."""

    def run(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Ask about what is due until stopped."""
        settings = self._settings
        pause_s = PULSE_S
        while not stop.wait(min(pause_s, PULSE_S)):
            beat()
            pause_s -= PULSE_S
            if pause_s > 0:
                continue
            pause_s = PULSE_S
            try:
                self._look(beat)
            except Unanswered as error:
                pause_s = next_delay_s(
                    self._attempts, settings.retry_first_s, settings.retry_ceiling_s, random.random()
                )
                self._attempts += 1
                if str(error) != self.reason:
                    log.warning("unanswered dest=%s reason=%r", settings.name, str(error))
                self.reason = str(error)
            except SpoolError:
                continue  # the committer has said so

    def _look(self, beat: Callable[[], None]) -> None:
        settings = self._settings
        patience_s = max(settings.confirm_timeout_s, settings.confirm_after_s, settings.retry_ceiling_s)
        sent = self._spool.reader.to_be_evidenced(settings.name, time.time(), patience_s, BATCH)
        if not sent:
            return
        findings = self._witness.ask(sent, beat)
        settle(self._spool, settings.name, findings, self._witness.evidence, settings.retry_first_s)
        self._attempts, self.reason = 0, ""
