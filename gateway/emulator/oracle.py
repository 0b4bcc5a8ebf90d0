"""Compares what the scanner was told with what the archive has. Pure; knows nothing of the gateway."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.emulator.sender import Sent
from gateway.emulator.shelf import Received


@dataclass(frozen=True, slots=True)
class StudyProof:
    """One study's arithmetic."""

    study_instance_uid: str
    sent: int
    acknowledged: int
    delivered: int
    verified: int
    """Delivered with the very bytes that were sent."""
    seconds: float
    """That the scanner waited for answers, in all."""

    @property
    def complete(self) -> bool:
        """True when every instance was acknowledged, delivered, and is the same."""
        return self.sent == self.acknowledged == self.delivered == self.verified


def prove(sent: Iterable[Sent], received: Iterable[Received]) -> list[StudyProof]:
    """Return one line per study, in the order of sending."""
    arrived: dict[str, set[str]] = {}
    for instance in received:
        if instance.kept:
            arrived.setdefault(instance.sop_instance_uid, set()).add(instance.sha256)
    studies: dict[str, list[Sent]] = {}
    for one in sent:
        studies.setdefault(one.study_instance_uid, []).append(one)
    return [
        StudyProof(
            study,
            len(ones),
            sum(one.acknowledged for one in ones),
            sum(one.sop_instance_uid in arrived for one in ones),
            sum(one.sha256 in arrived.get(one.sop_instance_uid, ()) for one in ones),
            sum(one.seconds for one in ones),
        )
        for study, ones in studies.items()
    ]
