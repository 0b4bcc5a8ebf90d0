"""Alarms are level-triggered: each look says what is wrong now. Delays before and after keep what flaps quiet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from gateway.model.codes import CODES
from gateway.model.health import Reason

Key = tuple[str, str]
"""Code and component."""


@dataclass(slots=True)
class _Condition:
    seen_at: float
    """Monotonic, when it began to hold."""
    last_at: float
    """Monotonic, when it held last."""
    since: float
    """Wall clock, when it began to hold."""
    raised: bool = False
    gone: bool = False
    """It did not hold at the last look."""


class Alarms:
    """What holds, as of the last look; used by one thread."""

    def __init__(self) -> None:
        self._conditions: dict[Key, _Condition] = {}

    def holds(self, code: str, component: str) -> bool:
        """True when this was wrong at the last look: then its lower threshold counts."""
        return (code, component) in self._conditions

    def unsettled(self, now: float) -> bool:
        """True when something is to be raised or cleared now although nothing else has changed."""
        for (name, _), condition in self._conditions.items():
            code = CODES[name]
            held_s, gone_s = now - condition.seen_at, now - condition.last_at
            if (not condition.raised and held_s >= code.raise_after_s) or (
                condition.raised and condition.gone and gone_s >= code.clear_after_s
            ):
                return True
        return False

    def look(self, wrong: Iterable[Key], now: float, wall: float) -> list[Reason]:
        """Take what is wrong now; return the reasons to tell, worst and oldest first. `now` is monotonic."""
        for key in wrong:
            condition = self._conditions.setdefault(key, _Condition(now, now, wall))
            condition.last_at = now
        told = []
        for (name, component), condition in list(self._conditions.items()):
            code = CODES[name]
            gone_s = now - condition.last_at
            condition.gone = gone_s > 0
            if gone_s > 0 and (not condition.raised or gone_s >= code.clear_after_s):
                del self._conditions[name, component]
                continue
            if condition.last_at - condition.seen_at >= code.raise_after_s:
                condition.raised = True
            if condition.raised:
                told.append(Reason(name, code.severity, component, condition.since))
        return sorted(told, key=lambda reason: (reason.severity.value, reason.since, reason.code, reason.component))


def by_code(reasons: Iterable[Reason]) -> dict[str, tuple[Reason, tuple[str, ...]]]:
    """Return, for each code, its oldest reason and all components: one topic carries one code."""
    found: dict[str, tuple[Reason, tuple[str, ...]]] = {}
    for reason in reasons:
        first, components = found.get(reason.code, (reason, ()))
        first = replace(first, since=min(first.since, reason.since))
        found[reason.code] = (first, tuple(sorted({*components, reason.component})))
    return found
