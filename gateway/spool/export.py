"""Copies of what we hold, for a person: Part 10 files in a new folder, and a manifest that says what each of them is.

What rots is exported as it is, and said to be so. Nothing is changed in the spool and nothing in the folder is ever
overwritten: it must be new or empty. The manifest gets its name last, so a folder with one is complete.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from gateway.model.errors import ExportError, GatewayError
from gateway.model.lifecycle import Custody, CustodyEvent, Delivery
from gateway.spool.files import fsync_directory
from gateway.spool.ledger_reader import LedgerReader
from gateway.spool.rows import Held
from gateway.spool.store import Store

MANIFEST = "manifest.jsonl"
PAGE = 500
SET_ASIDE = "set_aside"
"""Custody, in a manifest, of files without a row in the ledger."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which instances are meant; every condition that is given must hold."""

    objects: tuple[str, ...] = ()
    """Beginnings of object ids."""
    destination: str | None = None
    """What this destination has not confirmed yet."""
    study_uid: str | None = None
    quarantined: bool = False


def select(reader: LedgerReader, wanted: Selection) -> Iterator[Held]:
    """Yield the instances that are meant, oldest first; raises GatewayError where an id means none or several."""

    def page(after: int, limit: int) -> list[Held]:
        return reader.page(after, limit, wanted.destination, wanted.study_uid, quarantined=wanted.quarantined)

    if wanted.objects:
        for seq in sorted({reader.one(prefix).seq for prefix in wanted.objects}):
            yield from (held for held in page(seq - 1, 1) if held.seq == seq)
        return
    after = 0
    while found := page(after, PAGE):
        yield from found
        after = found[-1].seq


def reason(reader: LedgerReader, held: Held) -> str:
    """Say in words, without patient data, why an instance is where it is."""
    if held.state is Custody.QUARANTINED:
        found = [row["detail"] for row in reader.history(held.seq) if row["event"] == CustodyEvent.ROT_FOUND]
        return f"quarantined: {found[-1] if found else 'no reason is known'}"
    if held.state is Custody.RELEASED:
        return "released: every destination has confirmed it"
    rows = reader.deliveries(held.seq)
    words = [
        f"{row['destination']}: {row['state']}" + (f", {row['reason']}" if row["reason"] else "")
        for row in rows
        if row["state"] != Delivery.CONFIRMED
    ]
    return f"in custody: {'; '.join(words) or 'it has no destination'}"


def prepare_folder(folder: Path) -> None:
    """Make `folder`, or take an empty one; raises GatewayError when it is not, ExportError when it cannot be used."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise GatewayError(f"{folder} is not empty", hint="name a new folder: an export overwrites nothing")
    except OSError as error:
        raise ExportError(f"{folder} cannot be used: {error.strerror}") from error


def export(
    store: Store, reader: LedgerReader, helds: Iterable[Held], folder: Path, *, aside: bool = False
) -> Iterator[dict[str, Any]]:
    """Copy each instance to `folder`, yield its line of the manifest once it is durable; raises ExportError.

    `intact` says whether the bytes are those that were acknowledged; null: there is no file to copy. `aside`: also the
    files that a start found and that prove nothing, as they are; the ledger knows nothing of them.
    """
    part = folder / f"{MANIFEST}.part"
    try:
        with open(part, "x", encoding="utf-8") as manifest:
            lines = chain(
                (_copy(store, reader, held, folder) for held in helds),
                (_copy_aside(path, why, folder) for path, why in (store.aside() if aside else {}).items()),
            )
            for line in lines:
                manifest.write(json.dumps(line, ensure_ascii=False) + "\n")
                yield line
            manifest.flush()
            os.fsync(manifest.fileno())
        os.rename(part, folder / MANIFEST)
        fsync_directory(folder)
        fsync_directory(folder.parent)
    except OSError as error:
        raise ExportError(f"{folder} cannot be written: {error.strerror}") from error


def _copy(store: Store, reader: LedgerReader, held: Held, folder: Path) -> dict[str, Any]:
    instance = held.instance
    name = f"{instance.object_id}.dcm"
    found = store.export(held.shelf, instance, folder / name)
    return {
        "object_id": instance.object_id,
        "file": name if found else None,
        "sop_class_uid": instance.sop_class_uid,
        "sop_instance_uid": instance.sop_instance_uid,
        "study_instance_uid": instance.header.study_instance_uid,
        "series_instance_uid": instance.header.series_instance_uid,
        "transfer_syntax_uid": instance.transfer_syntax_uid,
        "bytes": instance.length,
        "sha256": instance.sha256,
        "sha256_found": found,
        "intact": found == instance.sha256 if found else None,
        "custody": held.state.value,
        "received_at": instance.received_at,
        "reason": reason(reader, held),
    }


def _copy_aside(path: Path, why: str, folder: Path) -> dict[str, Any]:
    with open(path, "rb") as source, open(folder / path.name, "xb") as copy:
        shutil.copyfileobj(source, copy)
        copy.flush()
        os.fsync(copy.fileno())
    return {
        "object_id": path.stem,
        "file": path.name,
        "intact": False,
        "custody": SET_ASIDE,
        "reason": f"set aside at a start: {why}",
    }
