"""What this box can state about one study: what it received, and who confirmed what, when and on what evidence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from gateway.model.errors import GatewayError
from gateway.model.lifecycle import DeliveryEvent
from gateway.spool import studies
from gateway.spool.ledger_reader import LedgerReader
from gateway.spool.rows import Held

PAGE = 500


def canonical(statement: dict[str, Any]) -> bytes:
    """Return the one form of a statement that is signed: RFC 8785, of which text, whole numbers and truth are used."""
    return json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def statement(reader: LedgerReader, study_uid: str, gateway_id: str, signed_by: str, now: float) -> dict[str, Any]:
    """Return the receipt of a study, without patient data; raises GatewayError when nothing of it is known.

    Instances are listed while they are here; once retired they are only counted.
    """
    found = studies.named(reader, [study_uid])
    if not found:
        raise GatewayError(f"nothing is known of study '{study_uid}'", hint="see `dicom-gateway status studies`")
    study = found[0]
    return {
        "kind": "delivery receipt",
        "version": 1,
        "gateway": gateway_id,
        "signed_by": signed_by,
        "issued_at": _moment(now),
        "study_instance_uid": study_uid,
        "complete": study.short_since is None,
        "announced": study.expected,
        "missing": study.missing,
        "received": study.received,
        "quarantined": study.quarantined,
        "retired": study.retired,
        "destinations": {name: asdict(tally) for name, tally in study.destinations.items()},
        "instances": [_instance(reader, held) for held in _instances(reader, study_uid)],
    }


def _instances(reader: LedgerReader, study_uid: str) -> Iterator[Held]:
    after = 0
    while page := reader.page(after, PAGE, None, study_uid, quarantined=False):
        yield from page
        after = page[-1].seq


def _instance(reader: LedgerReader, held: Held) -> dict[str, Any]:
    evidence = {
        row["destination"]: (row["detail"], row["at"])
        for row in reader.history(held.seq)
        if row["event"] == DeliveryEvent.EVIDENCED
    }
    deliveries = []
    for row in reader.deliveries(held.seq):
        detail, at = evidence.get(row["destination"], (None, None))
        deliveries.append(
            {
                "destination": row["destination"],
                "state": row["state"],
                "evidence": detail,
                "confirmed_at": None if at is None else _moment(at),
            }
        )
    instance = held.instance
    return {
        "sop_class_uid": instance.sop_class_uid,
        "sop_instance_uid": instance.sop_instance_uid,
        "sha256_as_received": instance.sha256,
        "bytes": instance.length,
        "received_at": _moment(instance.received_at),
        "custody": held.state.value,
        "deliveries": deliveries,
    }


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
