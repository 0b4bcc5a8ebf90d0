"""Studies as they were announced, received and delivered. Only looks: what it reads is written by `Ledger`.

A study is short while something of it is missing that a scanner said it sent, or is here and not confirmed by every
destination. Its UID is for the box's own command line, never for a log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.model.lifecycle import Custody, Delivery
from gateway.spool.ledger_reader import LedgerReader

_REPLACED = (
    "(instance.state = :quarantined AND (EXISTS (SELECT 1 FROM instance AS other "
    "WHERE other.sop_instance_uid = instance.sop_instance_uid AND other.sha256 = instance.sha256 "
    "AND other.state != :quarantined) "
    "OR EXISTS (SELECT 1 FROM retired WHERE retired.sop_instance_uid = instance.sop_instance_uid)))"
)
"""Rotten, and the scanner sent the same again: the new one counts."""
_MISSING = (
    "(NOT EXISTS (SELECT 1 FROM instance WHERE instance.sop_instance_uid = study_claim.sop_instance_uid) "
    "AND NOT EXISTS (SELECT 1 FROM retired WHERE retired.sop_instance_uid = study_claim.sop_instance_uid))"
)
_STATES = {"quarantined": Custody.QUARANTINED, "in_custody": Custody.IN_CUSTODY, "confirmed": Delivery.CONFIRMED}


@dataclass(slots=True)
class Tally:
    """One study at one destination, in instances."""

    required: int = 0
    delivered: int = 0
    """The destination said success."""
    confirmed: int = 0
    """There is the evidence that the destination's policy asks for."""


@dataclass(slots=True)
class Study:
    """One study in this box, in instances; what was retired is counted as long as it is remembered."""

    study_uid: str
    last_at: float
    """When something of it last came or was announced, by the box's clock."""
    received: int = 0
    quarantined: int = 0
    """Of those received; without those that were sent again."""
    retired: int = 0
    """Of those received; every destination had confirmed them."""
    expected: int | None = None
    """Those that a scanner said it sent; None: no scanner said anything."""
    missing: int = 0
    """Those of them that never came."""
    destinations: dict[str, Tally] = field(default_factory=dict)
    short_since: float | None = None
    """Since when something is missing or unconfirmed, by the box's clock; None: nothing is."""

    def _short_since(self, at: float | None) -> None:
        if at is not None:
            self.short_since = at if self.short_since is None else min(at, self.short_since)


def short(reader: LedgerReader, before: float) -> list[str]:
    """Return the UIDs of studies of which something is missing or unconfirmed since before that moment."""
    rows = reader.rows(
        f"SELECT study_uid FROM study_claim WHERE said_at < :before AND {_MISSING} "
        "UNION SELECT study_uid FROM instance WHERE state IN (:in_custody, :quarantined) AND received_at < :before "
        "AND EXISTS (SELECT 1 FROM delivery WHERE delivery.seq = instance.seq AND delivery.state != :confirmed) "
        f"AND NOT {_REPLACED}",
        before=before,
        **_STATES,
    )
    return [row["study_uid"] for row in rows]


def newest(reader: LedgerReader, limit: int, offset: int = 0) -> list[Study]:
    """Return a page of the studies, the one that something came of last coming first."""
    rows = reader.rows(
        "SELECT study_uid, max(last_at) AS last_at FROM ("
        "SELECT study_uid, max(received_at) AS last_at FROM instance GROUP BY study_uid "
        "UNION ALL SELECT study_uid, max(said_at) FROM study_claim GROUP BY study_uid "
        "UNION ALL SELECT study_uid, max(received_at) FROM retired GROUP BY study_uid"
        ") GROUP BY study_uid ORDER BY max(last_at) DESC, study_uid LIMIT :limit OFFSET :offset",
        limit=limit,
        offset=offset,
    )
    return named(reader, [row["study_uid"] for row in rows])


def named(reader: LedgerReader, study_uids: Sequence[str]) -> list[Study]:
    """Return these studies, in this order, without those of which nothing is known."""
    found = {uid: Study(uid, 0.0) for uid in study_uids}
    marks = ", ".join(f":u{number}" for number in range(len(study_uids)))
    uids = {f"u{number}": uid for number, uid in enumerate(study_uids)}
    _read_received(reader, found, marks, uids)
    _read_retired(reader, found, marks, uids)
    _read_claims(reader, found, marks, uids)
    return [study for study in found.values() if study.last_at]


def _read_received(reader: LedgerReader, found: dict[str, Study], marks: str, uids: dict[str, str]) -> None:
    for row in reader.rows(
        "SELECT study_uid, count(*) AS n, sum(state = :quarantined) AS bad, max(received_at) AS last_at "
        f"FROM instance WHERE study_uid IN ({marks}) AND NOT {_REPLACED} GROUP BY study_uid",
        **uids,
        quarantined=Custody.QUARANTINED,
    ):
        study = found[row["study_uid"]]
        study.received, study.quarantined, study.last_at = row["n"], row["bad"], row["last_at"]
    for row in reader.rows(
        "SELECT study_uid, destination, count(*) AS required, sum(delivery.state IN (:sent, :confirmed)) AS delivered, "
        "sum(delivery.state = :confirmed) AS confirmed, "
        "min(CASE WHEN delivery.state != :confirmed THEN received_at END) AS since "
        f"FROM instance JOIN delivery USING (seq) WHERE study_uid IN ({marks}) AND NOT {_REPLACED} "
        "GROUP BY study_uid, destination",
        **uids,
        sent=Delivery.SENT,
        confirmed=Delivery.CONFIRMED,
        quarantined=Custody.QUARANTINED,
    ):
        study = found[row["study_uid"]]
        study.destinations[row["destination"]] = Tally(row["required"], row["delivered"], row["confirmed"])
        study._short_since(row["since"])


def _read_retired(reader: LedgerReader, found: dict[str, Study], marks: str, uids: dict[str, str]) -> None:
    for row in reader.rows(
        "SELECT study_uid, destinations, count(*) AS n, max(received_at) AS last_at FROM retired "
        f"WHERE study_uid IN ({marks}) GROUP BY study_uid, destinations",
        **uids,
    ):
        study, count = found[row["study_uid"]], row["n"]
        study.received += count
        study.retired += count
        study.last_at = max(study.last_at, row["last_at"])
        for name in row["destinations"].split():
            tally = study.destinations.setdefault(name, Tally())
            tally.required += count
            tally.delivered += count
            tally.confirmed += count


def _read_claims(reader: LedgerReader, found: dict[str, Study], marks: str, uids: dict[str, str]) -> None:
    expected: Counter[str] = Counter()
    for row in reader.rows(
        f"SELECT study_uid, min(said_at) AS first_at, max(said_at) AS last_at, {_MISSING} AS missing FROM study_claim "
        f"WHERE study_uid IN ({marks}) GROUP BY study_uid, sop_instance_uid",
        **uids,
    ):
        study = found[row["study_uid"]]
        expected[study.study_uid] += 1
        study.last_at = max(study.last_at, row["last_at"])
        if row["missing"]:
            study.missing += 1
            study._short_since(row["first_at"])
    for uid, count in expected.items():
        found[uid].expected = count
