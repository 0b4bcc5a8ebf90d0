"""What the rows of the campaign share: scanners that write down what they were told, the look from outside, the report.

A failure keeps spool and logs below CAMPAIGN_KEEP (default: the temporary folder), names the folder, and prints the
CAMPAIGN_SEED that repeats it. How long the long rows are: SOAK (seconds), CAMPAIGN_SECONDS (lines, destinations),
CAMPAIGN_KILLS, CAMPAIGN_CUTS, CAMPAIGN_FLIPS, CAMPAIGN_JUMPS, CAMPAIGN_STEPS_BYTES, CAMPAIGN_MEGABYTES,
CAMPAIGN_QUEUED, CAMPAIGN_ROWS.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pytest

from gateway import __version__
from tests import wire
from tests.conftest import Box
from tests.crash.archive import Server
from tests.crash.oracle import Evidence, Object, violations

REPORT = Path(__file__).with_name("REPORT.md")
ROOT = Path(__file__).parents[2]


def seed_of(row: str) -> int:
    """CAMPAIGN_SEED, or the same for each run of a row: what was green yesterday is not red by luck today."""
    return int(os.environ.get("CAMPAIGN_SEED", str(int.from_bytes(row.encode()[:3], "big"))))


def count_of(name: str, default: int) -> int:
    """How often: CAMPAIGN_<NAME>, else the default."""
    return int(os.environ.get(f"CAMPAIGN_{name}", str(default)))


class Scanner:
    """Sends small CT objects of its own, and writes down what it was told. `sent` is written before the first byte."""

    def __init__(self, seed: int, name: str = "SCANNER", *, sizes: tuple[int, int] = (2_000, 60_000)) -> None:
        self.name, self.sizes = name, sizes
        self.sent: set[Object] = set()
        self.acknowledged: set[Object] = set()
        self._luck = random.Random(f"{seed} {name}")
        self._waiting: list[tuple[str, bytes]] = []
        self._number = 0

    def next_object(self) -> tuple[str, bytes]:
        """A new object; what was not acknowledged comes first, as a scanner's queue has it."""
        if self._waiting:
            return self._waiting.pop(0)
        self._number += 1
        uid = f"2.25.{self._luck.getrandbits(100)}.{self._number}"
        size = self._luck.randint(*self.sizes) // 2 * 2
        noise = self._luck.randbytes(min(size, 1 << 20))
        pixels = (noise * (size // len(noise) + 1))[:size]
        return uid, wire.data_set(uid, wire.explicit(0x7FE00010, "OW", pixels))

    def prepare(self) -> None:
        """Make the next object now: a large one, made on an association, keeps that idle."""
        self._waiting.insert(0, self.next_object())

    def send(self, port: int, count: int, timeout_s: float = 10.0) -> int:
        """Send so many on one association; return how many were acknowledged. A dead gateway is no error."""
        told = 0
        try:
            with wire.Wire(port, "127.0.0.1") as line:
                line.associate(calling=self.name)
                for number in range(1, count + 1):
                    told += self._send_one(line, number, timeout_s)
                line.release()
        except (OSError, AssertionError):
            pass  # cut, killed or refused: what was not acknowledged is kept here, and sent again
        return told

    def _send_one(self, line: wire.Wire, number: int, timeout_s: float) -> bool:
        uid, body = self.next_object()
        one = (uid, hashlib.sha256(body).hexdigest())
        self.sent.add(one)
        kept = False
        try:
            line.send(*wire.store(uid, body, 1, number))
            status = line.status(timeout_s)
            kept = status == 0 or status >> 12 == 0xB
        finally:
            if kept:
                self.acknowledged.add(one)
            else:
                self._waiting.append((uid, body))
        return kept


class Fleet:
    """Scanners that send at the same time until they are told to stop."""

    def __init__(self, seed: int, count: int, port: int, batch: int = 6, pause_s: float = 0.0) -> None:
        self.scanners = [Scanner(seed, f"CT{number}") for number in range(count)]
        self._pause_s = pause_s
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(one, port, batch)) for one in self.scanners]

    def _run(self, scanner: Scanner, port: int, batch: int) -> None:
        while not self._over.is_set():
            told = scanner.send(port, batch)
            time.sleep(self._pause_s if told else 0.05)

    def __enter__(self) -> Fleet:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    @property
    def acknowledged(self) -> int:
        return sum(len(one.acknowledged) for one in self.scanners)


def held_objects(data_dir: Path) -> set[Object]:
    """What is on the shelves, read by the tests' own reader; files that go meanwhile are not held."""
    found = set()
    for path in (data_dir / "objects").rglob("*.dcm"):
        try:
            one = wire.read_custody(path)
        except FileNotFoundError:
            continue
        except (ValueError, AssertionError):  # the oracle says that nobody sent it
            found.add((f"unreadable {path.name}", ""))
            continue
        found.add((one.label.get("sop_instance_uid", ""), hashlib.sha256(one.body).hexdigest()))
    return found


def evidence(
    box: Box,
    scanners: list[Scanner],
    archives: Mapping[str, Server],
    *,
    quiet: bool = False,
    rot: set[Object] = frozenset(),
) -> Evidence:
    """Look at everything from outside."""
    return Evidence(
        set().union(*(one.sent for one in scanners)),
        set().union(*(one.acknowledged for one in scanners)),
        held_objects(box.folder / "data"),
        {name: set(archive.received) for name, archive in archives.items()},
        box.ask("status"),
        quiet,
        rot,
    )


def prove(box: Box, scanners: list[Scanner], archives: Mapping[str, Server], *, quiet: bool = True) -> None:
    """Fail with every broken promise."""
    faults = violations(evidence(box, scanners, archives, quiet=quiet))
    assert not faults, "; ".join(faults)


@contextmanager
def kept_on_failure(folder: Path, row: str, seed: int) -> Iterator[None]:
    """A failure keeps the folder, names it, and says how the run is repeated."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, pytest.skip.Exception):
            raise
        name = f"campaign-{row}-{seed}-{os.getpid()}-{time.time_ns() % 10**9}"
        target = Path(os.environ.get("CAMPAIGN_KEEP", tempfile.gettempdir())) / name
        shutil.copytree(folder, target, ignore=lambda _, names: [n for n in names if n.endswith(".sock")])
        error.add_note(f"spool and logs are kept in {target}; repeat with CAMPAIGN_SEED={seed}")
        raise


def git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True).stdout.strip()


def program() -> str:
    """Version and commit of what is tested; a plus sign when it was changed since."""
    changed = "+" if git("status", "--porcelain", "gateway") else ""
    return f"{__version__} {git('rev-parse', '--short', 'HEAD')}{changed}".strip()


def done_already(row: str) -> bool:
    """True when this program has passed this row: `make test-long` goes on where it was interrupted."""
    lines = REPORT.read_text().splitlines() if REPORT.exists() else []
    return not program().endswith("+") and any(f"| {program()} | {row} |" in line for line in lines)


def report(row: str, **counts: int | float | str) -> None:
    """Append one line; only a run that passed comes here."""
    told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in counts.items())
    with open(REPORT, "a") as file:
        file.write(f"| {date.today()} | {program()} | {row} | {told} | lost = 0 |\n")
