"""Bits flip in held objects and in the ledger: rot is never sent, neighbours go on, and no file is ever thrown away.

CAMPAIGN_FLIPS says how many ledgers the long form damages.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from gateway.model.errors import CustodyRot, SpoolError
from gateway.model.instance import Priority
from gateway.model.lifecycle import Custody
from gateway.model.verdict import Verdict
from gateway.spool.audit import faults
from gateway.spool.spool import Spool
from tests import wire
from tests.crash import life
from tests.crash.archive import DimseArchive
from tests.crash.campaign import (
    Scanner,
    count_of,
    done_already,
    evidence,
    held_objects,
    kept_on_failure,
    report,
    seed_of,
)  # fmt: skip
from tests.crash.oracle import violations
from tests.crash.test_kill_on_the_line import destination, not_yet


def flip(path: Path, luck: random.Random, first: int = 0) -> None:
    """Turn one bit over, at or behind a place."""
    with open(path, "r+b") as file:
        at = luck.randrange(first, path.stat().st_size)
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes((byte ^ 1 << luck.randrange(8),)))


@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "while it is off"])
def test_a_bit_flips_in_a_held_object(make_box, tmp_path, wait_until, running):
    archive, scanner, luck = DimseArchive(), Scanner(1, sizes=(50_000, 50_000)), random.Random(1)
    archive.behaviour = not_yet("associate")
    with kept_on_failure(tmp_path, "rot", 1):
        box = make_box(destination(archive)).start()
        assert scanner.send(box.port, 6) == 6
        if not running:
            box.kill()
        objects = sorted((box.folder / "data" / "objects").rglob("*.dcm"))
        rotten = [wire.read_custody(path).label["sop_instance_uid"] for path in objects[2:4]]
        for path in objects[2:4]:
            flip(path, luck, path.stat().st_size - 50_000)
        if not running:
            box.start()
        archive.behaviour = lambda line, here: None
        assert wait_until(lambda: len(archive.received) == 4), box.log()
        assert wait_until(lambda: "quarantined" in box.ask("status")["alarms"]), box.ask("status")
        seen = evidence(box, [scanner], {"pacs": archive}, quiet=True)
        rot = {one for one in seen.acknowledged | seen.held if one[0] in rotten}
        seen = evidence(box, [scanner], {"pacs": archive}, quiet=True, rot=frozenset(rot))
        lost = {one for one in seen.acknowledged if one[0] in rotten}
        assert not lost & archive.received
        unharmed = [fault for fault in violations(seen) if not fault.startswith("lost")]
        assert not unharmed, unharmed
        assert {uid for uid, _ in seen.held} >= set(rotten), "what rots is kept for a person"
        box.kill()
    archive.close()


def lived(folder: Path) -> list[str]:
    """A spool with objects in all states: `killed` with all of its ledger in the journal, `closed` with none of it."""
    spool = Spool(folder / "closed", 0, 100, life.router)
    for number in range(8):
        life.accept(spool, number, [].append)
    life.deliver(spool, [].append)
    for number in range(8, 12):
        life.accept(spool, number, [].append)
    shutil.copytree(folder / "closed", folder / "killed")
    spool.close()
    return [f"acknowledged {life.body_of(n)[0]} {hashlib.sha256(life.body_of(n)[1]).hexdigest()}" for n in range(12)]


def delivered_from(spool: Spool) -> set[tuple[str, str]]:
    """Deliver what the ledger still knows of, as a lane would."""
    found = set()
    for name in (life.DESTINATION, "never"):
        for claim in spool.claim(name, Priority.NORMAL, 100, 1.0):
            try:
                content = b"".join(spool.body(claim.held))
            except CustodyRot as rot:
                spool.quarantine(claim.held, rot.detail)
                continue
            found.add((wire_uid(content), hashlib.sha256(content).hexdigest()))
            spool.record(claim, Verdict.accepted(0), 0.0, suffices=False).outcome()
    return found


def wire_uid(content: bytes) -> str:
    at = content.index(b"\x08\x00\x18\x00UI") + 8
    return content[at : at + content[at - 2]].decode().strip("\0")


def content(data: Path) -> dict[str, list[tuple]] | None:
    """Every row of a ledger, looked at in a copy; None when it cannot be read."""
    copy = data.with_name("copy")
    copy.mkdir()
    for path in data.glob("ledger.db*"):
        shutil.copyfile(path, copy / path.name)
    db = sqlite3.connect(copy / "ledger.db")
    db.text_factory = bytes
    try:
        tables = [name.decode() for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: sorted(db.execute(f"SELECT * FROM {name}"), key=repr) for name in tables}
    except (sqlite3.Error, UnicodeDecodeError):
        return None
    finally:
        db.close()
        shutil.rmtree(copy)


def noticed(spool: Spool) -> str:
    """What the next look at ledger and objects says: sending, the sums of each minute, the scrub."""
    for held in spool.reader.get(""):
        if held.state in (Custody.IN_CUSTODY, Custody.RELEASED):
            try:
                list(spool.body(held))
            except CustodyRot as rot:
                spool.quarantine(held, rot.detail)
    if faults(spool.reader.sums(counted=True)):
        return "noticed by the sums"
    if spool.ledger_rot(lambda: True):
        return "noticed when the ledger was read"
    if spool.reader.sums().custody.get(Custody.QUARANTINED):
        return "noticed by an object's label"
    return ""


def damaged_ledger(template: Path, data: Path, luck: random.Random, promised: set[tuple[str, str]]) -> str:
    """Flip bits in ledger or journal, start, deliver; return what became of it. Fails when anything is gone."""
    shutil.copytree(template, data)
    name = "ledger.db" if template.name == "closed" else "ledger.db-wal"
    for _ in range(luck.choice([1, 1, 8])):
        flip(data / name, luck)
    same = content(data) == content(template)
    try:
        spool = Spool(data, 0, 100, life.router)
        try:
            delivered, outcome = delivered_from(spool), noticed(spool)
        finally:
            spool.close()
        assert delivered <= promised, "something was sent that nobody gave"
        if not outcome:
            cut = "the journal was cut short" if template.name == "killed" else "unnoticed"
            outcome = "changed nothing" if same else cut
    except SpoolError:
        outcome = "refused by the ledger"
    except (LookupError, ValueError, TypeError, AttributeError):  # what no program wrote: the room breaks, loudly
        outcome = "broke a room"
    there = held_objects(data) | {
        (one.label["sop_instance_uid"], hashlib.sha256(one.body).hexdigest())
        for one in map(wire.read_custody, (data / "quarantine").rglob("*.dcm"))
    }
    assert promised <= there, f"{len(promised - there)} objects are gone after a flip in {name}"
    if outcome in ("refused by the ledger", "broke a room") or outcome.startswith("noticed"):
        # what the hint says: move the ledger away, and every object is adopted
        for path in data.glob("ledger.db*"):
            path.unlink()
        spool = Spool(data, 0, 100, life.router)
        adopted = spool.recovered.adopted
        spool.close()
        assert adopted == len(promised)
    shutil.rmtree(data)
    return outcome


def damage_ledgers(folder: Path, seed: int, count: int) -> dict[str, int]:
    lines = lived(folder)
    promised = {tuple(line.split()[1:]) for line in lines}
    luck, outcomes = random.Random(seed), {}
    for number in range(count):
        outcome = damaged_ledger(folder / luck.choice(["killed", "closed"]), folder / f"flip{number}", luck, promised)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes


def test_bits_flip_in_the_ledger(tmp_path):
    seed = seed_of("ledger")
    with kept_on_failure(tmp_path, "ledger", seed):
        outcomes = damage_ledgers(tmp_path, seed, count_of("FLIPS", 60))
    assert sum(outcomes.values()) == count_of("FLIPS", 60)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_bits_flip_in_many_ledgers(tmp_path):
    row = "bit flips in the ledger"
    if done_already(row):
        pytest.skip("this program has passed it already")
    with kept_on_failure(tmp_path, "ledger-long", seed_of(row)):
        outcomes = damage_ledgers(tmp_path, seed_of(row), count_of("FLIPS", 2000))
    report(row, **{name.replace(" ", "_"): count for name, count in outcomes.items()})
