"""What scanners say they sent, instance by instance: a study that stays short of it is an alarm (`studies.py`).

A part of the ledger: `Ledger.announced` writes inside its transactions.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence

from gateway.spool.rows import remember_latest


class Announced:
    """The writing side; every method is called inside a transaction of the ledger."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def expect(self, sop_instance_uids: Sequence[str], source: str, study_uid: str) -> None:
        """Write down that `source` said it sent these; what it says again keeps its first time.

        `study_uid` may be empty: a request for storage commitment names instances only (PS3.4 J.3.2). An instance that
        never came is taken to be of the study that the others of the list are of, when that is one.
        """
        studies = {} if study_uid else {uid: self._study_of(uid) for uid in sop_instance_uids}
        known = {study for study in studies.values() if study} | ({study_uid} if study_uid else set())
        of_the_rest = known.pop() if len(known) == 1 else ""
        self._db.executemany(
            "INSERT OR IGNORE INTO study_claim (study_uid, sop_instance_uid, source, said_at) VALUES (?, ?, ?, ?)",
            [(studies.get(uid) or of_the_rest, uid, source, time.time()) for uid in sop_instance_uids],
        )
        remember_latest(self._db, "study_claim")

    def _study_of(self, sop_instance_uid: str) -> str:
        row = self._db.execute(
            "SELECT study_uid FROM instance WHERE sop_instance_uid = :uid "
            "UNION ALL SELECT study_uid FROM retired WHERE sop_instance_uid = :uid LIMIT 1",
            {"uid": sop_instance_uid},
        ).fetchone()
        return row["study_uid"] if row else ""

    def settle(self, study_uid: str) -> int:
        """Expect no more of a study: a person says so. Returns how many instances are no longer missed."""
        return self._db.execute(
            "DELETE FROM study_claim WHERE study_uid = ? "
            "AND NOT EXISTS (SELECT 1 FROM instance WHERE instance.sop_instance_uid = study_claim.sop_instance_uid) "
            "AND NOT EXISTS (SELECT 1 FROM retired WHERE retired.sop_instance_uid = study_claim.sop_instance_uid)",
            (study_uid,),
        ).rowcount
