"""A disk that is full, read-only or failing, on a small one of its own (contract D5, D6).

The scanner's own log, outside of that disk, is the oracle: what it was told is held or delivered, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from pydicom.errors import InvalidDicomError
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage

from gateway.emulator.modality import Modality
from gateway.emulator.study import ct_study
from tests import wire
from tests.conftest import Box, digest, until
from tests.crash import disks
from tests.tracing import attach

RESUMES_WITHIN_S = 30.0
OUT_OF_RESOURCES = 0xA700
REJECTED_TRANSIENT_LOCAL_LIMIT = (2, 3, 2)
"""Result, source, reason (PS3.8 table 9-21)."""
IMPATIENT = """
import sys
from gateway.retire import sweeper
from gateway.spool import committer
committer.FAULT_PATIENCE_S, sweeper.PAUSE_S = 12.0, 0.5
sys.argv = sys.argv[3:]
from gateway.cli import main
main()
"""
"""The service, with a ledger that may fail for twelve seconds instead of a minute, and a retention that looks often."""


@pytest.fixture(scope="session", autouse=True)
def _disks_can_be_mounted(tmp_path_factory):
    reason = disks.why_not(tmp_path_factory.mktemp("why-not"))
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def images():
    """Twelve CT images of half a megabyte, made once."""
    return list(ct_study(11, 12))


class Scanner:
    """Sends images in their order, and writes down outside of the gateway what it was told."""

    def __init__(self, port: int, images: list, log: Path) -> None:
        self.port, self.images, self.log, self._next = port, images, log, 0

    def sends(self, count: int = 1) -> list[int]:
        """Send the next images on one association; return the statuses, -1 where there was no answer."""
        chosen = self.images[self._next : self._next + count]
        self._next += count
        return self._send(chosen)

    def sends_again(self) -> list[int]:
        """Send everything from the first image on, as people do after a failure."""
        return self._send(self.images[: self._next])

    def sends_last(self) -> list[int]:
        """Send one more image, the same each time."""
        return self._send(self.images[-1:])

    def _send(self, chosen: list) -> list[int]:
        with open(self.log, "a") as log:
            sent = Modality("127.0.0.1", self.port, "EDGEGW", "CT1", log, 20.0).send(chosen, lambda _: None)
        return [one.status for one in sent]

    def acknowledged(self) -> set[str]:
        return {json.loads(line)["sha256"] for line in self.log.read_text().splitlines()}


class Site:
    """A gateway on a small disk, a scanner, and an archive on another disk."""

    def __init__(self, box, disk, scanner, archive) -> None:
        self.box, self.disk, self.scanner, self.archive = box, disk, scanner, archive
        self._before: dict[str, str] = {}

    def status(self) -> dict:
        return self.box.ask("status")

    def row(self) -> dict:
        return self.status()["destinations"]["pacs"]

    def delivered(self) -> set[str]:
        """What the archive has whole: it writes while we look."""
        found = set()
        for path in self.archive.folder.iterdir() if self.archive.folder.exists() else ():
            try:
                found.add(digest(path))
            except (InvalidDicomError, EOFError):
                continue
        return found

    def fetches(self, count: int) -> None:
        """Start the archive, and see that it gets so many."""
        self.archive.start()
        assert until(lambda: len(self.delivered()) >= count), self.box.log()

    def remembers(self) -> None:
        """Note every accepted object, byte for byte."""
        self._before = self._shelf()
        assert self._before

    def _shelf(self) -> dict[str, str]:
        files = (self.disk.folder / "objects").rglob("*.dcm")
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def has_touched_nothing(self) -> None:
        after = self._shelf()
        assert {name: after.get(name) for name in self._before} == self._before, self.box.log()

    def has_kept_its_word(self) -> None:
        """Acknowledged is a subset of held and delivered; the sums agree; no half object lies about."""
        promised = self.scanner.acknowledged()
        assert promised and promised <= set(self.box.shelf()) | self.delivered()
        status = self.status()
        assert status["sums_agree"] and not status["alarms"], status
        parts = [path for path in (self.disk.folder / "parts").iterdir() if path.stat().st_size]
        assert parts == [], "half an object was left"

    def receives_again(self) -> None:
        """Nobody touches the gateway; the scanner tries until it is taken."""
        pid, began = self.box.process.pid, time.monotonic()
        assert until(lambda: set(self.scanner.sends_again()) == {0}, RESUMES_WITHIN_S), self.box.log()
        assert time.monotonic() - began < RESUMES_WITHIN_S
        assert self.box.process.pid == pid and self.box.process.poll() is None

    def cli(self, *arguments: object) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "gateway", "--config", str(self.box.config), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=30,
        )


ALL_OF_IT = "reserve_bytes = 0\nhigh_water_percent = 100\nretention_yields = false\n"


@pytest.fixture
def site(tmp_path, make_archive, dimse, images):
    """Makes sites; gateways end before their disks are unmounted."""
    with ExitStack() as stack:

        def make(disk=disks.ext4, *options, spool: str = ALL_OF_IT, folder: str = "", archive=()) -> Site:
            place = tmp_path / "box"
            mounted = stack.enter_context(disk(place, *options))
            peer = make_archive(*archive)
            box = Box(place, dimse(peer.port, more=ONE_BY_ONE) + folder)
            text = box.config.read_text()
            box.config.write_text(text.replace("reserve_bytes = 0\nhigh_water_percent = 100\n", spool))
            stack.callback(lambda: box.process and box.process.poll() is None and box.kill())
            return Site(box, mounted, Scanner(box.port, images, tmp_path / "scanner.jsonl"), peer)

        yield make


@contextmanager
def failing(box, calls: str, error: str, *, when: str = "", paths=(), log: Path | None = None):
    """Have system calls of a running gateway fail; what it called goes to `log`, a file for each thread."""
    into = ["-ff", "-o", str(log)] if log else ["-o", "/dev/null"]
    only = [word for path in paths for word in ("-P", str(path))]
    inject = f"inject={calls}:error={error}{when}"
    tracer = attach(box.process.pid, "-y", "-s", "0", *into, *only, "-e", f"trace={calls}", "-e", inject)
    try:
        yield
    finally:
        tracer.terminate()
        tracer.wait(10)


def rejection(port: int) -> tuple[int, ...]:
    """Ask for an association; return result, source and reason of A-ASSOCIATE-RJ, () when it was accepted."""
    with wire.Wire(port) as line:
        kind, body = line.send(wire.associate_rq()).read()
        return tuple(body[1:4]) if kind == 3 else ()


ONE_BY_ONE = 'compression = "off"\nassociations = 1'
"""As DCMTK's archive serves associations."""
LEFT = {"no byte": 0, "one block": 1, "half an object": 300_000}
"""A file system gives space by the block: where one byte is free, so is the block that it is in."""


