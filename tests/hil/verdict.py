"""The oracle: what scanners were told against what the archive has. Pure; knows nothing of the box.

acknowledged ⊆ archived            nothing that a scanner was promised is gone
archived ⊆ sent                    nothing was altered or made up
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.emulator.urgent import Urgent

Object = tuple[str, str]
"""SOP Instance UID, SHA-256 of the data set bytes."""


Span = tuple[str, float, float]
"""A stretch of time with a name: begin and end, in seconds since the run began."""


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not applicable"


class Failed(Exception):
    """A case found something wrong; the text says what."""


class NotApplicable(Exception):
    """This target cannot do it; the text says why."""


@dataclass(frozen=True, slots=True)
class Sums:
    """The arithmetic of one case."""

    sent: int = 0
    acknowledged: int = 0
    archived: int = 0
    """Of what was sent, byte for byte."""
    lost: tuple[Object, ...] = ()
    """Acknowledged, and not with the archive."""
    altered: tuple[Object, ...] = ()
    """With the archive under a UID that was sent, with other bytes."""
    strange: tuple[Object, ...] = ()
    """With the archive, and nobody here sent it."""

    @property
    def fine(self) -> bool:
        return not self.lost and not self.altered

    def words(self) -> str:
        """Say what is wrong; empty when nothing is."""
        found = []
        for what, objects in (("lost", self.lost), ("altered", self.altered)):
            if objects:
                found.append(f"{len(objects)} {what}, such as {objects[0][0]}")
        return "; ".join(found)


def judge(sent: Set[Object], acknowledged: Set[Object], arrived: Set[Object], known: Set[Object]) -> Sums:
    """Return the sums of a case. `sent` and `acknowledged` are of the case, `arrived` is all that the archive has,
    `known` all that was sent in this run and before."""
    uids = {uid for uid, _ in sent}
    mine = {one for one in arrived if one[0] in uids}
    known_uids = {uid for uid, _ in known} | uids
    return Sums(
        len(sent),
        len(acknowledged),
        len(sent & arrived),
        tuple(sorted(acknowledged - arrived)),
        tuple(sorted(mine - sent)),
        tuple(sorted(one for one in arrived if one[0] not in known_uids)),
    )


@dataclass(slots=True)
class Result:
    """What came of one case."""

    name: str
    title: str
    group: str
    outcome: Outcome
    reason: str = ""
    seed: int = 0
    began_s: float = 0.0
    """Since the run began."""
    seconds: float = 0.0
    profiles: tuple[str, ...] = ()
    sums: Sums = Sums()
    figures: dict[str, float | int | str] = field(default_factory=dict)
    kept: str = ""
    """Folder with what was kept of a failure."""
    plotted: bool = False
    marks: list[Span] = field(default_factory=list)
    """What was wrong around the box, and when."""
    urgent: list[Urgent] = field(default_factory=list)
    """How fast each emergency passed."""
