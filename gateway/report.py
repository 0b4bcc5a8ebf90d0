"""What the spool holds, as plain values for a person or a program; reads only, works with or without the service."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from gateway.model.lifecycle import Custody, Delivery
from gateway.spool import studies
from gateway.spool.audit import destination_agrees, destinations_of, faults, required_of
from gateway.spool.capacity import Capacity
from gateway.spool.ledger_reader import LedgerReader

MAX_ROWS = 100_000
MAX_STUDIES = 1000
ALARMS = ("uid_conflict", "custody_loss", "custody_rot", "ledger_rot", "quarantined")
"""Counters that are nothing to be proud of."""


def _backlog(reader: LedgerReader, destination: str) -> dict[str, Any]:
    backlog = reader.backlog(destination)
    since = backlog.oldest_received_at
    return {
        "backlog_objects": backlog.objects,
        "backlog_bytes": backlog.bytes,
        "oldest_waiting_since": since,
        "oldest_age_s": None if since is None else round(max(0.0, time.time() - since), 1),
    }


def report(reader: LedgerReader, capacity: Capacity, study_short_alarm_s: float) -> dict[str, Any]:
    """Return counts per state and destination, room on the disk, alarms, and whether the sums agree."""
    sums = reader.sums()
    counters, custody, empty = sums.counters, sums.custody, (0, 0)
    disagreeing = faults(sums)
    short = studies.short(reader, time.time() - study_short_alarm_s)
    destinations: dict[str, dict[str, Any]] = {
        name: {
            "accepted": required_of(sums, name),
            **{state.value: sums.deliveries.get(name, {}).get(state, 0) for state in Delivery},
            "retired": counters.get(f"retired:{name}", 0),
            "sums_agree": destination_agrees(sums, name),
            **_backlog(reader, name),
            "oldest_unconfirmed_since": reader.oldest_unconfirmed(name),
        }
        for name in destinations_of(sums)
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
            **{name: counters[name] for name in ALARMS if counters.get(name)},
            **({"sums_disagree": len(disagreeing)} if disagreeing else {}),
            **({"study_short": len(short)} if short else {}),
        },
        "sums_agree": not disagreeing,
        "commitment": reader.promises.summary(),
        "destinations": destinations,
        "scrub": scrub_page(reader),
        "disk": {
            "room": capacity.room.value,
            "free_bytes": capacity.free_bytes,
            "used_percent": round(capacity.used_percent, 1),
            "reason": capacity.reason,
            "read_only": capacity.read_only,
        },
    }


def scrub_page(reader: LedgerReader) -> dict[str, Any]:
    """Return when everything was last read again, and how far the present pass is, as of the last half minute."""
    state, last = reader.scrub_state(), reader.last_seq()
    if state is None:
        return {"last_full_pass_at": None, "running": False, "percent": 0.0}
    percent = 100.0 * (state.position or 0) / last if last else 0.0
    return {"last_full_pass_at": state.finished_at, "running": state.running, "percent": round(percent, 1)}


def delivery_rows(reader: LedgerReader, request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return deliveries, oldest first: `states`, `destination`, `limit`, `quarantined` narrow them."""
    return reader.listing(
        list(request.get("states") or []),
        request.get("destination"),
        min(int(request.get("limit") or 100), MAX_ROWS),
        quarantined=bool(request.get("quarantined")),
    )


def study_rows(reader: LedgerReader, request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return studies, newest first: `limit` of them from `offset` on, one `study`, or those `short_for_s` so long."""
    limit, offset = min(int(request.get("limit") or 20), MAX_STUDIES), int(request.get("offset") or 0)
    if request.get("study"):
        found = studies.named(reader, [str(request["study"])])
    elif request.get("short_for_s") is not None:
        uids = studies.short(reader, time.time() - float(request["short_for_s"]))
        found = studies.named(reader, uids[offset : offset + limit])
    else:
        found = studies.newest(reader, limit, offset)
    return [{**asdict(study), "complete": study.short_since is None} for study in found]


def instance_page(reader: LedgerReader, prefix: str) -> dict[str, Any]:
    """Return all that is known of one instance; raises GatewayError unless exactly one id begins so."""
    held = reader.one(prefix)
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
