"""When to stop trying: an object that no rendition can be made of must not cost workers for ever. No I/O.

Kept in memory: a start of the service is a new chance, and a new version of a codec comes with one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TypeVar

from gateway.prepare.recipe import PREFERENCE

_Number = TypeVar("_Number", int, float)

LIMIT = 3
PAUSE_S = 600.0
"""So long a kind of object that cost `LIMIT` workers in a row is not tried; each may have taken its whole deadline."""
MAX_REMEMBERED = 4096
RECIPE = "recipe"
"""As the target of an attempt that changes the object and keeps its Transfer Syntax."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A rendition to be made."""

    object_id: str
    sop_class_uid: str
    source: str
    """Transfer Syntax UID, as `target`."""
    target: str


@dataclass
class Strikes:
    """Failures of instances, and workers lost in a row by kind: SOP class and Transfer Syntaxes."""

    _failures: OrderedDict[Hashable, int] = field(default_factory=OrderedDict)
    _in_a_row: OrderedDict[Hashable, int] = field(default_factory=OrderedDict)
    _not_before: OrderedDict[Hashable, float] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def why_not(self, attempt: Attempt, now: float) -> str | None:
        """Return why this is not to be tried, None when it may be; `now` is monotonic."""
        with self._lock:
            # A lost worker counts whatever it was to make; a refusal by a codec says nothing about another one.
            for key in (attempt.object_id, (attempt.object_id, attempt.target)):
                if self._failures.get(key, 0) >= LIMIT:
                    return f"it failed {LIMIT} times and is not tried again before the next start"
            # What a peer takes nothing else than is tried all the same: without it the instance would be held.
            if attempt.target not in (*PREFERENCE, RECIPE) and now < self._not_before.get(self._kind(attempt), now):
                return f"{LIMIT} workers in a row were lost to objects of this kind; they go as they came for a while"
        return None

    def refused(self, attempt: Attempt) -> None:
        """Count a rendition that could not be made exactly."""
        key = (attempt.object_id, attempt.target)
        with self._lock:
            _remember(self._failures, key, self._failures.get(key, 0) + 1)
            self._in_a_row.pop(self._kind(attempt), None)

    def lost(self, attempt: Attempt, now: float) -> None:
        """Count a lost worker; `now` is monotonic."""
        kind = self._kind(attempt)
        with self._lock:
            _remember(self._failures, attempt.object_id, self._failures.get(attempt.object_id, 0) + 1)
            _remember(self._in_a_row, kind, self._in_a_row.get(kind, 0) + 1)
            if self._in_a_row[kind] >= LIMIT:
                _remember(self._not_before, kind, now + PAUSE_S)

    def made(self, attempt: Attempt) -> None:
        """Remember that objects of this kind can be rendered."""
        with self._lock:
            self._in_a_row.pop(self._kind(attempt), None)

    @staticmethod
    def _kind(attempt: Attempt) -> Hashable:
        return attempt.sop_class_uid, attempt.source, attempt.target


def _remember(memory: OrderedDict[Hashable, _Number], key: Hashable, value: _Number) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > MAX_REMEMBERED:
        memory.popitem(last=False)
