"""The one funnel: whatever comes in by any door becomes an object in custody here, or is refused with a status.

Nothing is decoded. The first bytes are shown to the header scanner for routing; the data set goes to disk verbatim.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace

from gateway.dicom.part10 import PREFIX_BYTES, scan_header
from gateway.dicom.services import OUT_OF_RESOURCES
from gateway.model.errors import Refused, SpoolError
from gateway.model.instance import Origin
from gateway.spool.rows import Receipt
from gateway.spool.spool import Spool

log = logging.getLogger("gateway.arrive")

ROOM_CHECK_BYTES = 8 * 2**20
MAX_UID_CHARACTERS = 128
"""Twice what the standard allows (PS3.5 9.1): scanners break that rule, and the label has room for so much."""
VALID_UID = re.compile(r"(?:0|[1-9][0-9]*+)(?:\.(?:0|[1-9][0-9]*+))*+")
INVALID_SOP_INSTANCE = 0x0117
"""Invalid object instance (PS3.7 C.5.13): the UID breaks the rules of UIDs (PS3.5 9.1)."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of an arrival."""

    receipt: Receipt
    uid_differs: bool
    """The data set names another SOP Instance or class than its envelope (PS3.4 B.2.3, status 0xB007)."""


class Arrival:
    """One object on its way in; used by one thread. After `finish` or `abandon` it is over."""

    def __init__(self, spool: Spool, max_bytes: int, origin: Origin, identity: tuple[str, str, str]) -> None:
        for uid in identity[:2]:
            if len(uid) > MAX_UID_CHARACTERS:
                raise Refused(INVALID_SOP_INSTANCE, f"a UID is longer than {MAX_UID_CHARACTERS} characters")
        self._spool = spool
        self._max_bytes = max_bytes
        self._origin = origin
        self._identity = identity
        self._prefix = bytearray()
        self._next_room_check = ROOM_CHECK_BYTES
        self._part = spool.new_part(identity)

    def write(self, fragment: bytes | memoryview) -> None:
        """Append data set bytes; raises Refused, after which nothing of the object is left."""
        length = self._part.length + len(fragment)
        try:
            if length > self._max_bytes:
                raise Refused(OUT_OF_RESOURCES, "object is longer than max_object_bytes", endless=True)
            if length >= self._next_room_check:
                self._next_room_check = length + ROOM_CHECK_BYTES
                self._spool.check_room()
            self._part.write(fragment)
        except OSError as error:
            self.abandon()
            raise Refused(OUT_OF_RESOURCES, f"spool: {error.strerror}") from error
        except SpoolError as error:
            self.abandon()
            raise Refused(OUT_OF_RESOURCES, error.detail) from error
        except Refused:
            self.abandon()
            raise
        if len(self._prefix) < PREFIX_BYTES:
            self._prefix += fragment[: PREFIX_BYTES - len(self._prefix)]

    def finish(self) -> Taken:
        """Take custody; after return the object survives a power cut. Raises Refused."""
        beginning = bytes(self._prefix)
        header = scan_header(beginning, self._identity[2], whole=len(beginning) == self._part.length)
        told = self._identity[:2]
        differs = header.parsable and any(
            seen and seen != said
            for said, seen in zip(told, (header.sop_class_uid, header.sop_instance_uid), strict=True)
        )
        if told != (header.sop_class_uid, header.sop_instance_uid):
            header = replace(header, sop_class_uid=told[0], sop_instance_uid=told[1])
        try:
            instance, receipt = self._spool.take(self._part, header, self._origin, self._identity, beginning)
        except SpoolError as error:
            log.error("not_accepted object=%s reason=%s", self._part.object_id, error.detail)
            raise Refused(OUT_OF_RESOURCES, error.detail) from error
        log.info(
            "accepted object=%s door=%s from=%s bytes=%d duplicate=%s parsable=%s",
            instance.object_id,
            self._origin.door,
            self._origin.address or "-",
            instance.length,
            receipt.duplicate,
            header.parsable,
        )
        if not all(len(uid) <= 64 and VALID_UID.fullmatch(uid) for uid in told):
            log.warning("uid_invalid object=%s", instance.object_id)
        if receipt.conflict:
            log.warning("uid_conflict object=%s", instance.object_id)
        return Taken(receipt, differs)

    def abandon(self) -> None:
        """Forget the object: the sender broke off, or it was refused."""
        self._part.drop()


class Reception:
    """Opens arrivals."""

    def __init__(self, spool: Spool, max_object_bytes: int) -> None:
        self._spool = spool
        self._max_object_bytes = max_object_bytes

    def begin(self, origin: Origin, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> Arrival:
        """Open a place for an object; raises Refused."""
        identity = (sop_class_uid, sop_instance_uid, transfer_syntax_uid)
        try:
            return Arrival(self._spool, self._max_object_bytes, origin, identity)
        except SpoolError as error:
            raise Refused(OUT_OF_RESOURCES, error.detail) from error
