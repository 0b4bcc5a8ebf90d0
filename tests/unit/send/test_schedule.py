"""Whatever comes and whenever: STAT overtakes, and everything goes within a bound."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.instance import Priority
from gateway.send.schedule import Turns

STAT, NORMAL, BULK = Priority
CLASSES = st.sampled_from(Priority)
SHARE = {STAT: 2, NORMAL: 64, BULK: 256}
"""One of so many sends, at least, goes to a class while it waits: 1 of 32 is not STAT, 1 of 8 of those is bulk; a
normal one may meet bulk's turn, and waits for the next."""


class Queue:
    """What waits in a lane, and what went before it."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.waiting = {priority: deque() for priority in Priority}
        self.sent: list[Priority] = []

    def comes(self, priority: Priority) -> None:
        self.waiting[priority].append(len(self.sent))

    def sends(self) -> tuple[Priority, int] | None:
        """Send one; return its class, and what was written down when it came."""
        for priority in self.turns.order():
            if self.waiting[priority]:
                self.turns.went(priority)
                self.sent.append(priority)
                return priority, self.waiting[priority].popleft()
        return None


@given(st.lists(st.lists(CLASSES, max_size=4), max_size=300), st.lists(CLASSES, min_size=1, max_size=3))
def test_everything_goes_within_a_bound_whatever_comes(bursts, flood):
    """Endless load of any mix, then what was queued behind it: each class keeps its share until its queue is empty."""
    queue = Queue()
    idle = dict.fromkeys(Priority, 0)
    for burst in [*bursts, *([flood] * 600)]:
        for priority in burst:
            queue.comes(priority)
        waited = [priority for priority in Priority if queue.waiting[priority]]
        sent = queue.sends()
        for priority in waited:
            idle[priority] = 0 if sent[0] is priority else idle[priority] + 1
            assert idle[priority] < SHARE[priority], priority
        assert (sent is None) == (not waited)


@given(st.integers(1, 200), st.integers(0, 40), st.integers(1, 31))
def test_stat_overtakes_whatever_waits(normal, bulk, stat):
    queue = Queue()
    for _ in range(normal):
        queue.comes(NORMAL)
    for _ in range(bulk):
        queue.comes(BULK)
    queue.sends()
    for _ in range(stat):
        queue.comes(STAT)
    assert [queue.sends()[0] for _ in range(stat)] == [STAT] * stat


def test_of_eight_that_are_not_stat_one_is_bulk():
    queue = Queue()
    for _ in range(800):
        queue.comes(NORMAL)
        queue.comes(BULK)
        queue.sends()
    for start in range(0, 800, 8):
        assert queue.sent[start : start + 8].count(BULK) == 1


def test_endless_stat_leaves_one_of_thirty_two_to_the_rest():
    queue = Queue()
    for _ in range(32 * 16):
        for priority in Priority:
            queue.comes(priority)
        queue.sends()
    for start in range(0, 32 * 16, 32):
        assert queue.sent[start : start + 32].count(STAT) == 31
    assert queue.sent.count(BULK) == 2


@pytest.mark.parametrize("alone", Priority)
def test_a_class_that_is_alone_never_waits(alone):
    queue = Queue()
    for _ in range(300):
        queue.comes(alone)
        assert queue.sends()[0] is alone


@given(st.lists(st.one_of(CLASSES, st.none()), max_size=200))
def test_within_a_class_the_order_of_acceptance_holds(story):
    queue, number = Queue(), 0
    came: dict[Priority, list[int]] = {priority: [] for priority in Priority}
    for what in story:
        if what is None:
            sent = queue.sends()
            assert sent is None or sent[1] == came[sent[0]].pop(0)
        else:
            queue.waiting[what].append(number)
            came[what].append(number)
            number += 1
