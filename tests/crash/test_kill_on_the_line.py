"""Killed at system calls of a running gateway that sends and asks for commitment; writes that are cut short."""

from __future__ import annotations

import resource
import shutil

import pytest

from tests import wire
from tests.crash.archive import DimseArchive, Line
from tests.crash.campaign import Scanner, done_already, kept_on_failure, prove, report
from tests.tracing import attach

CALLS = [
    (step, syscall)
    for step, syscalls in (("associate", "sendto recvfrom read fdatasync"), ("action", "sendto recvfrom fdatasync"))
    for syscall in syscalls.split()
]
OBJECTS = 4
COMMITMENT = 'confirm = "commitment"\nconfirm_after_s = 0.1\nreport_wait_s = 2\nconfirm_timeout_s = 1\n'


def destination(archive: DimseArchive) -> str:
    return (
        f'[[destination]]\nname = "pacs"\nkind = "dimse"\nhost = "127.0.0.1"\nport = {archive.port}\nae_title = "ANY"\n'
        f'compression = "off"\ntimeout_s = 2\nretry_first_s = 0.05\nretry_ceiling_s = 0.2\n{COMMITMENT}'
    )


def not_yet(point: str):
    """Everything goes well up to this point, where the archive closes."""

    def behaviour(line: Line, here: str) -> None:
        if here == point:
            line.close()

    return behaviour


def struck(make_box, wait_until, step: str, syscall: str, nth: int) -> bool:
    """Kill it at the Nth call while it sends (`associate`), or when everything is sent and it asks (`action`); False
    when it came to its end before."""
    archive, scanner = DimseArchive(), Scanner(nth, sizes=(100_000, 100_000))
    archive.behaviour = not_yet(step)
    box = make_box(destination(archive), name=f"{syscall}{nth}")
    with kept_on_failure(box.folder, f"kill-{step}", nth):
        box.start()
        assert scanner.send(box.port, OBJECTS) == OBJECTS
        assert wait_until(lambda: archive.met >= 1), box.log()
        inject = f"inject={syscall}:signal=SIGKILL:when={nth}"
        trace = attach(box.process.pid, "-o", "/dev/null", "-e", f"trace={syscall}", "-e", inject)
        failed = archive.met
        # strace counts in each thread, and only what fails again and again takes the one that asks to its third call.
        assert wait_until(lambda: box.process.poll() is not None or archive.met >= failed + 2), box.log()
        archive.behaviour = lambda line, here: None
        assert wait_until(lambda: box.process.poll() is not None or archive.committed >= OBJECTS, 30), box.log()
        killed = bool(wait_until(lambda: box.process.poll() is not None, 2))  # what was committed is written down now
        if not killed:
            box.kill()
        trace.wait(10)
        box.start()
        assert wait_until(box.delivered_all), box.ask("status")
        prove(box, [scanner], {"pacs": archive})
        assert archive.committed >= OBJECTS
        assert all(count <= 3 for count in archive.times.values()), archive.times
        box.kill()
    archive.close()
    shutil.rmtree(box.folder)
    return killed


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize(("step", "syscall"), CALLS)
def test_killed_at_a_system_call_while_sending_and_while_asking(make_box, wait_until, step, syscall, nth):
    assert struck(make_box, wait_until, step, syscall, nth), "the fault was not reached"


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("step", "syscall"), CALLS)
def test_killed_at_every_call_of_the_line_until_the_run_passes(make_box, wait_until, step, syscall):
    row = f"SIGKILL at every {syscall} while {'sending' if step == 'associate' else 'asking'}"
    if done_already(row):
        pytest.skip("this program has passed it already")
    nth = 1
    while struck(make_box, wait_until, step, syscall, nth):
        nth += 1
    report(row, kills=nth - 1)


def test_a_write_that_is_cut_short_is_gone_on_with_or_refused(make_box, tmp_path, wait_until):
    """A limit on the size of files makes the kernel write less than it was told, and then nothing."""
    archive, scanner = DimseArchive(), Scanner(1, sizes=(900_000, 900_000))
    with kept_on_failure(tmp_path, "short-write", 1):
        box = make_box(destination(archive)).start()
        assert scanner.send(box.port, 1) == 1
        soft, hard = resource.prlimit(box.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(box.process.pid, resource.RLIMIT_FSIZE, (300_001, hard))
        with wire.Wire(box.port, "127.0.0.1") as line:
            line.associate()
            uid, body = scanner.next_object()
            assert line.store(uid, body) == 0xA700
        resource.prlimit(box.process.pid, resource.RLIMIT_FSIZE, (soft, hard))
        assert wait_until(lambda: scanner.send(box.port, 3) == 3), box.log()
        assert wait_until(box.delivered_all), box.ask("status")
        prove(box, [scanner], {"pacs": archive})
        box.kill()
    archive.close()
