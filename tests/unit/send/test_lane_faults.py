"""A lane while the ledger fails: nothing that it has claimed is left with nobody."""

from __future__ import annotations

import threading
from unittest.mock import Mock

from gateway.config.destinations import DimseDestination
from gateway.model.errors import SpoolError
from gateway.model.instance import Door, Header, Origin
from gateway.model.verdict import Blame, Verdict
from gateway.model.way import Way
from gateway.send.dispatch import Lane
from gateway.spool.spool import Spool
from tests.conftest import until

CT = "1.2.840.10008.5.1.4.1.1.2"


class Archive:
    """Goes away at the first instance, and the ledger with it; both come back at the first probe."""

    def __init__(self, spool: Spool) -> None:
        self.spool, self.change, self.got, self.away = spool, spool.committer.change, [], True

    def prepare(self, offers) -> None: ...

    def accepts(self, sop_class_uid):
        return None

    def close(self) -> None: ...

    def deliver(self, consignment) -> Verdict:
        if self.away:
            self.spool.committer.change = Mock(side_effect=SpoolError("the ledger failed"))
            return Verdict.deferred(Blame.DESTINATION, text="gone")
        self.got.append(consignment.sop_instance_uid)
        return Verdict.accepted()

    def probe(self) -> Verdict:
        self.away, self.spool.committer.change = False, self.change
        return Verdict.accepted()


def test_claims_that_could_not_be_given_back_are_carried_when_the_destination_is_well_again(tmp_path):
    spool = Spool(tmp_path, 0, 100, lambda *_: {"pacs": Way()})
    for number in range(3):
        identity = (CT, f"1.2.{number}", "1.2.840.10008.1.2")
        part = spool.new_part(identity)
        part.write(b"x" * 100)
        spool.take(part, Header(CT, identity[1], "1.2", "1.2", "CT"), Origin(Door.IMPORT), identity)
    settings = DimseDestination(
        name="pacs", kind="dimse", host="h", port=1, ae_title="A", associations=1, compression="off",
        retry_first_s=0.1, retry_ceiling_s=0.2,
    )  # fmt: skip
    archive, stop = Archive(spool), threading.Event()
    lane = Lane(settings, spool, lambda: archive, Mock(rates={}))
    rooms = [
        threading.Thread(target=lane.run, args=(0, stop, lambda: None)),
        threading.Thread(target=spool.committer.run, args=(stop, lambda: None)),
    ]
    for room in rooms:
        room.start()
    try:
        assert until(lambda: sorted(archive.got) == ["1.2.0", "1.2.1", "1.2.2"], 10), archive.got
    finally:
        stop.set()
        for room in rooms:
            room.join(10)
        spool.close()
