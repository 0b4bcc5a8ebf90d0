"""`confirm = "query"`: an archive has what it finds, by C-FIND at IMAGE level (PS3.4 C.4.1) or QIDO-RS (`qido.py`).

One question per series. What is not found may not be indexed yet: the next question comes after twice the time, and
only when that grows past `confirm_timeout_s` is the instance missed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Protocol

from gateway.config.destinations import DimseDestination, StowDestination
from gateway.confirm.evidence import Findings, Unanswered
from gateway.dicom.attributes import attribute_values
from gateway.dicom.command import C_FIND_RQ
from gateway.dicom.part10 import element_bytes
from gateway.dicom.requestor import PeerFailed, Requestor
from gateway.identity.peers import witness_of
from gateway.model.transfer_syntax import EXPLICIT_LE, IMPLICIT_LE
from gateway.spool.rows import Sent
from gateway.spool.spool import Spool

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
SOP_INSTANCE_UID, STUDY_UID, SERIES_UID, LEVEL = 0x00080018, 0x0020000D, 0x0020000E, 0x00080052
FIRST_S = 1.0
ABSENT = "the archive took it and does not find it"
Key = tuple[str, str, str]
"""Study, Series and SOP Instance UID; empty: any."""
_CONTEXTS = ((STUDY_ROOT_FIND, EXPLICIT_LE), (STUDY_ROOT_FIND, IMPLICIT_LE))


class Catalogue(Protocol):
    """Finds instances in one archive."""

    def found(self, key: Key, beat: Callable[[], None]) -> set[str]:
        """Return the SOP Instance UIDs that answer to `key`; raises Unanswered."""
        ...

    def close(self) -> None:
        """End what is open."""


class Query:
    """Asks an archive which instances of a series it has."""

    evidence = "query"

    def __init__(self, settings: DimseDestination | StowDestination, spool: Spool, catalogue: Catalogue) -> None:
        self._settings = settings
        self._spool = spool
        self._catalogue = catalogue

    def ask(self, sent: Sequence[Sent], beat: Callable[[], None]) -> Findings:
        """Ask series by series; what was found before an archive fell silent counts."""
        kept: list[int] = []
        missed: dict[int, str] = {}
        try:
            for key, group in groupby(sorted(sent, key=key_of), key_of):
                found, asked = self._catalogue.found(key, beat), list(group)
                kept += [one.seq for one in asked if one.sop_instance_uid in found]
                absent = [one for one in asked if one.sop_instance_uid not in found]
                missed |= {one.seq: ABSENT for one in absent if self._delay_s(one) is None}
                self._ask_later([one for one in absent if one.seq not in missed])
        except Unanswered:
            if not kept and not missed:
                raise
        finally:
            self._catalogue.close()
        return Findings(kept, missed)

    def _delay_s(self, one: Sent) -> float | None:
        """Return how long to wait before the next question; None: the time for the archive to index it is over."""
        delay_s = max(FIRST_S, self._settings.confirm_after_s) * float(2**one.asked)
        return delay_s if delay_s < self._settings.confirm_timeout_s else None

    def _ask_later(self, absent: Sequence[Sent]) -> None:
        for delay_s, group in groupby(sorted(absent, key=lambda one: one.asked), self._delay_s):
            seqs, at = [one.seq for one in group], time.time() + (delay_s or 0.0)
            self._spool.change(lambda ledger, seqs=seqs, at=at: ledger.ask(seqs, self._settings.name, at))  # type: ignore[misc]


def key_of(sent: Sent) -> Key:
    """Return what to ask by: the series, where the data set could be read; the instance alone is answered by many."""
    known = bool(sent.study_uid and sent.series_uid)
    return (sent.study_uid, sent.series_uid, "") if known else ("", "", sent.sop_instance_uid)


class CFind:
    """A Query/Retrieve SCP, Study Root."""

    def __init__(self, settings: DimseDestination, calling_ae_title: str) -> None:
        """Raises IdentityError when the `tls` table cannot be used."""
        self._peer = witness_of(settings, calling_ae_title)
        self._requestor: Requestor | None = None

    def found(self, key: Key, beat: Callable[[], None]) -> set[str]:
        """One C-FIND."""
        beat()
        try:
            if self._requestor is None:
                self._requestor = Requestor(self._peer, _CONTEXTS)
            pair = next((pair for pair in _CONTEXTS if pair in self._requestor.accepted), None)
            if pair is None:
                raise Unanswered('the archive offers no C-FIND: use confirm = "stored", or confirm_at')
            answer = self._requestor.request(
                self._requestor.accepted[pair],
                C_FIND_RQ,
                STUDY_ROOT_FIND,
                identifier(key, pair[1]),
            )
        except PeerFailed as error:
            self._drop()
            raise Unanswered(str(error)) from error
        if answer.status != 0:
            raise Unanswered(f"C-FIND answered 0x{answer.status:04X} {answer.comment}")
        return {
            uid
            for data_set in answer.data_sets
            if (uid := attribute_values(data_set, pair[1], {SOP_INSTANCE_UID: "UI"}).get(SOP_INSTANCE_UID))
        }

    def _drop(self) -> None:
        if self._requestor is not None:
            self._requestor.abort()
            self._requestor = None

    def close(self) -> None:
        """Release the association."""
        if self._requestor is not None:
            self._requestor.release()
            self._requestor = None


def identifier(key: Key, transfer_syntax_uid: str) -> bytes:
    """Return a C-FIND identifier that asks for SOP Instance UIDs (PS3.4 C.4.1.1.3)."""
    study_uid, series_uid, instance_uid = (uid.encode("latin-1", "replace") for uid in key)
    values = (
        (SOP_INSTANCE_UID, b"UI", instance_uid),
        (LEVEL, b"CS", b"IMAGE"),
        (STUDY_UID, b"UI", study_uid),
        (SERIES_UID, b"UI", series_uid),
    )
    return b"".join(element_bytes(tag, vr, value, transfer_syntax_uid) for tag, vr, value in values)
