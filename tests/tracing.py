"""strace on a program that runs already."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.conftest import until


def attach(pid: int, *options: str) -> subprocess.Popen:
    """Start strace with these options on a process, and return when it follows each of its threads."""
    tracer = subprocess.Popen(["strace", "-f", "-qq", *options, "-p", str(pid)])
    assert until(lambda: _follows(tracer.pid, pid)), "strace does not attach"
    return tracer


def _follows(tracer: int, pid: int) -> bool:
    """True when every thread of a process is followed, or it has been killed by what strace does to it."""
    for task in Path(f"/proc/{pid}/task").glob("*/status"):
        try:
            status = task.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # this thread has ended
        if f"TracerPid:\t{tracer}\n" not in status and not re.search(r"^State:\t[ZX]", status, re.M):
            return False
    return True
