"""What retention gives up, by days, space and evidence."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.config.schema import SpoolSettings
from gateway.model.instance import Door, Header, Origin, SOPInstance
from gateway.model.lifecycle import Custody
from gateway.retire.retention import to_give_up, wanted_bytes
from gateway.spool.capacity import Capacity, Room
from gateway.spool.rows import Held, Released

NOW = 1_800_000_000.0
DAY = 86400.0


def one(seq: int, state: Custody, length: int, released_at: float, proven: bool) -> Released:
    instance = SOPInstance(f"{seq:032x}", "1", "1", "1", "00", length, Header(), Origin(Door.IMPORT), 0.0)
    return Released(Held(seq, "0", state, False, instance), released_at, proven)


many = st.lists(
    st.builds(
        one,
        st.integers(1, 1000),
        st.sampled_from(Custody),
        st.integers(0, 100),
        st.floats(0, NOW + DAY),
        st.booleans(),
    ),
    max_size=30,
    unique_by=lambda released: released.held.seq,
)
policies = st.builds(SpoolSettings, retention_days=st.floats(0, 30), retention_days_stored=st.none() | st.floats(0, 30))
shortages = st.integers(0, 2000)


def seqs(going: list[Released]) -> list[int]:
    return [released.held.seq for released in going]


@given(many, policies, shortages, st.floats(0, NOW))
def test_what_is_not_released_is_never_given_up(found, policy, shortage, now):
    assert {g.held.state for g in to_give_up(found, policy, now, shortage)} <= {Custody.RELEASED}


@given(many, shortages)
def test_for_space_those_released_first_go_first_and_no_more_than_needed(found, shortage):
    going = to_give_up(found, SpoolSettings(retention_days=1e6), NOW, shortage)
    kept = [r for r in found if r.held.state is Custody.RELEASED and r not in going]
    assert all(g.released_at <= k.released_at for g in going for k in kept)
    freed = sum(g.held.instance.length for g in going)
    assert freed >= shortage or not kept
    assert not going or freed - going[-1].held.instance.length < shortage


@given(many, policies, shortages)
def test_those_whose_days_are_over_go_whether_space_is_needed_or_not(found, policy, shortage):
    assert set(seqs(to_give_up(found, policy, NOW, 0))) <= set(seqs(to_give_up(found, policy, NOW, shortage)))


def test_days_run_from_release_and_longer_where_success_was_the_only_evidence():
    policy = SpoolSettings(retention_days=7, retention_days_stored=30)
    ages = {1: (6, True), 2: (8, True), 3: (8, False), 4: (29, False), 5: (31, False)}
    found = [one(seq, Custody.RELEASED, 1, NOW - days * DAY, proven) for seq, (days, proven) in ages.items()]
    assert sorted(seqs(to_give_up(found, policy, NOW, 0))) == [2, 5]
    assert sorted(seqs(to_give_up(found, SpoolSettings(retention_days=7), NOW, 0))) == [2, 3, 4, 5]


def test_a_clock_of_1970_ends_no_days_but_space_is_made_all_the_same():
    policy = SpoolSettings(retention_days=0)
    old, young = one(1, Custody.RELEASED, 5, 100.0, True), one(2, Custody.RELEASED, 5, NOW, True)
    assert to_give_up([old, young], policy, 2000.0, 0) == []
    assert seqs(to_give_up([old, young], policy, 2000.0, 1)) == [1]
    assert seqs(to_give_up([old, young], policy, NOW + 1, 0)) == [2]


def test_on_weak_evidence_the_copy_goes_later_for_space_too():
    policy = SpoolSettings(retention_days=7, retention_days_stored=30)
    weak, proven = one(1, Custody.RELEASED, 5, NOW - 6 * DAY, False), one(2, Custody.RELEASED, 5, NOW - DAY, True)
    assert seqs(to_give_up([weak, proven], policy, NOW, 5)) == [2]
    assert seqs(to_give_up([weak, proven], SpoolSettings(), NOW, 5)) == [1]


def wanted(free: int, inodes: int | None = None, *, making_room: bool = False, **keys) -> int:
    settings = SpoolSettings(**{"reserve_bytes": 0, "high_water_percent": 90, **keys})
    return wanted_bytes(Capacity(10_000, free, inodes, Room.OPEN), settings, making_room=making_room)


def test_room_is_made_before_a_scanner_is_turned_away():
    assert [wanted(free) for free in (5000, 1200, 1199, 1000, 0)] == [0, 0, 301, 500, 1500]
    assert [wanted(free, reserve_bytes=3000) for free in (3200, 3199)] == [0, 301]
    assert [wanted(free, high_water_percent=100) for free in (10, 0)] == [0, 0]
    assert [wanted(9000, inodes) for inodes in (128, 127)] == [0, 1]


def test_room_that_is_being_made_is_made_until_there_is_enough():
    assert [wanted(free, making_room=True) for free in (1199, 1200, 1499, 1500)] == [301, 300, 1, 0]


def test_where_retention_does_not_yield_nothing_goes_for_space():
    assert wanted(0, retention_yields=False) == 0
    assert wanted(0, making_room=True, retention_yields=False) == 0
