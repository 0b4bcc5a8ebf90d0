"""What a start does before anything is received: make ledger and files agree again (contract D2). Idempotent."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gateway.model.errors import CustodyRot, SpoolError
from gateway.model.instance import SOPInstance
from gateway.model.lifecycle import Custody
from gateway.model.way import Way
from gateway.spool.files import fsync_directory
from gateway.spool.ledger import Ledger
from gateway.spool.ledger_reader import LedgerReader
from gateway.spool.rows import Held
from gateway.spool.store import Store

log = logging.getLogger("gateway.spool")

Router = Callable[[SOPInstance, Callable[[], bytes]], Mapping[str, Way]]
"""Names the destinations of an instance, and the way to each. May ask for the first bytes of its data set."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What recovery found."""

    held: int = 0
    adopted: int = 0
    """Whole objects without a row: their bytes were durable, the ledger was not."""
    parts_removed: int = 0
    restarted: int = 0
    """Deliveries that were being sent."""
    set_aside: int = 0
    lost: int = 0
    """Rows without an object. Must be unreachable; raises the alarm CUSTODY_LOSS."""


def _files(store: Store) -> dict[str, tuple[str, int]]:
    """Return object id -> (shelf, file size) of everything on the shelves."""
    found = {}
    with os.scandir(store.objects) as shelves:
        for shelf in shelves:
            with os.scandir(shelf.path) as entries:
                for entry in entries:
                    if entry.name.endswith(".dcm"):
                        found[entry.name[:-4]] = (shelf.name, entry.stat(follow_symlinks=False).st_size)
    return found


def settle_parts(store: Store, reader: LedgerReader) -> int:
    """Finish the renames that a power cut forgot, and remove what was never whole; return how many were removed."""
    removed = 0
    shelf_of: dict[str, str] | None = None
    touched = set()
    for part in [*store.parts.iterdir(), *store.renditions.iterdir()]:
        if part.parent == store.parts and part.stat().st_size:
            if shelf_of is None:
                shelf_of = {object_id: shelf for object_id, shelf, *_ in reader.places()}
            shelf = shelf_of.get(part.stem) or (store.current_shelf().name if _is_whole(store, part) else None)
            if shelf is not None:
                os.rename(part, store.path_of(shelf, part.stem))
                touched.add(store.objects / shelf)
                continue
        part.unlink()
        removed += 1
    for folder in touched:
        fsync_directory(folder)
    return removed


def _is_whole(store: Store, part: Path) -> bool:
    try:
        return store.verify(part).object_id == part.stem
    except CustodyRot:
        return False


def adopt_orphans(store: Store, ledger: Ledger, reader: LedgerReader, router: Router) -> tuple[int, int]:
    """Enter every whole object that has no row; set aside what cannot prove itself. Return (adopted, set aside)."""
    known = {object_id for object_id, *_ in reader.places()}
    adopted = set_aside = 0
    for object_id, (shelf, _size) in _files(store).items():
        if object_id in known:
            continue
        path = store.path_of(shelf, object_id)
        try:
            instance = store.verify(path)
            if instance.object_id != object_id:
                raise CustodyRot("the object's label names another object")
        except CustodyRot as error:
            log.error("set_aside object=%s reason=%s", object_id, error.detail)
            store.set_aside(path)
            set_aside += 1
            continue
        with ledger.transaction():
            elders = ledger.find(instance.sop_instance_uid)
            same = next((held for held in elders if held.instance.sha256 == instance.sha256), None)
            if same is None:
                ways = router(instance, partial(store.beginning, path))
                ledger.accept(instance, shelf, ways, conflict=bool(elders), adopted=True)
        if same is None:
            adopted += 1
            log.warning("adopted object=%s", object_id)
        else:  # its sender was not told 0x0000, sent it again, and that copy is the one in the ledger
            path.unlink()
    return adopted, set_aside


def _missing(store: Store, reader: LedgerReader) -> list[Held]:
    files = _files(store)
    missing = []
    for object_id, shelf, _seq, length, state in reader.places():
        if state in (Custody.RETIRED, Custody.QUARANTINED):
            continue
        place = files.get(object_id)
        if place is None or place[0] != shelf or place[1] < length:
            missing += reader.get(object_id)
    return missing


def recover(store: Store, ledger: Ledger, reader: LedgerReader, router: Router) -> Recovered:
    """Bring files and ledger into agreement; raises SpoolError when the disk does not let us."""
    try:
        parts = settle_parts(store, reader)
        with ledger.transaction():
            restarted = ledger.restart_deliveries()
        finish_retiring(store, ledger, reader)
        lost = _missing(store, reader)
        for held in lost:
            log.error("custody_loss object=%s", held.instance.object_id)
            with ledger.transaction():
                ledger.quarantine(held, "CUSTODY_LOSS: the object's file is missing or short")
                ledger.count("custody_loss")
        adopted, set_aside = adopt_orphans(store, ledger, reader, router)
        for held in unrouted(ledger):
            path = store.path_of(held.shelf, held.instance.object_id)
            ways = router(held.instance, partial(store.beginning, path))
            with ledger.transaction():
                ledger.require(held.seq, held.state, ways)
    except OSError as error:
        raise SpoolError(f"recovery could not read the spool: {error}") from error
    count = reader.sums().custody.get(Custody.IN_CUSTODY, (0, 0))[0]
    found = Recovered(count, adopted, parts, restarted, set_aside, len(lost))
    log.info(
        "recovered held=%d adopted=%d parts_removed=%d restarted=%d set_aside=%d lost=%d",
        found.held,
        found.adopted,
        found.parts_removed,
        found.restarted,
        found.set_aside,
        found.lost,
    )
    return found


def unrouted(ledger: Ledger) -> list[Held]:
    """Return instances that had no destination when they came; a new configuration may have one."""
    with ledger.transaction():
        return ledger.unrouted()


def remove_files(store: Store, places: Iterable[tuple[str, str]]) -> None:
    """Remove the files of (shelf, object id) for good; raises OSError. Fine if they are gone."""
    shelves = set()
    for shelf, object_id in places:
        store.path_of(shelf, object_id).unlink(missing_ok=True)
        shelves.add(shelf)
    for shelf in shelves:
        fsync_directory(store.objects / shelf)


def finish_retiring(store: Store, ledger: Ledger, reader: LedgerReader) -> None:
    """Remove the files, then the rows, of instances that were marked as retired when the process ended."""
    retired = [(seq, shelf, oid) for oid, shelf, seq, _, state in reader.places() if state is Custody.RETIRED]
    remove_files(store, ((shelf, object_id) for _, shelf, object_id in retired))
    if retired:
        with ledger.transaction():
            ledger.forget([seq for seq, _, _ in retired])
