"""The one oracle of the fault campaign. Pure: it is told what was seen outside the gateway, and says what is wrong.

    acknowledged ⊆ delivered ∪ held        nothing that a scanner was promised is gone (contract D1, D2)
    delivered ∪ held ⊆ sent                nothing was made up, cut or altered (D3, D11)
    the gateway's own sums agree           so that it would have noticed a loss itself (D12)

An object is its SOP Instance UID and the SHA-256 of its data set: both or neither.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

Object = tuple[str, str]
"""SOP Instance UID, SHA-256 of the data set bytes."""
FORBIDDEN_ALARMS = frozenset(("custody_loss", "quarantined", "uid_conflict"))


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen from outside."""

    sent: Set[Object]
    """Everything that modalities began to send, acknowledged or not."""
    acknowledged: Set[Object]
    """What they were told 0x0000 (or a 0xBxxx warning) for."""
    held: Set[Object]
    """On the gateway's shelves, read by another program than the gateway."""
    delivered: Mapping[str, Set[Object]]
    """By destination, as its archive wrote it down. Every destination is required."""
    status: Mapping[str, Any] = field(default_factory=dict)
    """The gateway's own report."""
    quiet: bool = False
    """Everything was delivered, says the gateway: then each archive must have all that was acknowledged."""
    rot: Set[Object] = frozenset()
    """What the campaign damaged itself: it must be held, and is not asked for at an archive."""


def violations(seen: Evidence) -> list[str]:
    """Return every broken promise in words that name no patient; an empty list is what a campaign is for."""
    found = []
    for name, delivered in seen.delivered.items():
        found += _named(f"lost: acknowledged, neither held nor at {name}", seen.acknowledged - seen.held - delivered)
        found += _named(f"altered or made up: {name} has what nobody sent", delivered - seen.sent)
        if seen.quiet:
            owed = seen.acknowledged - delivered - seen.rot
            found += _named(f"never arrived: acknowledged, said to be delivered, not at {name}", owed)
    if not seen.delivered:
        found += _named("lost: acknowledged and not held", seen.acknowledged - seen.held)
    found += _named("altered or made up: held, and nobody sent it", seen.held - seen.sent - seen.rot)
    found += _named("acknowledged, and nobody sent it: the campaign itself is wrong", seen.acknowledged - seen.sent)
    return found + _own_word(seen)


def _own_word(seen: Evidence) -> list[str]:
    found = []
    if not seen.status.get("sums_agree", True):
        found.append("the gateway's own sums disagree")
    expected = {"quarantined"} if seen.rot else set()
    alarms = FORBIDDEN_ALARMS & set(seen.status.get("alarms", ())) - expected
    if alarms:
        found.append(f"the gateway raises {', '.join(sorted(alarms))}")
    kept = seen.acknowledged & seen.held
    if seen.status and seen.status.get("accepted", 0) < len(kept):
        found.append(f"{len(kept)} objects acknowledged and on the shelves, {seen.status.get('accepted')} in the sums")
    return found


def _named(what: str, objects: Collection[Object]) -> list[str]:
    some = ", ".join(sorted(uid for uid, _ in objects)[:3])
    return [f"{what}: {len(objects)}, such as {some}"] if objects else []
