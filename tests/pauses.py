"""Runs tests on a machine that seems to pause: a process below them, chosen by chance, stands still for a while, again
and again. What passes then does not depend on when a busy machine gives whom its turn.

    SEED=1 python -m tests.pauses -n 5 -m "not long"    # options are pytest's
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

APART_S = 0.3, 1.5
PAUSE_S = 0.5, 2.0
"""Shorter than any silence after which a peer is given up by the defaults."""


def below(root: int) -> list[int]:
    """Process ids of all descendants."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, ahead = [], [root]
    while ahead:
        its = children.get(ahead.pop(), [])
        found += its
        ahead += its
    return found


def stand_still(pid: int, seconds: float) -> bool:
    """Stop a process for so long; False when it had ended already."""
    try:
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return False
    return True


def main() -> int:
    luck, pauses = random.Random(int(os.environ.get("SEED", "1"))), 0
    tests = subprocess.Popen([sys.executable, "-m", "pytest", *sys.argv[1:]])
    while tests.poll() is None:
        time.sleep(luck.uniform(*APART_S))
        if processes := below(tests.pid):
            pauses += stand_still(luck.choice(processes), luck.uniform(*PAUSE_S))
    print(f"{pauses} pauses")
    return tests.returncode


if __name__ == "__main__":
    sys.exit(main())
