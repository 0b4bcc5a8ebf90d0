"""A spool that has grown: 100,000 queued objects, a million rows. What a restart and a scanner wait for is reported.

Rows are made by SQL, files are links to one object per shelf: what recovery looks at (names, sizes, rows) is real. The
first ones are real altogether: they can be sent.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import statistics
import time
from pathlib import Path
from uuid import uuid4

import pytest

from gateway.model.instance import Door, Header, Origin
from gateway.spool.spool import Spool
from gateway.spool.store import SHELF_OBJECTS
from tests import wire
from tests.crash import life
from tests.crash.archive import DimseArchive, good
from tests.crash.campaign import Scanner, count_of, done_already, kept_on_failure, report
from tests.crash.test_kill_on_the_line import destination, not_yet

CHUNK = 10_000
REAL = 320


def fill(data: Path, count: int, *, released: bool) -> None:
    """Put so many objects into a new spool: queued for `pacs`, or released by it."""
    spool = Spool(data, 0, 100, lambda *_: {life.DESTINATION: life.Way()})
    for number in range(REAL):
        identity = (wire.CT, f"1.2.3.4.{number}", wire.EXPLICIT)
        part = spool.new_part(identity)
        part.write(wire.data_set(identity[1], wire.explicit(0x7FE00010, "OW", bytes(3000))))
        spool.take(part, Header(wire.CT, identity[1], "1.2.3", "1.2.4", "CT"), Origin(Door.IMPORT), identity)
    spool.close()
    first = next((data / "objects").rglob("*.dcm"))
    db = sqlite3.connect(data / "ledger.db")
    db.execute("PRAGMA synchronous=OFF")
    columns = [row[1] for row in db.execute("PRAGMA table_info(instance)")][1:]
    made = {"object_id": "?", "sop_instance_uid": "?", "shelf": "?"}
    values = ", ".join(made.get(column, column) for column in columns)
    insert = f"INSERT INTO instance ({', '.join(columns)}) SELECT {values} FROM instance WHERE seq = 1"
    for start in range(REAL, count, CHUNK):
        rows = []
        for number in range(start, min(start + CHUNK, count)):
            folder = data / "objects" / f"{number // SHELF_OBJECTS:06d}"
            rows.append((name := uuid4().hex, folder.name, f"1.2.3.4.{number}"))
            path = folder / f"{name}.dcm"
            if number % SHELF_OBJECTS == 0:
                folder.mkdir()
                first = shutil.copyfile(first, path)
            else:
                os.link(first, path)
        db.executemany(insert, rows)
        db.commit()
    fields = [row[1] for row in db.execute("PRAGMA table_info(delivery)")][1:]
    db.execute(
        f"INSERT INTO delivery (seq, {', '.join(fields)}) SELECT instance.seq, {', '.join('one.' + f for f in fields)} "
        "FROM instance, delivery AS one WHERE instance.seq > ? AND one.seq = 1",
        (REAL,),
    )
    db.execute(
        "INSERT INTO history (seq, destination, event, state, at) "
        "SELECT seq, NULL, 'committed', 'in_custody', 0 FROM instance WHERE seq > ?",
        (REAL,),
    )
    db.execute("UPDATE counter SET value = ? WHERE name IN ('accepted', 'required:pacs')", (count,))
    if released:
        db.execute("UPDATE delivery SET state = 'confirmed'")
        db.execute("UPDATE instance SET state = 'released', released_at = ?", (time.time(),))
    db.commit()
    db.close()


def restart_with(make_box, wait_until, count: int) -> float:
    """Start on so many queued objects, kill, start again, send and deliver some; return the seconds of the restart."""
    archive, scanner = DimseArchive(), Scanner(1)
    archive.behaviour = not_yet("associate")
    box = make_box(destination(archive))
    fill(box.folder / "data", count, released=False)
    box.start()
    assert scanner.send(box.port, 3) == 3
    box.kill()
    began = time.monotonic()
    box.start()
    took = time.monotonic() - began
    status = box.ask("status")
    assert (status["held"], status["sums_agree"], status["accepted"]) == (count + 3, True, count + 3), status
    assert "custody_loss" not in status["alarms"]
    archive.behaviour = good
    assert wait_until(lambda: len(archive.received) > 300, 60), box.log()
    box.kill()
    archive.close()
    return took


def test_a_restart_with_a_few_thousand_queued_objects(make_box, tmp_path, wait_until):
    with kept_on_failure(tmp_path, "scale", 0):
        restart_with(make_box, wait_until, 3_000)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_restart_with_a_hundred_thousand_queued_objects(make_box, tmp_path, wait_until):
    count = count_of("QUEUED", 100_000)
    row = f"{count} queued objects, restart"
    if done_already(row):
        pytest.skip("this program has passed it already")
    with kept_on_failure(tmp_path, "scale-long", 0):
        took = restart_with(make_box, wait_until, count)
    assert took < 10
    report(row, seconds_to_answer=round(took, 1), goal_s=10)


ROUNDS, OBJECTS = 7, 60


def rate(box, seed: int) -> float:
    """Objects per second on one association, of 60."""
    scanner = Scanner(seed, "RATE", sizes=(20_000, 20_000))
    began = time.monotonic()
    assert scanner.send(box.port, OBJECTS) == OBJECTS
    return OBJECTS / (time.monotonic() - began)


@pytest.mark.long
@pytest.mark.timeout(2 * 3600)
def test_a_million_rows(make_box, tmp_path, wait_until):
    """Recovery, and the rate of reception beside a gateway with an empty ledger, measured in turns."""
    count = count_of("ROWS", 1_000_000)
    row = f"{count} ledger rows"
    if done_already(row):
        pytest.skip("this program has passed it already")
    archive = DimseArchive()
    archive.behaviour = not_yet("associate")
    try:
        empty, full = (make_box(destination(archive), name=name) for name in ("empty", "full"))
        fill(full.folder / "data", count, released=True)
        empty.start()
        began = time.monotonic()
        full.start(patience_s=300)
        took = time.monotonic() - began
        rates = [(rate(empty, number), rate(full, number)) for number in range(ROUNDS)]
        status = full.ask("status")
        assert (status["released"], status["sums_agree"]) == (count, True), status
        archive.behaviour = good
        assert wait_until(full.delivered_all, 60), full.ask("status")
        share = statistics.median(of_full / of_empty for of_empty, of_full in rates)
        for box in (empty, full):
            box.kill()
    finally:
        archive.close()
        shutil.rmtree(tmp_path / "full", ignore_errors=True)
    assert took < 60
    assert share >= 0.9
    report(row, seconds_to_answer=round(took, 1), goal_s=60, receive_rate=f"{share:.2f} of an empty ledger's")
