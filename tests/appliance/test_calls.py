"""The gateway does its whole work with the system calls, sockets and devices that its unit allows."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.story.test_scanner_to_archive import send

UNIT = Path(__file__).parents[2] / "systemd/dicom-gateway.service"
NEEDED = ("systemd-analyze", "strace")

pytestmark = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in NEEDED), reason="systemd-analyze or strace is not installed"
)


def group(name: str, seen: tuple[str, ...] = ()) -> set[str]:
    """The system calls of one of systemd's groups, by systemd's own list."""
    said = subprocess.run(
        ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True
    ).stdout
    calls: set[str] = set()
    for line in said.splitlines()[1:]:
        word = line.strip()
        if word.startswith("@") and word not in seen:
            calls |= group(word, (*seen, name))
        elif word and not word.startswith(("#", "@")):
            calls.add(word)
    return calls


def allowed() -> set[str]:
    calls: set[str] = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", UNIT.read_text(), re.MULTILINE):
        words = line.removeprefix("~").split()
        named = set().union(*(group(word) if word.startswith("@") else {word} for word in words))
        calls = calls - named if line.startswith("~") else calls | named
    return calls


def written_and_run(trace: str) -> list[str]:
    """The lines of calls that MemoryDenyWriteExecute refuses; one line is one call, or its beginning."""
    refused = re.compile(r"mmap\(.*PROT_WRITE\|PROT_EXEC|mprotect\(.*PROT_EXEC")
    return [line for line in trace.splitlines() if refused.search(line)]


ONLY_AS_ROOT = {"fchown"}
"""SQLite gives what it makes to the owner of the database, when it is root; the service is not."""


def test_receiving_compressing_and_sending_needs_no_call_that_the_unit_denies(
    make_box, make_archive, dimse, ct_files, tmp_path, wait_until
):
    trace = tmp_path / "trace"
    archive = make_archive("+xt").start()
    box = make_box(dimse(archive.port, more='compression = "jpeg-ls"\nassociations = 1'))
    box.start("strace", "-f", "-qq", "--seccomp-bpf", "-o", str(trace), "-e", "trace=all", patience_s=90)
    assert send(box.port, *ct_files[:2]).returncode == 0
    assert wait_until(box.delivered_all, 60)
    (gateway,) = map(int, Path(f"/proc/{box.process.pid}/task/{box.process.pid}/children").read_text().split())
    os.kill(gateway, signal.SIGTERM)  # strace keeps such signals to itself
    box.process.wait(30)
    text = trace.read_text(errors="replace")
    called = set(re.findall(r"^\d+\s+(\w+)\(", text, re.MULTILINE))
    assert {"fdatasync", "accept4", "prctl", "setpriority", "prlimit64"} <= called  # that it saw the workers as well
    assert called - allowed() - ONLY_AS_ROOT == set()
    families = set(re.findall(r"socket\((AF_\w+)", text))
    assert families <= {"AF_INET", "AF_INET6", "AF_UNIX"}
    assert written_and_run(text) == []


def test_what_memory_is_refused_is_seen_in_a_trace_of_several_threads():
    """A call that another thread's cut in two is not joined to that thread's."""
    harmless = """\
10 mprotect(0x7000, 65536, PROT_READ|PROT_WRITE <unfinished ...>
11 mmap(0x8000, 4096, PROT_READ|PROT_EXEC, MAP_PRIVATE|MAP_FIXED|MAP_DENYWRITE, 3, 0x10000 <unfinished ...>
10 <... mprotect resumed>)                 = 0
"""
    refused = """\
10 mprotect(0x7000, 65536, PROT_READ|PROT_EXEC <unfinished ...>
11 mmap(NULL, 4096, PROT_READ|PROT_WRITE|PROT_EXEC, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x9000
"""
    assert written_and_run(harmless) == []
    assert written_and_run(harmless + refused) == refused.splitlines()


def test_the_unit_allows_what_is_called_only_on_a_fault():
    assert {"ioprio_set", "sync_file_range", "statx", "renameat", "rt_sigaction", "socketpair"} <= allowed()
    assert {"mount", "reboot", "init_module", "ptrace", "bpf", "chroot", "settimeofday"}.isdisjoint(allowed())


def test_what_strace_sees_is_believed(tmp_path):
    trace = tmp_path / "trace"
    subprocess.run(["strace", "-f", "-o", trace, "mount", "/nowhere", "/nowhere"], capture_output=True)
    called = set(re.findall(r"^\d+\s+(\w+)\(", trace.read_text(), re.MULTILINE))
    assert {"mount", "move_mount", "fsopen"} & (called - allowed())
