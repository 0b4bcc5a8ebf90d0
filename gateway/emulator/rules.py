"""When an emulated archive misbehaves, and how: rules as data. Deciding is pure but for counting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

STATUS = {"busy": 0xA700, "refuse": 0xA900, "fail": 0xC000, "warn": 0xB000}
"""What is answered to a C-STORE; a `warn` is kept all the same."""
HTTP = {"busy": 503, "refuse": 409, "fail": 500, "warn": 202}


class RuleError(ValueError):
    """No such rule; the text says what is wrong with it."""


class Rule(BaseModel):
    """One misbehaviour."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    on: Literal["associate", "store", "inside", "stored", "commit", "echo"] = "store"
    """When: an association begins; an object was received, its first piece was, it was kept and not yet answered; a
    commitment is asked for; an echo."""
    do: Literal["busy", "refuse", "fail", "warn", "slow", "hang", "abort", "close", "reset", "lie", "page"]
    """What: a status (`busy` is 0xA700); wait `seconds`; wait for ever; end the association; say that it is kept, and
    do not keep it; answer with a page that names no instance (STOW-RS alone). `refuse` rejects an association."""
    after: int = Field(0, ge=0)
    """Leaves so many alone first."""
    count: int = Field(0, ge=0)
    """Ends after so many; 0 means never."""
    every: int = Field(1, ge=1)
    """Strikes every so many-th."""
    from_s: float = Field(0.0, ge=0)
    for_s: float = Field(0.0, ge=0)
    """By the time since the archive began; 0 means for ever."""
    seconds: float = Field(1.0, ge=0)

    def meets(self, number: int, now_s: float) -> bool:
        """True when the rule is for the `number`-th event of its kind, counted from 1, at a time since the start."""
        place = number - self.after - 1
        in_count = place >= 0 and place % self.every == 0 and (not self.count or place // self.every < self.count)
        return in_count and self.from_s <= now_s and (not self.for_s or now_s < self.from_s + self.for_s)


def parse(text: str) -> Rule:
    """Return the rule of a text such as "on=store do=busy after=10 count=5". Raises RuleError."""
    pairs = [word.partition("=") for word in text.replace(",", " ").split()]
    if not pairs or any(not sign for _, sign, _ in pairs):
        raise RuleError(f"a rule has the form 'on=store do=busy after=10', not {text!r}")
    try:
        return Rule.model_validate({key: value for key, _, value in pairs})
    except ValidationError as error:
        first = error.errors()[0]
        raise RuleError(f"rule {text!r}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


class Rules:
    """Counts what happens, and says which rules meet it."""

    def __init__(self, rules: Sequence[Rule], clock: Callable[[], float] = time.monotonic) -> None:
        self._rules, self._clock, self._began_s = tuple(rules), clock, clock()
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()
        self.met = 0
        """How often any rule struck."""

    def strike(self, on: str) -> list[Rule]:
        """Return the rules for what happens now."""
        with self._lock:
            self._counts[on] = number = self._counts.get(on, 0) + 1
            now_s = self._clock() - self._began_s
            found = [rule for rule in self._rules if rule.on == on and rule.meets(number, now_s)]
            self.met += len(found)
            return found
