"""Power is cut at every moment that matters, and what was not flushed is gone: what was promised is there.

One run is recorded, the disk is rebuilt as of each flush and promise (`replay.py`), and a gateway is started on it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from gateway.spool.audit import faults
from gateway.spool.spool import Spool
from tests.crash import life, replay
from tests.crash.campaign import count_of, done_already, held_objects, kept_on_failure, report, seed_of
from tests.crash.oracle import Evidence, violations

OBJECTS = 24
"""Enough for the journal to be folded into the ledger on the way (every 64 commits)."""


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> tuple[Path, list[replay.Call]]:
    return recorded(tmp_path_factory.mktemp("honest"), {})


def recorded(folder: Path, env: dict[str, str]) -> tuple[Path, list[replay.Call]]:
    data = folder / "data"
    replay.record(replay.life(data, OBJECTS), folder / "trace", env)
    return data, replay.read(folder / "trace")


def told(lines: list[str], what: str) -> set[tuple[str, str]]:
    return {tuple(line.split()[1:]) for line in lines if line.startswith(f"{what} ")}


def after_recovery(data: Path, lines: list[str]) -> list[str]:
    """Start on what the power cut left, and judge by what was said before it."""
    spool = Spool(data, 0, 100, life.router)
    try:
        sums = spool.reader.sums()
        alarms = [name for name in ("custody_loss", "quarantined", "uid_conflict") if sums.counters.get(name)]
        status = {"sums_agree": not faults(sums), "alarms": alarms, "accepted": sums.counters.get("accepted", 0)}
    finally:
        spool.close()
    sent, acknowledged, held = told(lines, "sent"), told(lines, "acknowledged"), held_objects(data)
    found = violations(Evidence(sent, acknowledged, held, {life.DESTINATION: told(lines, "delivered")}, status))
    owed = {one for one in acknowledged if int(one[0].rpartition(".")[2]) % 2}
    return found + violations(Evidence(sent, owed, held, {"never": set()}, status))


def moments(calls: list[replay.Call], root: Path) -> int:
    disk = replay.Disk(root)
    return sum(disk.follow(call) for call in calls)


def cuts(root: Path, calls: list[replay.Call], states: int, seed: int) -> Iterator[tuple[replay.Disk, Random | None]]:
    """So many power cuts, spread over all moments; each moment first without luck, then with."""
    count = moments(calls, root)
    chosen = [number * count // states if states < count else number % count for number in range(states)]
    disk, at = replay.Disk(root), 0
    for call in calls:
        if not disk.follow(call):
            continue
        for number, moment in enumerate(chosen):
            if moment == at:
                lucky = number % 2 if states < count else number >= count
                yield disk, Random(f"{seed} {number}") if lucky else None
        at += 1


def cut_power(root: Path, calls: list[replay.Call], states: int, seed: int, folder: Path) -> tuple[list[str], int]:
    """Return what was broken, and how many states were looked at."""
    broken, looked = [], 0
    for disk, luck in cuts(root, calls, states, seed):
        looked += 1
        data = folder / f"state{looked}"
        disk.after_power_cut(data, luck)
        lines = list(disk.said)
        found = after_recovery(data, lines)
        if not found:
            life.live(data, 4, [].append)  # and the service goes on
            shutil.rmtree(data)
        broken += [f"state {looked} after {len(lines)} lines: {fault}" for fault in found]
    return broken, looked


def test_twenty_power_cuts_lose_nothing_that_was_promised(honest, tmp_path):
    root, calls = honest
    seed = seed_of("power")
    with kept_on_failure(tmp_path, "power-cut", seed):
        broken, looked = cut_power(root, calls, count_of("CUTS", 20), seed, tmp_path)
        assert not broken, "\n".join(broken)
        assert looked == count_of("CUTS", 20)


@pytest.mark.parametrize("sabotage", ["no-flush", "no-names"])
def test_without_one_of_the_flushes_power_cuts_lose_what_was_promised(tmp_path, sabotage):
    """Negative control: the same disk, the same oracle, one kind of flush less."""
    root, calls = recorded(tmp_path, {"LIFE_SABOTAGE": sabotage})
    broken, _ = cut_power(root, calls, 10, 1, tmp_path)
    assert any("lost: acknowledged" in fault for fault in broken), broken


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_five_hundred_power_cuts_lose_nothing_that_was_promised(honest, tmp_path):
    row = "power cut, unflushed writes dropped"
    if done_already(row):
        pytest.skip("this program has passed it already")
    root, calls = honest
    seed, states = seed_of(row), count_of("CUTS", 500)
    with kept_on_failure(tmp_path, "power-cut-long", seed):
        broken, looked = cut_power(root, calls, states, seed, tmp_path)
        assert not broken, "\n".join(broken)
    report(row, states=looked, flushes_and_promises=moments(calls, root), calls=len(calls))