@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize("disk", [disks.ext4, disks.tmpfs], ids=["ext4", "tmpfs"])
def test_a_full_disk_takes_nothing_loses_nothing_delivers_and_receives_again(site, disk, left):
    here = site(disk)
    here.box.start()
    assert here.scanner.sends(3) == [0, 0, 0]
    here.remembers()
    here.disk.fill({1: here.disk.block}.get(LEFT[left], LEFT[left]))
    told = here.scanner.sends(3)
    assert all(status in (OUT_OF_RESOURCES, -1) for status in told), told
    if left == "half an object":
        assert told[0] == OUT_OF_RESOURCES, "room was left, so the association was taken and the object begun"
    here.fetches(3)
    assert until(here.box.delivered_all), "the ledger needs the space that was kept for it"
    assert set(here.scanner.sends_again()) != {0}, "the disk is full still"
    assert until(lambda: here.status()["ledger_fault"] == "")
    here.has_touched_nothing()
    here.has_kept_its_word()
    here.disk.make_room()
    here.receives_again()
    assert until(lambda: len(here.delivered()) == 6)
    here.has_touched_nothing()
    here.has_kept_its_word()


def test_status_and_doctor_say_why_nothing_is_received_and_what_to_do(site):
    here = site()
    here.box.start()
    here.disk.fill()
    assert rejection(here.box.port) == REJECTED_TRANSIENT_LOCAL_LIMIT
    assert here.status()["disk"]["room"] == "full"
    status, doctor = here.cli("status"), here.cli("doctor")
    assert re.search(r"ALARM disk: 0 bytes are free, .*0xA700.*\n +fix: free space", status.stdout), status.stdout
    assert re.search(r"✖ disk: .*0 bytes are free.*\n +fix: free space", doctor.stdout), doctor.stdout
    assert re.search(r"✖ flush: .*No space left.*\n +fix: free space", doctor.stdout), doctor.stdout
    assert doctor.returncode == 1


