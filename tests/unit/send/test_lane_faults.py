"""A lane while the ledger fails: nothing that it has claimed is left with nobody."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from unittest.mock import DEFAULT, Mock

import pytest

from gateway.config.destinations import DimseDestination
from gateway.model.errors import SpoolError
from gateway.model.instance import Door, Header, Origin
from gateway.model.lifecycle import Custody, Delivery
from gateway.model.verdict import Blame, Verdict
from gateway.model.way import Way
from gateway.send import dispatch
from gateway.send.dispatch import Lane
from gateway.spool import committer
from gateway.spool.spool import Spool
from tests.conftest import until

CT = "1.2.840.10008.5.1.4.1.1.2"


SETTINGS = DimseDestination(
    name="pacs", kind="dimse", host="h", port=1, ae_title="A", associations=1, compression="off",
    retry_first_s=0.1, retry_ceiling_s=0.2,
)  # fmt: skip


class Archive:
    """Takes what it can read to its end."""

    def __init__(self) -> None:
        self.got: list[str] = []

    def prepare(self, offers) -> None: ...

    def accepts(self, sop_class_uid):
        return None

    def close(self) -> None: ...

    def deliver(self, consignment) -> Verdict:
        for _ in consignment.body():
            pass
        self.got.append(consignment.sop_instance_uid)
        return Verdict.accepted()

    def probe(self) -> Verdict:
        return Verdict.accepted()


class Vanishing(Archive):
    """Goes away at the first instance, and the ledger with it; both come back at the first probe."""

    def __init__(self, spool: Spool) -> None:
        super().__init__()
        self.spool, self.change, self.away = spool, spool.committer.change, True

    def deliver(self, consignment) -> Verdict:
        if not self.away:
            return super().deliver(consignment)
        self.spool.committer.change = Mock(side_effect=SpoolError("the ledger failed"))
        return Verdict.deferred(Blame.DESTINATION, text="gone")

    def probe(self) -> Verdict:
        self.away, self.spool.committer.change = False, self.change
        return Verdict.accepted()


@pytest.fixture
def spool(tmp_path):
    opened = Spool(tmp_path, 0, 100, lambda *_: {"pacs": Way()})
    for number in range(3):
        identity = (CT, f"1.2.{number}", "1.2.840.10008.1.2")
        part = opened.new_part(identity)
        part.write(b"x" * 100)
        opened.take(part, Header(CT, identity[1], "1.2", "1.2", "CT"), Origin(Door.IMPORT), identity)
    yield opened
    opened.close()


@contextmanager
def lane(spool: Spool, archive: Archive):
    """A lane of one courier, with the thread that commits what nobody waits for."""
    stop = threading.Event()
    lane = Lane(SETTINGS, spool, lambda: archive, Mock(rates={}))
    rooms = [
        threading.Thread(target=lane.run, args=(0, stop, lambda: None)),
        threading.Thread(target=spool.committer.run, args=(stop, lambda: None)),
    ]
    for room in rooms:
        room.start()
    try:
        yield
    finally:
        stop.set()
        for room in rooms:
            room.join(30)


def test_claims_that_could_not_be_given_back_are_carried_when_the_destination_is_well_again(spool):
    archive = Vanishing(spool)
    with lane(spool, archive):
        assert until(lambda: sorted(archive.got) == ["1.2.0", "1.2.1", "1.2.2"]), archive.got


def test_rot_that_could_not_be_written_down_is_found_again(spool):
    rotten = next(spool.store.objects.rglob("*.dcm"))
    rotten.write_bytes(rotten.read_bytes()[:-1] + b"y")
    honest, archive = spool.quarantine, Archive()
    spool.quarantine = Mock(side_effect=[SpoolError("the ledger failed"), DEFAULT], wraps=honest)
    with lane(spool, archive):
        assert until(lambda: spool.reader.sums().custody.get(Custody.QUARANTINED, (0, 0))[0] == 1)
        assert until(lambda: len(archive.got) == 2)
    assert spool.quarantine.call_count == 2, "not again and again"


def test_a_claim_that_the_ledger_grants_when_nobody_waits_for_it_any_more_is_carried_without_a_restart(
    spool, monkeypatch
):
    monkeypatch.setattr(committer, "REPLY_PATIENCE_S", 0.1)
    honest, given_up, archive = spool.claim, threading.Event(), Archive()

    def claim(*arguments):
        try:
            return honest(*arguments)
        except SpoolError:
            given_up.set()
            raise

    spool.claim = claim
    silent = spool.committer._leading
    silent.acquire()
    with lane(spool, archive):
        try:
            assert given_up.wait(30)
            monkeypatch.setattr(committer, "REPLY_PATIENCE_S", 60.0)  # what is slow now is so by chance
        finally:
            silent.release()
        assert until(lambda: sorted(archive.got) == ["1.2.0", "1.2.1", "1.2.2"]), archive.got
        # What came last is written down after it came, and nobody is left to do so once lane and committer end.
        assert until(lambda: spool.reader.sums().deliveries["pacs"] == {Delivery.CONFIRMED: 3})


class Silencing(Archive):
    """The ledger falls silent as soon as the first instance is whole here."""

    def __init__(self, spool: Spool) -> None:
        super().__init__()
        self.silent, self.second = spool.committer._leading, threading.Event()

    def deliver(self, consignment) -> Verdict:
        if self.got:
            self.second.set()
        else:
            self.silent.acquire()
        return super().deliver(consignment)


def test_no_instance_is_whole_at_its_peer_before_the_verdict_on_the_last_one_is_durable(spool, monkeypatch):
    """So that a crash has one instance for each association sent once more, at most."""
    monkeypatch.setattr(dispatch, "RECORD_WAIT_S", 60.0)
    archive = Silencing(spool)
    with lane(spool, archive):
        try:
            assert archive.second.wait(30)
            assert not until(lambda: len(archive.got) > 1, 0.3)
        finally:
            archive.silent.release()
        assert until(lambda: len(archive.got) == 3), archive.got


def test_a_silent_ledger_stops_no_delivery(spool, monkeypatch):
    monkeypatch.setattr(dispatch, "RECORD_WAIT_S", 0.05)
    archive = Silencing(spool)
    with lane(spool, archive):
        try:
            assert until(lambda: len(archive.got) == 3), archive.got
        finally:
            archive.silent.release()
