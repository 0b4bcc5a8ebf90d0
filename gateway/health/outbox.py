"""What waits for the broker, bounded whatever the broker does: of what is retained the newest per topic, of events
the latest few hundred, of counters the newest."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

from gateway.health.messages import Message

MAX_EVENTS = 256
MAX_TOPICS = 1024


class Outbox:
    """Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: dict[str, Message] = {}
        self._events: deque[Message] = deque()
        self._counters: dict[str, Message] = {}
        self.dropped = 0
        """Events that were pushed out by later ones."""

    def __len__(self) -> int:
        with self._lock:
            return len(self._states) + len(self._events) + len(self._counters)

    def put(self, message: Message) -> None:
        """Take a message; an older one on the same topic is forgotten unless it is an event."""
        with self._lock:
            self._put(message)

    def _put(self, message: Message) -> None:
        if message.retain or message.qos == 0:
            where = self._states if message.retain else self._counters
            if message.topic in where or len(where) < MAX_TOPICS:
                where[message.topic] = message
            return
        if len(self._events) >= MAX_EVENTS:
            self._events.popleft()
            self.dropped += 1
        self._events.append(message)

    def greet(self, messages: Iterable[Message]) -> None:
        """Begin a session: these come first, then what else waits."""
        with self._lock:
            waiting, self._states = self._states, {message.topic: message for message in messages}
            for topic, message in waiting.items():
                self._states.setdefault(topic, message)

    def take(self) -> Message | None:
        """Hand out the next: states before events before counters."""
        with self._lock:
            for where in (self._states, self._counters):
                if where is self._counters and self._events:
                    return self._events.popleft()
                if where:
                    return where.pop(next(iter(where)))
            return None

    def give_back(self, messages: Iterable[Message]) -> None:
        """Take back, oldest first, what the broker did not acknowledge; newer states win."""
        with self._lock:
            for message in reversed(list(messages)):
                if message.retain:
                    self._states.setdefault(message.topic, message)
                elif message.qos and len(self._events) < MAX_EVENTS:
                    self._events.appendleft(message)
