"""What the spool holds, as plain values for a person or a program; reads only, works with or without the service."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from gateway.model.errors import GatewayError
from gateway.model.lifecycle import Custody, Delivery
from gateway.spool.capacity import Capacity
from gateway.spool.ledger_reader import LedgerReader

MAX_ROWS = 100_000


def sums_agree(counters: Mapping[str, int], custody: Mapping[Custody, tuple[int, int]]) -> bool:
    """True when accepted = held + released + quarantined + retired (contract D12): loss would be seen here."""
    present = sum(custody.get(state, (0, 0))[0] for state in Custody)
    return counters.get("accepted", 0) == present + counters.get("retired", 0)


def _backlog(reader: LedgerReader, destination: str) -> dict[str, Any]:
    backlog = reader.backlog(destination)
    since = backlog.oldest_received_at
    return {
        "backlog_objects": backlog.objects,
        "backlog_bytes": backlog.bytes,
        "oldest_waiting_since": since,
        "oldest_age_s": None if since is None else round(max(0.0, time.time() - since), 1),
    }


def report(reader: LedgerReader, capacity: Capacity) -> dict[str, Any]:
    """Return counts per state and destination, room on the disk, and whether the sums agree."""
    counters, custody = reader.counters(), reader.custody_counts()
    deliveries = reader.delivery_counts()
    empty = (0, 0)
    destinations: dict[str, dict[str, Any]] = {
        name: {**{state.value: counts.get(state, 0) for state in Delivery}, **_backlog(reader, name)}
        for name, counts in deliveries.items()
    }
    return {
        "running": False,
        "held": custody.get(Custody.IN_CUSTODY, empty)[0],
        "held_bytes": custody.get(Custody.IN_CUSTODY, empty)[1],
        "released": custody.get(Custody.RELEASED, empty)[0],
        "quarantined": custody.get(Custody.QUARANTINED, empty)[0],
        "accepted": counters.get("accepted", 0),
        "retired": counters.get("retired", 0),
        "duplicates": counters.get("duplicate", 0),
        "unrouted": reader.unrouted_count(),
        "alarms": {
            name: counters[name] for name in ("uid_conflict", "custody_loss", "quarantined") if counters.get(name)
        },
        "sums_agree": sums_agree(counters, custody),
        "destinations": destinations,
        "disk": {
            "room": capacity.room.value,
            "free_bytes": capacity.free_bytes,
            "used_percent": round(capacity.used_percent, 1),
        },
    }


def delivery_rows(reader: LedgerReader, request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return deliveries, oldest first: `states`, `destination`, `limit`, `quarantined` narrow them."""
    return reader.listing(
        list(request.get("states") or []),
        request.get("destination"),
        min(int(request.get("limit") or 100), MAX_ROWS),
        quarantined=bool(request.get("quarantined")),
    )


def instance_page(reader: LedgerReader, prefix: str) -> dict[str, Any]:
    """Return all that is known of one instance; raises GatewayError unless exactly one id begins so."""
    found = reader.get(prefix)
    if len(found) != 1:
        raise GatewayError(f"{len(found)} objects begin with '{prefix}'", hint="see `dicom-gateway queue list`")
    held = found[0]
    instance = held.instance
    return {
        "object_id": instance.object_id,
        "custody": held.state.value,
        "uid_conflict": held.conflict,
        "sop_class_uid": instance.sop_class_uid,
        "sop_instance_uid": instance.sop_instance_uid,
        "transfer_syntax_uid": instance.transfer_syntax_uid,
        "sha256": instance.sha256,
        "bytes": instance.length,
        "modality": instance.header.modality,
        "parsable": instance.header.parsable,
        "door": instance.origin.door.value,
        "from": instance.origin.address,
        "calling_ae_title": instance.origin.calling_ae_title,
        "dimse_priority": instance.origin.dimse_priority,
        "received_at": instance.received_at,
        "shelf": held.shelf,
        "deliveries": reader.deliveries(held.seq),
        "history": reader.history(held.seq),
    }
