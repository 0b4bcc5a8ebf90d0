"""Everything at once, at random, for as long as SOAK says (seconds): scanners send while archives, lines, disks and the
process itself fail. Memory, descriptors and threads stay flat.

Two minutes in `make test`, with pauses, so that what runs beside it has the processor (it takes a tenth of one); 600 s
without in `make test-long`, or SOAK=.
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass, field
from itertools import groupby

import pytest

from gateway.emulator.line import Line
from gateway.emulator.wan import Wan
from gateway.supervisor import HEAP_S
from tests import guard
from tests.crash.archive import DimseArchive, good
from tests.crash.campaign import Fleet, done_already, kept_on_failure, prove, report, seed_of
from tests.crash.test_destinations import DIMSE, WEB
from tests.crash.test_line import destination
from tests.crash.web_archive import WebArchive

LINES = [
    Line(),
    Line(rate_mbit_s=2),
    Line(round_trip_ms=300),
    Line(cut_every_s=1),
    Line(black_hole=True),
    Line(refuse=True),
    Line(freeze_after_bytes=50_000),
]
MAX_GROWTH_KB = 24 * 1024
MAX_SLOPE_KB_PER_H = 1024
FLOOR_S = 2 * HEAP_S
"""Twice the time after which the gateway gives freed memory back."""
LONG_ENOUGH_S = 3600
"""Below this a slope is noise: then only the growth counts."""


@dataclass
class Vitals:
    """What must stay flat, looked at while the process lives."""

    samples: list[tuple[float, int]] = field(default_factory=list)
    """(seconds, resident KB)."""
    files: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def look(self, pid: int) -> None:
        self.samples.append((time.monotonic(), guard.resident_kb(pid)))
        self.files.append(sum(guard.open_files(pid)))
        self.threads.append(guard.threads(pid))

    def floors(self) -> list[tuple[float, int]]:
        """The smallest sample of each two minutes: what is never given back lifts it, what only passes does not."""
        windows = groupby(self.samples, key=lambda sample: sample[0] // FLOOR_S)
        return [min(samples, key=lambda sample: sample[1]) for _, samples in windows]

    def slope_kb_per_h(self) -> float:
        """Of a straight line through the second half of the floors."""
        floors = self.floors()
        half = floors[len(floors) // 2 :]
        times, sizes = [at for at, _ in half], [float(size) for _, size in half]
        middle, mean = sum(times) / len(times), sum(sizes) / len(sizes)
        spread = sum((at - middle) ** 2 for at in times) or 1.0
        return 3600 * sum((at - middle) * (size - mean) for at, size in zip(times, sizes, strict=True)) / spread

    def judge(self, seconds: float) -> None:
        quarter = max(1, len(self.samples) // 4)
        before = max(size for _, size in self.samples[quarter : 2 * quarter])
        growth = max(size for _, size in self.samples[-quarter:]) - before
        assert growth < MAX_GROWTH_KB, f"memory grew by {growth} KB"
        if seconds >= LONG_ENOUGH_S:
            assert self.slope_kb_per_h() < MAX_SLOPE_KB_PER_H, f"{self.slope_kb_per_h():.0f} KB per hour"
        for name, counts in (("descriptors", self.files), ("threads", self.threads)):
            first, last = max(counts[quarter : 2 * quarter]), max(counts[-quarter:])
            assert last <= first + 8, f"{name}: {first} before, {last} in the end"


def an_hour(leak_kb_per_h: float) -> Vitals:
    """Samples of each second: 50 MB, what passes through, and what is never given back."""
    vitals, luck = Vitals(files=[20] * 3600, threads=[15] * 3600), random.Random(1)
    for second in range(3600):
        passing = luck.choice([0, 500, 4_000, 9_000])
        vitals.samples.append((float(second), round(50_000 + passing + leak_kb_per_h * second / 3600)))
    return vitals


def test_what_passes_through_is_no_leak_and_a_small_leak_is_one():
    an_hour(0).judge(LONG_ENOUGH_S)
    with pytest.raises(AssertionError, match="KB per hour"):
        an_hour(1_500).judge(LONG_ENOUGH_S)


def drain(box, wait_until) -> None:
    """Wait for as long as what waits gets less: a soak on a busy machine leaves thousands."""
    waiting = box.ask("status")["held"] + 1
    while not wait_until(box.delivered_all, 60):
        before, waiting = waiting, box.ask("status")["held"]
        assert waiting < before, f"nothing is released any more: {box.ask('status')}"


def soak(make_box, wait_until, seed: int, seconds: float, slower: float = 1.0) -> dict[str, int]:
    """The first quarter with kills, the rest in one life; return counts. `slower`: so much longer is each rest."""
    pacs, cloud, luck, vitals = DimseArchive(), WebArchive(), random.Random(seed), Vitals()
    with Wan(Line(), ("127.0.0.1", pacs.port)) as first, Wan(Line(), ("127.0.0.1", cloud.port)) as second:
        tables = destination(pacs, "127.0.0.1", first.port) + destination(cloud, "127.0.0.1", second.port)
        box = make_box(tables, "retention_days = 0").start()
        began, kills, faults = time.monotonic(), 0, 0
        with Fleet(seed, 2, box.port, batch=3, pause_s=0.2 * slower) as fleet:
            while (past := time.monotonic() - began) < seconds:
                pacs.behaviour = luck.choice([good, good, *DIMSE.values()])
                cloud.behaviour = luck.choice([good, good, *WEB.values()])
                for wan in (first, second):
                    wan.set_line(luck.choice([Line(), *LINES]))
                faults += 1
                time.sleep(luck.uniform(0.3, 1.5) * slower)
                if past < seconds / 4:
                    box.kill()
                    box.start()
                    kills += 1
                else:
                    vitals.look(box.process.pid)
        pacs.behaviour = cloud.behaviour = good
        for wan in (first, second):
            wan.set_line(Line())
        drain(box, wait_until)
        prove(box, fleet.scanners, {"pacs": pacs, "cloud": cloud})
        assert "room_failed" not in box.log()
        vitals.judge(seconds)
        box.kill()
    pacs.close()
    cloud.close()
    return {
        "acknowledged": fleet.acknowledged,
        "faults": faults,
        "kills": kills,
        "slope_KB_per_h": round(vitals.slope_kb_per_h()) if seconds >= LONG_ENOUGH_S else 0,
    }


@pytest.mark.timeout(420)
def test_a_soak_of_two_minutes(make_box, tmp_path, wait_until):
    with kept_on_failure(tmp_path, "soak", seed_of("soak")):
        soak(make_box, wait_until, seed_of("soak"), 120, slower=3.0)


@pytest.mark.long
@pytest.mark.timeout(0)
def test_a_soak_for_as_long_as_is_said(make_box, tmp_path, wait_until):
    seconds = int(os.environ.get("SOAK", "600"))
    row = f"soak {seconds} s"
    if done_already(row):
        pytest.skip("this program has passed it already")
    with kept_on_failure(tmp_path, "soak-long", seed_of(row)):
        counts = soak(make_box, wait_until, seed_of(row), seconds)
    report(row, **counts)
