"""Decides what of an observation is worth a message: health always, the rest when it changed, all when asked again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from gateway.health.messages import Message, Speaker
from gateway.health.observer import Observation
from gateway.health.outbox import Outbox
from gateway.model.health import Identity

AGAIN_S = 900.0
"""What only ages is told again so often."""
COUNTERS_S = 300.0
"""Numbers for charts are told so often at most: they change with every object, and the line may be a mobile one."""
AGEING = ("idle_s", "oldest_age_s")


class Reporter:
    """From observations to the outbox; `take` belongs to the observer's thread, `greeting` to the publisher's."""

    def __init__(
        self,
        speaker: Speaker,
        outbox: Outbox,
        identity: Callable[[], Identity],
        capabilities: Mapping[str, list[str]],
        beside: Callable[[Identity], list[Message]],
    ) -> None:
        """`capabilities`: roles by verb; `beside`: what a session begins with besides, retained."""
        self._speaker = speaker
        self._outbox = outbox
        self._identity = identity
        self._capabilities = capabilities
        self._beside = beside
        self._latest: Observation | None = None
        self._told: dict[str, tuple[Any, float]] = {}
        self._greeted = False

    def take(self, seen: Observation) -> None:
        """Put what is worth it into the outbox."""
        self._latest = seen
        now = time.monotonic()
        self._outbox.put(self._speaker.health(seen))
        for message in (*self._speaker.alarms(seen), *self._speaker.rooms(seen), *self._speaker.counters(seen)):
            fact = _lasting(message.body)
            before, at = self._told.get(message.topic, (None, now))
            if message.schema == "m" and before is not None and now - at < COUNTERS_S:
                continue
            if fact != before or (message.body is not None and message.schema != "a" and now - at > AGAIN_S):
                self._told[message.topic] = (fact, now)
                self._outbox.put(message)

    def greeting(self) -> list[Message]:
        """Return what every session begins with, whatever the broker still knows: it may know nothing."""
        speaker, now, seen, identity = self._speaker, time.time(), self._latest, self._identity()
        messages = [speaker.birth(identity, list(self._capabilities), now)]
        messages += [speaker.capability(verb, roles, now) for verb, roles in self._capabilities.items()]
        if seen is not None:
            messages += [speaker.health(seen), *speaker.rooms(seen)]
            for alarm in speaker.alarms(seen):
                if alarm.body is not None or not self._greeted:  # an earlier life may have left some behind
                    messages.append(alarm)
            self._greeted = True
        return [*messages, *self._beside(identity)]


def _lasting(body: Mapping[str, Any] | None) -> Any:
    return None if body is None else {name: value for name, value in body.items() if name not in AGEING}
