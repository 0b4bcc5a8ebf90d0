"""Space that is the ledger's alone, and what a look at the disk counts as free."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

from gateway.spool import capacity
from gateway.spool.capacity import LEDGER_RESERVE_BYTES, LedgerReserve, Room, look

MIB = 2**20


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """A disk of 1 GiB with so much free as the story says."""
    told = SimpleNamespace(f_frsize=MIB, f_blocks=1024, f_bavail=512, f_files=0, f_favail=0, f_flag=0)
    monkeypatch.setattr(capacity.os, "statvfs", lambda _: told)
    return told


def test_it_is_taken_given_up_and_taken_again_only_when_as_much_is_left(tmp_path, disk):
    reserve = LedgerReserve(tmp_path)
    reserve.take_back()
    files = list((tmp_path / "reserve").iterdir())
    assert len(files) > 2, "two inodes are for the ledger's journal and its index"
    assert sum(file.stat().st_blocks * 512 for file in files) == LEDGER_RESERVE_BYTES, "the space is really taken"
    reserve.give_up()
    assert not list((tmp_path / "reserve").iterdir())
    disk.f_bavail = 2 * LEDGER_RESERVE_BYTES // MIB - 1
    reserve.take_back()
    assert reserve.lacking_bytes() == LEDGER_RESERVE_BYTES
    disk.f_bavail += 1
    reserve.take_back()
    assert reserve.lacking_bytes() == 0


def test_what_it_lacks_is_not_free_so_that_no_scanner_gets_it(tmp_path, disk):
    disk.f_bavail = 20
    assert look(tmp_path, 5 * MIB, 100).room is Room.FULL
    assert look(tmp_path, 4 * MIB, 100) == capacity.Capacity(1024 * MIB, 4 * MIB, None, Room.OPEN)
    disk.f_bavail = 10
    assert (look(tmp_path, 0, 100).room, look(tmp_path, 0, 100).free_bytes) == (Room.FULL, 0)
    disk.f_bavail = 512
    LedgerReserve(tmp_path).take_back()
    assert look(tmp_path, 0, 100).free_bytes == 512 * MIB


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_cannot_be_written_never_raises_here(tmp_path, disk, monkeypatch, error):
    reserve = LedgerReserve(tmp_path)
    reserve.take_back()

    def fails(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as broken:
        broken.setattr(capacity.Path, "unlink", lambda *_, **__: fails())
        reserve.give_up()
    reserve.give_up()
    with monkeypatch.context() as broken:
        broken.setattr(capacity.os, "posix_fallocate", fails)
        reserve.take_back()
    assert reserve.lacking_bytes() == LEDGER_RESERVE_BYTES
    reserve.take_back()
    assert reserve.lacking_bytes() == 0, "it is tried again"


def test_a_read_only_disk_is_full_however_much_is_free(tmp_path, disk, monkeypatch):
    LedgerReserve(tmp_path).take_back()
    assert look(tmp_path, 0, 100).room is Room.OPEN
    with monkeypatch.context() as given_up:  # ext4 after an error: only who opens for writing is told

        def opened(*_: object) -> int:
            raise OSError(errno.EROFS, "Read-only file system")

        given_up.setattr(capacity.os, "open", opened)
        seen = look(tmp_path, 0, 100)
    assert (seen.room, seen.read_only, seen.reason) == (Room.FULL, True, "the file system is read-only")
    disk.f_flag = os.ST_RDONLY
    assert look(tmp_path, 0, 100).read_only
