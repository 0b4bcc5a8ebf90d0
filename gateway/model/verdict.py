"""What a peer did with an instance, as a value: outcome, and whose fault it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """ACCEPTED: the peer has it. DEFERRED: try again later. REFUSED: trying again unchanged is pointless."""

    ACCEPTED = "accepted"
    DEFERRED = "deferred"
    REFUSED = "refused"


class Blame(StrEnum):
    """Who is at fault decides who waits: one instance, the whole lane, or nobody (alarm)."""

    INSTANCE = "instance"
    DESTINATION = "destination"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One peer's answer about one instance."""

    outcome: Outcome
    blame: Blame | None = None
    code: int = 0
    """DIMSE status word (PS3.7 Annex C) or HTTP status; 0 where there was none."""
    text: str = ""
    """For a person: what happened, in words; never patient data."""
    syntax_refused: bool = False
    """True when the peer would take this SOP class, or might, but not in the Transfer Syntax offered."""
    sent_as: str = ""
    """The SOP Instance UID that the peer knows it by, where a recipe gave it another one; empty: its own."""
    wait_s: float = 0.0
    """How long the peer asks to be left alone; 0: it does not say."""

    @classmethod
    def accepted(cls, code: int = 0, text: str = "") -> Verdict:
        """The peer has the instance."""
        return cls(Outcome.ACCEPTED, None, code, text)

    @classmethod
    def deferred(cls, blame: Blame, code: int = 0, text: str = "") -> Verdict:
        """Not now; the same bytes may succeed later."""
        return cls(Outcome.DEFERRED, blame, code, text)

    @classmethod
    def refused(cls, code: int = 0, text: str = "", *, syntax_refused: bool = False) -> Verdict:
        """Never in this form; only this instance waits for a person (or for another Transfer Syntax)."""
        return cls(Outcome.REFUSED, Blame.INSTANCE, code, text, syntax_refused)
