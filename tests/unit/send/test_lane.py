"""A lane over a real ledger: who goes first while others come, what is claimed, what a stop and closed hours do."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import partial

import pytest

from gateway.config.bandwidth import BandwidthSettings
from gateway.config.destinations import FolderDestination
from gateway.model.instance import Door, Header, Origin, Priority
from gateway.model.lifecycle import Delivery
from gateway.model.verdict import Blame, Verdict
from gateway.model.way import Way
from gateway.prepare.worker import Renderer
from gateway.send.bandwidth import Limit
from gateway.send.dispatch import CLAIMS_PER_COURIER, Lane
from gateway.send.schedule import BULK_SHARE, CALM_SHARE
from gateway.spool.spool import Spool

STAT, NORMAL, BULK = Priority
CT, LE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2"
ASKED = {STAT: 0x0001, NORMAL: 0x0000, BULK: 0x0002}
"""Priority (0000,0700), PS3.7 table 9.3-1."""


class Peer:
    """A courier and its archive: notes what arrives, and lets the test do something in the middle of each."""

    def __init__(self, during=lambda arrived: None) -> None:
        self.arrived: list[str] = []
        self.verdict = Verdict.accepted()
        self._during = during

    def deliver(self, consignment) -> Verdict:
        for _ in consignment.body():
            pass
        self.arrived.append(consignment.sop_instance_uid)
        self._during(len(self.arrived))
        return self.verdict

    def prepare(self, offers) -> None: ...

    def accepts(self, sop_class_uid) -> None: ...

    def probe(self) -> Verdict:
        return self.verdict

    def close(self) -> None: ...


class Site:
    """A spool whose senders say how urgent they are, and one lane out of it."""

    def __init__(self, folder) -> None:
        self.spool = Spool(folder / "data", 0, 100, lambda instance, _: {"pacs": Way(instance.origin.asked)})
        self.settings = FolderDestination(name="pacs", kind="folder", path=folder / "out", retry_first_s=0.01)
        self._renderer = Renderer(self.spool.store.renditions, self.spool.path_of)
        self._came = 0

    @contextmanager
    def open(self):
        with running([self.spool.committer.run]):
            yield self
        self.spool.close()

    def comes(self, *priorities: Priority, length: int = 100) -> list[str]:
        """Take custody of an object for each, in this order; return their SOP Instance UIDs."""
        uids = []
        for priority in priorities:
            self._came += 1
            uids.append(f"1.2.{self._came}")
            identity = (CT, uids[-1], LE)
            part = self.spool.new_part(identity)
            part.write(bytes(length))
            origin = Origin(Door.DIMSE, dimse_priority=ASKED[priority])
            self.spool.take(part, Header(CT, uids[-1]), origin, identity)
        return uids

    def lane(self, peer: Peer, limit: Limit | None = None, **changes) -> Lane:
        settings = self.settings.model_copy(update=changes)
        return Lane(settings, self.spool, lambda: peer, self._renderer, line=limit)

    @contextmanager
    def runs(self, lane: Lane):
        """Let every courier of the lane work; at the end each has heeded the stop."""
        with running([partial(lane.run, number) for number in range(lane.settings.associations)]):
            yield

    def counts(self) -> dict[Delivery, int]:
        return self.spool.reader.sums().deliveries.get("pacs", {})


@contextmanager
def running(rooms):
    """Let rooms live; end them all, and see that they do."""
    stop = threading.Event()
    threads = [threading.Thread(target=room, args=(stop, lambda: None), daemon=True) for room in rooms]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)


@pytest.fixture
def site(tmp_path):
    with Site(tmp_path).open() as place:
        yield place


def test_stat_goes_before_what_is_claimed_already(site, wait_until):
    normal = site.comes(*[NORMAL] * 20)
    stat = []

    def during(arrived: int) -> None:
        if arrived == 3:
            assert site.counts()[Delivery.SENDING] > 3, "nothing is claimed that could be overtaken"
            stat.extend(site.comes(STAT, STAT))

    peer = Peer(during)
    with site.runs(site.lane(peer)):
        assert wait_until(lambda: len(peer.arrived) == 22)
    assert peer.arrived == [*normal[:3], *stat, *normal[3:]]


def test_a_little_work_stays_with_the_first_courier(site):
    site.comes(NORMAL, NORMAL)
    lane = site.lane(Peer(), associations=4)
    assert lane._next(3) is None and lane._next(0) is not None


def test_every_courier_helps_to_the_last_claim_while_more_waits_in_the_ledger(site):
    """Else, of each handful that is claimed, the last would go one by one over a line that has room for four."""
    at_once = CLAIMS_PER_COURIER * 4
    site.comes(*[NORMAL] * (at_once + 1))
    lane = site.lane(Peer(), associations=4)
    assert all(lane._next(3) for _ in range(at_once))


def test_bulk_goes_on_while_normal_ones_never_end(site, wait_until):
    bulk = site.comes(*[BULK] * 4)
    site.comes(*[NORMAL] * 4)
    peer = Peer(lambda arrived: site.comes(NORMAL) if not set(bulk) <= set(peer.arrived) else None)
    with site.runs(site.lane(peer)):
        assert wait_until(lambda: set(bulk) <= set(peer.arrived))
    places = [peer.arrived.index(uid) for uid in bulk]
    assert places == sorted(places)
    assert places[-1] < BULK_SHARE * len(bulk) + 4


def test_everything_goes_on_while_stat_ones_never_end(site, wait_until):
    calm = site.comes(NORMAL, BULK)
    site.comes(*[STAT] * 4)
    peer = Peer(lambda arrived: site.comes(STAT) if not set(calm) <= set(peer.arrived) else None)
    with site.runs(site.lane(peer)):
        assert wait_until(lambda: set(calm) <= set(peer.arrived))
    assert peer.arrived.index(calm[0]) < CALM_SHARE
    assert peer.arrived.index(calm[1]) < CALM_SHARE * BULK_SHARE


@pytest.mark.parametrize("associations", [1, 3])
def test_no_more_is_claimed_than_is_about_to_be_sent(site, associations, wait_until):
    site.comes(*[BULK] * 20, *[NORMAL] * 100)
    claimed = []
    peer = Peer(lambda arrived: claimed.append(site.counts().get(Delivery.SENDING, 0)))
    with site.runs(site.lane(peer, associations=associations)):
        assert wait_until(lambda: len(peer.arrived) == 120)
        assert wait_until(lambda: site.counts() == {Delivery.CONFIRMED: 120})
    written_down_late = 64 + associations  # what has arrived, and is SENDING until the ledger says so
    assert max(claimed) <= 2 * CLAIMS_PER_COURIER * associations + written_down_late


def test_what_only_has_its_turn_is_claimed_alone(site, wait_until):
    bulk = site.comes(*[BULK] * 20)
    site.comes(*[NORMAL] * 40)

    def during(arrived: int) -> None:
        site.comes(NORMAL)
        rows = site.spool.reader.listing([Delivery.SENDING], "pacs", 1000)
        claimed.append(sum(row["priority"] == BULK for row in rows if row["object_id"] not in gone))
        gone.update(row["object_id"] for row in rows if row["priority"] == BULK)

    claimed, gone = [], set()
    peer = Peer(during)
    with site.runs(site.lane(peer)):
        assert wait_until(lambda: len(set(bulk) & set(peer.arrived)) >= 3)
    assert max(claimed) == 1


def test_a_stop_in_the_middle_of_a_limited_object_is_heeded_at_once_and_loses_nothing(site, wait_until):
    site.comes(NORMAL, NORMAL, length=1_000_000)
    lane = site.lane(Peer(), Limit(BandwidthSettings(bytes_per_s=8000)))  # two minutes for each
    with site.runs(lane):
        assert wait_until(lambda: lane.limited_by() == "box")
    assert site.counts() == {Delivery.QUEUED: 2}


def test_while_the_hours_are_closed_nothing_is_claimed_and_what_is_claimed_goes_back(site, wait_until):
    (limit, shut) = Limit(BandwidthSettings()), BandwidthSettings(bytes_per_s=0, stat_passes=True)

    def during(arrived: int) -> None:
        if arrived == 2:
            limit.settings = shut

    site.comes(*[NORMAL] * 5)
    peer = Peer(during)
    lane = site.lane(peer, limit)
    with site.runs(lane):
        assert wait_until(lambda: site.counts() == {Delivery.QUEUED: 3, Delivery.CONFIRMED: 2})
        assert lane.limited_by() == "box"
        (stat,) = site.comes(STAT)
        assert wait_until(lambda: stat in peer.arrived)
        limit.settings = BandwidthSettings()
        assert wait_until(lambda: site.counts() == {Delivery.CONFIRMED: 6})
    assert lane.limited_by() is None


def test_what_waits_behind_an_ill_destination_is_claimed_by_nobody(site, wait_until):
    site.comes(*[NORMAL] * 5, STAT)
    peer = Peer()
    peer.verdict = Verdict.deferred(Blame.DESTINATION, text="ill")
    lane = site.lane(peer, associations=3, failover_after_s=0.0)
    with site.runs(lane):
        assert wait_until(lambda: lane.given_up and site.counts() == {Delivery.QUEUED: 6})
        peer.verdict = Verdict.accepted()
        lane.retry_now()
        assert wait_until(lambda: site.counts() == {Delivery.CONFIRMED: 6})
        assert not lane.given_up
