"""A clock without a battery says 1970, a wrong one 2046, a bad one goes back an hour each minute (contract D10).

Needs libfaketime. Only the wall clock is wrong: CLOCK_MONOTONIC goes on, as it does on a real box.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.crash.archive import DimseArchive
from tests.crash.campaign import Scanner, count_of, done_already, kept_on_failure, prove, report, seed_of
from tests.crash.test_kill_on_the_line import destination, not_yet

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed: apt-get install faketime")
HOUR_S = 3600


class Clock:
    """The wall clock of a process, moved from outside."""

    def __init__(self, folder: Path, told: str) -> None:
        self._file = folder / "clock"
        self.set(told)
        self.env = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "TZ": "UTC",
        }

    def set(self, told: str) -> None:
        """An offset in seconds with its sign, or `@` and a date."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(told + "\n")
        fresh.rename(self._file)


@pytest.mark.parametrize(
    ("first", "then"),
    [("@1970-01-01 00:00:30", "+0"), ("+630720000", "+0"), ("+0", "@1970-01-01 00:00:30"), ("+0", "+630720000")],
    ids=["1970, then right", "+20 years, then right", "right, then 1970", "right, then +20 years"],
)
def test_a_wrong_clock_costs_nothing(make_box, tmp_path, wait_until, first, then):
    """Sent and deferred by one clock; killed; started, sent and delivered by another."""
    archive, scanner, clock = DimseArchive(), Scanner(1), Clock(tmp_path, first)
    archive.behaviour = not_yet("whole")
    with kept_on_failure(tmp_path, "clock", 1):
        box = make_box(destination(archive)).start(env=clock.env)
        assert scanner.send(box.port, 3) == 3
        assert wait_until(lambda: archive.met >= 2), box.log()
        box.kill()
        clock.set(then)
        box.start(env=clock.env)
        assert scanner.send(box.port, 3) == 3
        assert wait_until(lambda: archive.met >= 4), box.log()
        archive.behaviour = lambda line, here: None
        assert wait_until(box.delivered_all), box.ask("status")
        prove(box, [scanner], {"pacs": archive})
        box.kill()
    archive.close()


def goes_back(make_box, wait_until, folder: Path, seed: int, jumps: int, every_s: float) -> int:
    archive, scanner, clock = DimseArchive(), Scanner(seed), Clock(folder, "+0")
    box = make_box(destination(archive)).start(env=clock.env)
    for jump in range(jumps):
        archive.behaviour = not_yet(("whole", "action", "associate", "nowhere")[jump % 4])
        assert scanner.send(box.port, 3) == 3
        clock.set(f"-{(jump + 1) * HOUR_S}")
        time.sleep(every_s)
    archive.behaviour = lambda line, here: None
    assert wait_until(box.delivered_all, 30), box.ask("status")
    prove(box, [scanner], {"pacs": archive})
    box.kill()
    archive.close()
    return len(scanner.acknowledged)


def test_a_clock_that_goes_back_an_hour_again_and_again(make_box, tmp_path, wait_until):
    with kept_on_failure(tmp_path, "clock-back", 1):
        goes_back(make_box, wait_until, tmp_path, 1, 6, 1.0)


@pytest.mark.long
@pytest.mark.timeout(2 * 3600)
def test_a_clock_that_goes_back_an_hour_each_minute(make_box, tmp_path, wait_until):
    row = "clock: an hour back each minute"
    if done_already(row):
        pytest.skip("this program has passed it already")
    jumps = count_of("JUMPS", 20)
    with kept_on_failure(tmp_path, "clock-long", seed_of(row)):
        acknowledged = goes_back(make_box, wait_until, tmp_path, seed_of(row), jumps, count_of("JUMP_SECONDS", 60))
    report(row, jumps=jumps, acknowledged=acknowledged)