def test_without_inodes_nothing_is_taken_and_delivery_goes_on(site):
    here = site(disks.ext4, "-N", 256)
    here.box.start()
    assert here.scanner.sends(3) == [0, 0, 0]
    here.remembers()
    here.disk.fill_inodes()
    assert here.disk.free() > 10_000_000
    assert rejection(here.box.port) == REJECTED_TRANSIENT_LOCAL_LIMIT
    assert set(here.scanner.sends(3)) == {-1}
    here.fetches(3)
    assert until(here.box.delivered_all)
    assert "0 inodes are free" in here.cli("status").stdout
    here.has_touched_nothing()
    here.disk.make_room()
    here.receives_again()
    here.has_kept_its_word()


def test_an_object_that_crosses_the_reserve_is_refused_in_the_middle_and_leaves_nothing(site):
    here = site(spool="reserve_bytes = 8000000\nhigh_water_percent = 100\n")
    here.box.start()
    assert here.scanner.sends(2) == [0, 0]
    here.remembers()
    here.disk.fill(20_000_000)
    long = next(ct_study(12, 1))
    long.PixelData = bytes(24_000_000)
    reference = here.disk.free()
    with open(here.scanner.log, "a") as log:
        modality = Modality("127.0.0.1", here.box.port, "EDGEGW", "CT1", log)
        told = modality.send([long, here.scanner.images[2]], lambda _: None)
    assert [one.status for one in told] == [OUT_OF_RESOURCES, 0], "what fits is taken on the same association"
    assert "8000000 are kept in reserve" in here.box.log()
    assert reference - here.disk.free() < 4_000_000, "the part was dropped"
    here.has_touched_nothing()
    here.has_kept_its_word()


