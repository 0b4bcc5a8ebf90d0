"""Little memory, few descriptors, few threads: scanners are told to come again, and nothing is lost.

CAMPAIGN_MEGABYTES sizes the objects of the long form (500).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests import guard
from tests.crash.archive import DimseArchive
from tests.crash.campaign import Fleet, Scanner, count_of, done_already, kept_on_failure, prove, report
from tests.crash.test_kill_on_the_line import destination

CGROUPS = Path("/sys/fs/cgroup")
LIMIT_MB = 256
LARGE = 8
"""Objects that come at the same time."""


@contextmanager
def cgroup(controller: str, file: str, limit: int) -> Iterator[Path | None]:
    """A control group (version 1) of our own with a limit; None where this machine does not let us."""
    folder = CGROUPS / controller / f"campaign{os.getpid()}"
    try:
        folder.mkdir()
        (folder / file).write_text(str(limit))
    except OSError:
        yield None
        return
    try:
        yield folder
    finally:
        deadline = time.monotonic() + 10
        while folder.exists() and time.monotonic() < deadline:
            with suppress(OSError):  # the last process is not quite gone
                folder.rmdir()
            time.sleep(0.1)


def peak_kb(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0])


def take_large_objects(make_box, wait_until, megabytes: int) -> tuple[int, bool]:
    """Eight at once in 256 MB; return the peak of resident memory in KB, and whether the kernel held the limit."""
    archive = DimseArchive()
    size = megabytes << 20
    scanners = [Scanner(number, f"US{number}", sizes=(size, size)) for number in range(LARGE)]
    for one in scanners:
        one.prepare()
    with cgroup("memory", "memory.limit_in_bytes", LIMIT_MB << 20) as group:
        box = make_box(destination(archive).replace("timeout_s = 2", "timeout_s = 60")).start()
        if group is not None:
            (group / "cgroup.procs").write_text(str(box.process.pid))
        threads = [threading.Thread(target=one.send, args=(box.port, 1, 300.0)) for one in scanners]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(one.acknowledged for one in scanners), box.log()
        assert wait_until(box.delivered_all, 60 + megabytes * 2), box.ask("status")
        assert box.process.poll() is None
        prove(box, scanners, {"pacs": archive})
        peak = peak_kb(box.process.pid)
        box.kill()
    archive.close()
    assert peak < LIMIT_MB << 10, f"{peak} KB resident"
    return peak, group is not None


def test_eight_large_objects_in_little_memory(make_box, tmp_path, wait_until):
    with kept_on_failure(tmp_path, "memory", 0):
        peak, _ = take_large_objects(make_box, wait_until, count_of("MEGABYTES", 48))
    assert peak < 160 << 10, f"memory follows the size of the objects: {peak} KB"


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_eight_objects_of_500_mb_in_256_mb(make_box, tmp_path, wait_until):
    row = "memory 256 MB, eight objects of 500 MB"
    if done_already(row):
        pytest.skip("this program has passed it already")
    megabytes = count_of("MEGABYTES", 500)
    with kept_on_failure(tmp_path, "memory-long", 0):
        peak, held = take_large_objects(make_box, wait_until, megabytes)
    report(row, objects=LARGE, megabytes=megabytes, peak_resident_MB=peak >> 10, cgroup="yes" if held else "no")


def under_siege(box, archive: DimseArchive, wait_until, scanners: int, seconds: float) -> None:
    """Many scanners at once; when they have gone, all that was promised is delivered, and nothing is left behind."""
    with Fleet(1, scanners, box.port, batch=4) as fleet:
        time.sleep(seconds)
        assert wait_until(lambda: fleet.acknowledged > 0), box.log()
    assert box.process.poll() is None, box.log()
    assert wait_until(box.delivered_all, 40), box.ask("status")
    prove(box, fleet.scanners, {"pacs": archive})
    assert Scanner(2, "AFTER").send(box.port, 3) == 3
    assert wait_until(lambda: sum(guard.open_files(box.process.pid)) < 30), guard.open_files(box.process.pid)


def test_128_descriptors(make_box, tmp_path, wait_until):
    archive = DimseArchive()
    with kept_on_failure(tmp_path, "descriptors", 0):
        box = make_box(destination(archive), listener="max_associations = 400\nmax_associations_per_address = 400")
        box.start("prlimit", "--nofile=128")
        under_siege(box, archive, wait_until, 110, 5)
        box.kill()
    archive.close()


def test_64_threads(make_box, tmp_path, wait_until):
    archive = DimseArchive()
    with cgroup("pids", "pids.max", 64) as group, kept_on_failure(tmp_path, "threads", 0):
        if group is None:
            pytest.skip("this machine has no pids controller (cgroup 1) that we may use")
        box = make_box(destination(archive), listener="max_associations = 400\nmax_associations_per_address = 400")
        box.start()
        (group / "cgroup.procs").write_text(str(box.process.pid))
        under_siege(box, archive, wait_until, 80, 5)
        box.kill()
    archive.close()
