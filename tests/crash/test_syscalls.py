"""Killed, and failed by the disk, at every system call of an object's whole life (`life.py`).

The short form takes the first three calls of every kind, the long form every call until the run passes unharmed.
A kind is a system call and what it is done to: a part, an object, the ledger, its journal, a folder.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from tests.crash import life, replay
from tests.crash.campaign import done_already, kept_on_failure, report
from tests.crash.test_power_cut import after_recovery

CALLS = "openat,pwrite64,ftruncate,fdatasync,fsync,rename,unlink,mkdir"
OBJECTS = 8
FIRST = 3
KINDS = {
    "part": re.compile(r"/parts/\w+\.part"),
    "object": re.compile(r"/objects/\d+/\w+\.dcm"),
    "journal": re.compile(r"/ledger\.db-(wal|journal)"),
    "ledger": re.compile(r"/ledger\.db\b"),
    "folder": re.compile(r"/(parts|objects(/\d+)?|quarantine|renditions|data)[\">]"),
}
"""Asked in this order; a call on anything else is not ours."""


def points(trace: Path, data: Path) -> dict[tuple[str, str], list[int]]:
    """(system call, what it is done to) -> its numbers among the calls of that name, as strace counts them."""
    found, count = defaultdict(list), defaultdict(int)
    for line in trace.read_text().splitlines():
        name = re.match(r"(?:\d+ +)?(\w+)\(", line)
        if name is None:
            continue
        count[name[1]] += 1
        kind = next((kind for kind, pattern in KINDS.items() if pattern.search(line) and str(data) in line), None)
        if kind is not None and "-shm" not in line:
            found[name[1], kind].append(count[name[1]])
    return found


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> dict[tuple[str, str], list[int]]:
    folder = tmp_path_factory.mktemp("clean")
    data = folder / "data"
    strace(replay.life(data, OBJECTS), "-o", str(folder / "trace"), "-y", "-e", f"trace={CALLS}")
    return points(folder / "trace", data)


def strace(command: list[str], *options: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["strace", "-f", "-qq", *options, *command], capture_output=True, text=True, cwd=replay.ROOT, timeout=60
    )


def struck(data: Path, name: str, nth: int, fault: str) -> tuple[list[str], int]:
    """Live with one fault at the Nth call of a name; return what was said, and the exit code."""
    options = ("-o", "/dev/null", "-e", f"trace={name}", "-e", f"inject={name}:{fault}:when={nth}")
    run = strace(replay.life(data, OBJECTS), *options)
    assert "Traceback" not in run.stderr, f"{name} {nth} {fault}: {run.stderr[-1500:]}"
    return run.stdout.splitlines(), run.returncode


def lives_on(data: Path) -> list[str]:
    """Start again without a fault, and come to the end; return what was said."""
    lines: list[str] = []
    life.live(data, OBJECTS, lines.append)
    return lines


def suffer(folder: Path, name: str, kind: str, nth: int, fault: str) -> int:
    """One fault, a restart, the oracle before and after; return the exit code of the run that was struck."""
    data = folder / f"{name}-{kind}-{nth}-{fault.rpartition('=')[2]}" / "data"
    data.parent.mkdir()
    lines, code = struck(data, name, nth, fault)
    assert code in (0, 75, -signal.SIGKILL), f"{data.parent.name}: exit code {code}"
    if data.exists():
        broken = after_recovery(data, lines)
        assert not broken, f"{data.parent.name}: {broken}"
    lines += lives_on(data)
    broken = after_recovery(data, lines)
    assert not broken, f"{data.parent.name}, in the end: {broken}"
    left = [path.name for path in (data / "parts").iterdir()]
    assert not left, f"{data.parent.name}: {left} left"
    shutil.rmtree(data.parent)
    return code


EVERY = [
    ("openat", "part"), ("openat", "journal"), ("openat", "ledger"), ("openat", "object"), ("openat", "folder"),
    ("pwrite64", "part"), ("pwrite64", "journal"), ("pwrite64", "ledger"),
    ("fdatasync", "part"), ("fdatasync", "journal"), ("fdatasync", "ledger"), ("fsync", "folder"),
    ("rename", "part"), ("unlink", "object"), ("unlink", "part"), ("unlink", "journal"), ("mkdir", "folder"),
]  # fmt: skip
LIVELY = [kind for kind in EVERY if kind[0] != "mkdir"]
kinds = pytest.mark.parametrize(("name", "kind"), EVERY, ids=[" ".join(kind) for kind in EVERY])


@kinds
def test_killed_at_a_system_call_of_the_whole_life(clean, tmp_path, name, kind):
    assert clean[name, kind], "this call is no longer made: take it off the list, or find where it went"
    with kept_on_failure(tmp_path, "kill", 0):
        for nth in clean[name, kind][:FIRST]:
            assert suffer(tmp_path, name, kind, nth, "signal=SIGKILL") == -signal.SIGKILL


ERRORS = {
    "EIO": ("pwrite64", "fdatasync", "fsync", "rename", "unlink", "openat"),
    "ENOSPC": ("pwrite64", "fdatasync", "rename", "openat", "mkdir"),
    "EMFILE": ("openat",),
    "EINTR": ("pwrite64", "fdatasync", "openat"),
}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("error", ERRORS)
def test_failed_by_the_disk_once_at_each_kind_of_call(clean, tmp_path, error):
    with kept_on_failure(tmp_path, error, 0):
        for name, kind in EVERY:
            if name in ERRORS[error]:
                for nth in clean[name, kind][:FIRST]:
                    suffer(tmp_path, name, kind, nth, f"error={error}")


def taken_by_half(folder: Path, nth: int) -> bool:
    """Live with a kernel that takes half of the Nth write of an object; False when there is no Nth."""
    data = folder / f"short-{nth}" / "data"
    data.parent.mkdir()
    run = subprocess.run(
        replay.life(data, OBJECTS), capture_output=True, text=True, cwd=replay.ROOT, timeout=60,
        env={**os.environ, "LIFE_SHORT_WRITE": str(nth)},
    )  # fmt: skip
    lines = run.stdout.splitlines()
    assert run.returncode == 0, run.stderr[-1500:]
    assert len([line for line in lines if line.startswith("acknowledged")]) == OBJECTS, "a short write is no error"
    broken = after_recovery(data, lines)
    assert not broken, f"{data.parent.name}: {broken}"
    shutil.rmtree(data.parent)
    return "cut short" in lines


def test_a_write_that_the_kernel_takes_by_half_is_gone_on_with(tmp_path):
    with kept_on_failure(tmp_path, "short", 0):
        assert all(taken_by_half(tmp_path, nth) for nth in range(1, FIRST + 1))


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_every_write_that_the_kernel_takes_by_half_is_gone_on_with(tmp_path):
    row = "short write at every call"
    if done_already(row):
        pytest.skip("this program has passed it already")
    nth = 1
    with kept_on_failure(tmp_path, "short-long", 0):
        while taken_by_half(tmp_path, nth):
            nth += 1
    report(row, faults=nth - 1)


@pytest.mark.long
@pytest.mark.timeout(7200)
@kinds
def test_killed_at_every_call_until_the_run_passes(clean, tmp_path, name, kind):
    row = f"SIGKILL at every {name} of a {kind}"
    if done_already(row):
        pytest.skip("this program has passed it already")
    with kept_on_failure(tmp_path, "kill-long", 0):
        for nth in clean[name, kind]:
            suffer(tmp_path, name, kind, nth, "signal=SIGKILL")
    report(row, kills=len(clean[name, kind]))


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("error", ERRORS)
def test_failed_by_the_disk_at_every_call(clean, tmp_path, error):
    row = f"{error} at every call"
    if done_already(row):
        pytest.skip("this program has passed it already")
    count = 0
    with kept_on_failure(tmp_path, f"{error}-long", 0):
        for name, kind in EVERY:
            for nth in clean[name, kind] if name in ERRORS[error] else ():
                suffer(tmp_path, name, kind, nth, f"error={error}")
                count += 1
    report(row, faults=count)
