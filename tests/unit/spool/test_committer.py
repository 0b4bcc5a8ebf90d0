"""Whoever finds the ledger free commits for all who wait."""

from __future__ import annotations

import errno
import threading

import pytest

from gateway.model.errors import Refused, SpoolError
from gateway.model.instance import Door, Header, Origin, Priority
from gateway.spool import committer
from gateway.spool.spool import Spool

CT = "1.2.840.10008.5.1.4.1.1.2"


def take(spool: Spool, number: int):
    identity = (CT, f"1.2.{number}", "1.2.840.10008.1.2")
    part = spool.new_part(identity)
    part.write(b"x" * 100)
    return spool.take(part, Header(CT, f"1.2.{number}", "1.2.3", "1.2.3", "CT"), Origin(Door.IMPORT), identity)


def test_an_object_is_durable_though_no_other_thread_runs(tmp_path):
    spool = Spool(tmp_path, 0, 100)
    take(spool, 1)
    spool.close()
    again = Spool(tmp_path, 0, 100)
    assert len(again.reader.due("nobody", Priority.NORMAL, 10, 0, 1)) == 0
    assert sum(1 for _ in (tmp_path / "objects").rglob("*.dcm")) == 1
    assert not list((tmp_path / "parts").iterdir())
    _, receipt = take(again, 1)
    assert receipt.duplicate
    again.close()


def test_many_at_once_are_all_entered_once(tmp_path):
    spool = Spool(tmp_path, 0, 100)
    receipts = []

    def send(first: int) -> None:
        for number in range(first, first + 10):
            receipts.append(take(spool, number)[1])

    senders = [threading.Thread(target=send, args=(n,)) for n in (0, 0, 10, 20, 30)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(60)
    assert len(receipts) == 50
    assert sum(receipt.duplicate for receipt in receipts) == 10
    assert sum(1 for _ in (tmp_path / "objects").rglob("*.dcm")) == 40
    spool.close()


def test_nothing_is_taken_after_the_end_and_the_end_waits_for_a_commit_under_way(tmp_path):
    spool = Spool(tmp_path, 0, 100)
    entered, go_on = threading.Event(), threading.Event()

    def slow(ledger) -> int:
        entered.set()
        go_on.wait(10)
        return 7

    results = []
    caller = threading.Thread(target=lambda: results.append(spool.committer.change(slow)))
    caller.start()
    assert entered.wait(10)
    stop = threading.Event()
    stop.set()
    runner = threading.Thread(target=spool.committer.run, args=(stop, lambda: None))
    runner.start()
    runner.join(0.2)
    assert runner.is_alive()
    go_on.set()
    runner.join(10)
    caller.join(10)
    assert results == [7]
    with pytest.raises(SpoolError, match="closing"):
        spool.committer.change(lambda ledger: 1)
    spool.close()


def test_a_fault_ends_only_when_the_ledger_works_and_what_was_placed_has_been_looked_at(tmp_path, monkeypatch):
    spool = Spool(tmp_path, 0, 100)

    def broken(*_: object) -> None:
        raise SpoolError("the ledger failed")

    with monkeypatch.context() as fault:
        fault.setattr(spool._ledger, "checkpoint", broken)
        fault.setattr(committer, "CHECKPOINT_COMMITS", 1)
        take(spool, 1)  # that it is durable was settled before the checkpoint
        assert spool.committer.fault
        with pytest.raises(Refused, match="ledger fault"):
            take(spool, 2)
        spool.committer._commit([])
        assert spool.committer.fault, "the checkpoint fails still"
    with monkeypatch.context() as fault:
        fault.setattr("gateway.spool.recovery._files", lambda _: _raise())
        spool.committer._commit([])
        assert "cannot be looked at" in spool.committer.fault
    spool.committer._commit([])
    assert spool.committer.fault == ""
    take(spool, 2)
    spool.close()


def _raise() -> None:
    raise OSError(errno.EROFS, "Read-only file system")


def test_parts_that_can_neither_be_made_durable_nor_removed_are_not_written_to(tmp_path, monkeypatch):
    spool = Spool(tmp_path, 0, 100)
    with monkeypatch.context() as broken:
        broken.setattr("gateway.spool.store.fsync_directory", lambda _: _raise())
        broken.setattr("gateway.spool.store.Path.unlink", lambda *_, **__: _raise())
        with pytest.raises(Refused, match="Read-only"):
            take(spool, 1)
    left = {path.stem for path in (tmp_path / "parts").iterdir()}
    _, receipt = take(spool, 1)
    assert left and receipt.object_id not in left
    spool.close()
