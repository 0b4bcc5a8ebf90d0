"""What waits for the broker is bounded, and the newest of what is retained."""

from __future__ import annotations

from gateway.health.messages import Message
from gateway.health.outbox import MAX_EVENTS, MAX_TOPICS, Outbox


def state(topic, body=None):
    return Message(topic, "health", {"n": body})


def event(number):
    return Message("e/boot", "e", {"n": number}, retain=False)


def counter(number):
    return Message("m/x", "m", {"n": number}, qos=0, retain=False)


def drained(outbox):
    found = []
    while (message := outbox.take()) is not None:
        found.append((message.topic, message.body["n"]))
    return found


def test_only_the_newest_state_of_a_topic_waits():
    outbox = Outbox()
    for number in range(1000):
        outbox.put(state("health", number))
        outbox.put(counter(number))
    assert drained(outbox) == [("health", 999), ("m/x", 999)]


def test_of_too_many_events_the_oldest_go():
    outbox = Outbox()
    for number in range(MAX_EVENTS + 5):
        outbox.put(event(number))
    assert outbox.dropped == 5
    assert [number for _, number in drained(outbox)] == list(range(5, MAX_EVENTS + 5))


def test_topics_are_bounded():
    outbox = Outbox()
    for number in range(MAX_TOPICS + 5):
        outbox.put(state(f"t{number}"))
    assert len(outbox) == MAX_TOPICS


def test_a_session_begins_with_its_greeting_and_keeps_what_else_waits():
    outbox = Outbox()
    outbox.put(state("a/hot", "old"))
    outbox.put(state("health", "old"))
    outbox.greet([state("session", 1), state("health", 2)])
    assert drained(outbox) == [("session", 1), ("health", 2), ("a/hot", "old")]


def test_what_was_not_acknowledged_comes_again_unless_there_is_newer():
    outbox = Outbox()
    outbox.put(event(3))
    outbox.put(state("health", "new"))
    outbox.give_back([event(1), state("health", "old"), event(2), counter(1)])
    assert drained(outbox) == [("health", "new"), ("e/boot", 1), ("e/boot", 2), ("e/boot", 3)]
