"""The process is killed at the places of the accept path that matter; the oracle stands outside.

acknowledged is a subset of delivered and held, byte for byte (contract D1, D2).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pydicom
import pytest

from tests.tracing import attach


def storescu(port, *files):
    """Send on one association, and go on when one object is refused."""
    return subprocess.run(
        ["storescu", "-v", "--no-halt", "127.0.0.1", str(port), *map(str, files)],
        capture_output=True,
        text=True,
        env={**os.environ, "TCP_NODELAY": "1"},
        timeout=60,
    )


def acknowledged(sent) -> int:
    return (sent.stdout + sent.stderr).count("Received Store Response (Success)")


def answers(sent) -> list[bool]:
    """Whether each C-STORE was answered with success, in order."""
    lines = (sent.stdout + sent.stderr).splitlines()
    return ["(Success)" in line for line in lines if "Received Store Response" in line]


@pytest.mark.parametrize(
    ("syscall", "nth"),
    [(syscall, nth) for syscall in ("fdatasync", "rename", "pwrite64") for nth in (1, 2, 3, 5, 8)] + [("fsync", 1)],
)
def test_killed_at_a_system_call_of_the_accept_path(make_box, ct_files, digest_of, syscall, nth):
    box = make_box().start()
    inject = f"inject={syscall}:signal=SIGKILL:when={nth}"
    trace = attach(box.process.pid, "-o", "/dev/null", "-e", f"trace={syscall}", "-e", inject)
    sent = storescu(box.port, *ct_files[:8])
    told = acknowledged(sent)
    box.kill()
    trace.wait(10)
    assert told < 8, "the fault was not reached"
    box.start()
    promised = [digest_of(path) for path in ct_files[:told]]
    assert set(promised) <= set(box.shelf())
    assert box.ask("status")["held"] >= told
    assert "custody_loss" not in box.ask("status")["alarms"]
    assert acknowledged(storescu(box.port, *ct_files[:8])) == 8
    assert set(box.shelf()) == {digest_of(path) for path in ct_files[:8]}
    assert box.ask("status")["accepted"] == 8


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize(
    ("syscall", "nth"),
    [("fdatasync", 1), ("fdatasync", 2), ("fdatasync", 3), ("rename", 3), ("pwrite64", 3), ("fsync", 1)],
)
def test_an_error_of_the_disk_refuses_one_object_and_goes_on(make_box, ct_files, digest_of, syscall, nth, error):
    box = make_box().start()
    inject = f"inject={syscall}:error={error}:when={nth}"
    trace = attach(box.process.pid, "-o", "/dev/null", "-e", f"trace={syscall}", "-e", inject)
    told = answers(storescu(box.port, *ct_files[:6]))
    trace.terminate()
    trace.wait(10)
    assert not all(told), "the fault was not reached"
    assert all(digest_of(path) in box.shelf() for path, ok in zip(ct_files, told, strict=False) if ok)

    def all_taken():
        return acknowledged(storescu(box.port, *ct_files[:6])) == 6

    deadline = time.monotonic() + 20
    while not all_taken() and time.monotonic() < deadline:
        time.sleep(0.5)
    box.kill()
    box.start()
    assert set(box.shelf()) == {digest_of(path) for path in ct_files[:6]}
    assert not list((box.folder / "data" / "parts").iterdir())
    assert box.ask("status")["sums_agree"]


@pytest.mark.parametrize("nth", [1, 2, 4, 7])
@pytest.mark.parametrize("syscall", ["pwrite64", "fdatasync", "unlink", "openat"])
def test_killed_in_the_middle_of_recovery_and_started_again(make_box, ct_files, digest_of, syscall, nth):
    """The worst start: the ledger is gone, every object must be adopted, and parts lie about."""
    box = make_box().start()
    assert acknowledged(storescu(box.port, *ct_files[:6])) == 6
    box.kill()
    data = box.folder / "data"
    for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
        (data / name).unlink(missing_ok=True)
    for number in range(8):
        (data / "parts" / f"{number:032x}.part").write_bytes(b"half")
    killed = subprocess.run(
        ["strace", "-f", "-qq", "-o", "/dev/null", "-P", str(data / "parts"), "-P", str(data / "ledger.db"),
         "-P", str(data / "ledger.db-wal"), *(arg for n in range(8) for arg in ("-P", f"{data}/parts/{n:032x}.part")),
         "-e", f"trace={syscall}", "-e", f"inject={syscall}:signal=SIGKILL:when={nth}",
         sys.executable, "-c", RECOVER.format(data=str(data))],
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert "recovered" not in killed.stdout or killed.returncode == 0
    box.start()
    assert set(box.shelf()) == {digest_of(path) for path in ct_files[:6]}
    status = box.ask("status")
    assert (status["held"], status["accepted"], status["sums_agree"]) == (6, 6, True)
    assert not list((data / "parts").iterdir())
    assert acknowledged(storescu(box.port, *ct_files[:6])) == 6
    assert box.ask("status")["accepted"] == 6


RECOVER = """
from pathlib import Path
from gateway.spool.spool import Spool
Spool(Path({data!r}), 0, 100)
print("recovered")
"""


def test_without_the_flush_the_oracle_would_notice(tmp_path, ct_files):
    """Negative control: order of system calls. Leave fdatasync out, and the check that guards D1 must fail."""
    trace = _accept_under_trace(tmp_path / "honest", ct_files[0], "")
    assert _flushed_before_rename(trace), trace
    broken = _accept_under_trace(tmp_path / "broken", ct_files[0], "import os; os.fdatasync = lambda fd: None")
    assert not _flushed_before_rename(broken)


def _accept_under_trace(folder, path, sabotage: str) -> list[str]:
    folder.mkdir()
    code = f"""
import sys, threading
{sabotage}
from pathlib import Path
from gateway.spool.spool import Spool
from gateway.arrive.reception import Reception
from gateway.arrive.part10_file import take
from gateway.model.instance import Door, Origin
spool = Spool(Path({str(folder / "data")!r}), 0, 100)
stop = threading.Event()
thread = threading.Thread(target=spool.committer.run, args=(stop, lambda: None)); thread.start()
with open({str(path)!r}, "rb") as file:
    take(Reception(spool, 1 << 30), file, Origin(Door.IMPORT))
stop.set(); thread.join(); spool.close()
"""
    out = folder / "trace"
    calls = "trace=fdatasync,fsync,rename,pwrite64,write"
    subprocess.run(
        ["strace", "-f", "-y", "-qq", "-s", "0", "-o", str(out), "-e", calls, sys.executable, "-c", code], check=True
    )
    return out.read_text().splitlines()


def _flushed_before_rename(trace: list[str]) -> bool:
    """True when a durable name holds bytes flushed after the last write, then the rename, then the journal flushed."""
    renamed = next(i for i, line in enumerate(trace) if "rename(" in line and ".part" in line)
    wrote = [i for i, line in enumerate(trace[:renamed]) if ".part" in line and "write" in line]
    named = any("fsync(" in line and "/parts" in line for line in trace[: wrote[0]])
    flushed = any("fdatasync" in line and ".part" in line for line in trace[wrote[-1] : renamed])
    journal = any("sync(" in line and "ledger.db-wal" in line for line in trace[renamed:])
    return named and flushed and journal


def test_what_comes_back_after_a_kill_still_opens(make_box, ct_files):
    box = make_box().start()
    assert acknowledged(storescu(box.port, *ct_files)) == len(ct_files)
    box.kill()
    box.start()
    for path in box.shelf().values():
        assert pydicom.dcmread(path).pixel_array.any()