def test_above_high_water_new_associations_are_rejected_and_open_ones_go_on(site, images):
    here = site(spool="reserve_bytes = 1000000\nhigh_water_percent = 70\nretention_yields = false\n")
    here.box.start()
    entity = AE(ae_title="CT1")
    entity.add_requested_context(CTImageStorage, images[0].file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", here.box.port, ae_title="EDGEGW")
    assert association.send_c_store(images[0]).Status == 0
    here.disk.fill(8_000_000)
    assert rejection(here.box.port) == REJECTED_TRANSIENT_LOCAL_LIMIT
    assert association.send_c_store(images[1]).Status == 0
    association.release()
    assert "new associations are rejected" in here.cli("status").stdout
    here.disk.make_room()
    assert here.scanner.sends(3) == [0, 0, 0]
    here.has_kept_its_word()


def test_confirmed_copies_make_room_by_themselves_and_what_waits_is_not_touched(site):
    """Nobody removes anything: what the archive has confirmed goes, and the scanner is heard again."""
    here = site(spool="reserve_bytes = 500000\nhigh_water_percent = 100\n")
    here.archive.start()
    here.box.start(sys.executable, "-c", IMPATIENT)
    assert set(here.scanner.sends(8)) == {0}
    assert until(here.box.delivered_all)
    here.archive.stop()
    assert here.scanner.sends(2) == [0, 0]
    waiting = set(here.box.shelf()) - here.delivered()
    assert len(waiting) == 2
    here.disk.fill()
    assert rejection(here.box.port) == REJECTED_TRANSIENT_LOCAL_LIMIT
    assert until(lambda: here.scanner.sends_last() == [0], RESUMES_WITHIN_S), here.box.log()
    assert waiting <= set(here.box.shelf())
    assert here.status()["retired"] > 0
    here.has_kept_its_word()


def test_started_on_a_disk_without_a_byte_or_an_inode_it_delivers_what_it_has(site):
    """After a clean stop the ledger's journal is gone: even to open it takes space and two inodes."""
    here = site(disks.ext4, "-N", 256)
    here.box.start()
    assert here.scanner.sends(3) == [0, 0, 0]
    here.remembers()
    assert here.box.stop() == 0
    here.disk.fill()
    here.disk.fill_inodes()
    assert not (here.disk.folder / "ledger.db-wal").exists()
    here.archive.start()
    here.box.start()
    assert until(here.box.delivered_all), here.box.log()
    assert here.delivered() == here.scanner.acknowledged()
    assert rejection(here.box.port) == REJECTED_TRANSIENT_LOCAL_LIMIT
    here.disk.make_room()
    here.receives_again()
    here.has_touched_nothing()
    here.has_kept_its_word()


def test_files_that_are_dropped_or_imported_stay_where_they_are_until_there_is_room(site, tmp_path, images):
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    here = site(folder=f'[[folder]]\npath = "{inbox}"\nsettle_s = 0.1\n')
    here.box.start()
    here.disk.fill()
    dropped, imported = inbox / "a.dcm", tmp_path / "b.dcm"
    for path, dataset in ((dropped, images[0]), (imported, images[1])):
        dataset.save_as(path, enforce_file_format=True)
    before = dropped.read_bytes()
    done = here.cli("import", imported)
    assert done.returncode == 1 and "not taken" in done.stderr, done
    assert here.cli("import", imported, "--json").stdout.count('"taken": false') == 1
    time.sleep(1.0)  # longer than it takes to settle
    assert dropped.read_bytes() == before and imported.exists()
    assert here.status()["accepted"] == 0
    here.disk.make_room()
    assert until(lambda: (inbox / "accepted" / "a.dcm").exists(), RESUMES_WITHIN_S), here.box.log()
    assert (inbox / "accepted" / "a.dcm").read_bytes() == before
    assert here.cli("import", imported).returncode == 0
    here.fetches(2)
    assert until(lambda: here.delivered() == set(here.box.shelf()))


def test_what_the_archive_takes_only_in_another_syntax_waits_for_room_and_is_not_held(site):
    here = site(archive=("+xi",))
    here.box.start()
    assert here.scanner.sends(2) == [0, 0]
    here.disk.fill()
    here.archive.start()
    assert until(lambda: "no room for a rendition" in here.box.log()), here.box.log()
    assert here.row()["held"] == 0
    here.disk.make_room()
    assert until(lambda: here.row()["confirmed"] == 2, RESUMES_WITHIN_S), here.row()


WRITES = "pwrite64,fdatasync,fsync,rename,unlink"


def test_a_disk_that_becomes_read_only_and_writable_again(site):
    """Idle, and with an object on its way; nobody restarts anything. The kernel's answer is injected, since it refuses
    to remount what is open for writing, and what makes a disk read-only all the same (`remount,abort`, an error of the
    file system: the next test) lets nobody write again before it was unmounted. A device-mapper, or SysRq, is not in
    every kernel that these tests run on."""
    here = site()
    here.box.start()
    assert disks.run("mount", "-o", "remount,ro", here.disk.folder).returncode != 0
    assert here.scanner.sends(2) == [0, 0]
    here.remembers()
    with failing(here.box, WRITES, "EROFS"):
        assert set(here.scanner.sends(2)) <= {OUT_OF_RESOURCES, -1}
        here.fetches(2)
        assert until(lambda: here.status()["ledger_fault"])
    here.receives_again()
    here.has_touched_nothing()
    assert until(lambda: here.row()["queued"] == here.row()["sending"] == 0)
    assert here.box.stop() == 0
    here.box.start()
    here.has_kept_its_word()


def test_a_disk_that_ext4_gives_up_ends_the_process_with_75_and_the_next_start_has_everything(site):
    """errors=remount-ro, while objects come in; then what a person does: fsck, mount, start."""
    here = site()
    here.box.start(sys.executable, "-c", IMPATIENT)
    assert here.scanner.sends(2) == [0, 0]
    stream = threading.Thread(target=here.scanner.sends, args=(10,))
    stream.start()
    assert until(lambda: len(here.scanner.acknowledged()) > 3)
    here.disk.fails()
    read_only = "the file system is read-only"
    assert until(lambda: here.status()["disk"]["reason"] == read_only, 5.0), "the alarm comes within five seconds"
    stream.join(60)
    assert rejection(here.box.port) == REJECTED_TRANSIENT_LOCAL_LIMIT
    assert "ALARM disk: the file system is read-only" in here.cli("status").stdout
    doctor = here.cli("doctor").stdout
    assert re.search(r"✖ disk: .*read-only\n +fix: .*fsck", doctor), doctor
    here.archive.start()
    assert until(lambda: here.delivered() >= here.scanner.acknowledged()), "delivery goes on"
    assert here.box.process.wait(60) == 75
    here.disk.unmount()
    here.disk.check()
    here.disk.mount("ro")
    again = here.cli("run")
    assert again.returncode == 75 and "Read-only" in again.stderr, again
    here.disk.unmount()
    here.disk.mount()
    here.box.start()
    assert here.scanner.acknowledged() <= set(here.box.shelf())
    here.receives_again()
    here.has_kept_its_word()


@pytest.mark.parametrize("call", ["fdatasync", "pwrite64"])
def test_an_object_that_the_disk_fails_is_refused_and_never_flushed_again(site, tmp_path, call):
    here = site()
    here.box.start()
    assert here.scanner.sends(2) == [0, 0]
    parts, trace = here.disk.folder / "parts", tmp_path / "trace"
    prepared = sorted(parts.iterdir())
    with failing(here.box, call, "EIO", when=":when=1", paths=prepared, log=trace):
        assert here.scanner.sends(3) == [OUT_OF_RESOURCES, 0, 0]
    lines = [line for file in tmp_path.glob("trace.*") for line in file.read_text().splitlines()]
    failed = next(re.search(r"<([^>]+\.part)>", line).group(1) for line in lines if "EIO" in line)
    assert sum(failed in line for line in lines) == 1, "after the error it was not touched again"
    assert not Path(failed).exists(), "the part was dropped"
    assert here.status()["ledger_fault"] == ""
    here.receives_again()
    here.has_kept_its_word()


@pytest.mark.parametrize("call", ["fdatasync", "pwrite64"])
def test_a_ledger_that_fails_stops_receiving_not_delivering(site, call):
    here = site()
    here.box.start()
    assert here.scanner.sends(3) == [0, 0, 0]
    here.remembers()
    data = here.disk.folder
    with failing(here.box, call, "EIO", paths=[data / "ledger.db", data / "ledger.db-wal"]):
        with ThreadPoolExecutor(1) as pool:
            told = pool.submit(here.scanner.sends, 1)
            assert until(lambda: here.status()["ledger_fault"], 5.0)
            assert set(told.result(30)) <= {OUT_OF_RESOURCES, -1}
        assert rejection(here.box.port) == REJECTED_TRANSIENT_LOCAL_LIMIT
        here.box.process.send_signal(signal.SIGHUP)
        here.fetches(3)
        assert "ALARM ledger" in here.cli("status").stdout
        assert "reloaded" not in here.box.log()
    here.receives_again()
    assert until(lambda: "reloaded" in here.box.log()), "a reload waits until it can be written down"
    assert until(here.box.delivered_all)
    here.has_touched_nothing()
    here.has_kept_its_word()


def test_a_ledger_that_goes_on_failing_ends_the_process_with_75_and_the_next_start_verifies(site):
    here = site()
    here.box.start(sys.executable, "-c", IMPATIENT)
    assert here.scanner.sends(3) == [0, 0, 0]
    data = here.disk.folder
    with failing(here.box, "fdatasync", "EIO", paths=[data / "ledger.db-wal"]):
        assert set(here.scanner.sends(1)) <= {OUT_OF_RESOURCES, -1}
        here.fetches(3)
        assert here.box.process.wait(60) == 75
    here.box.start()
    assert here.scanner.acknowledged() <= set(here.box.shelf())
    assert until(here.box.delivered_all)
    here.receives_again()
    here.has_kept_its_word()
