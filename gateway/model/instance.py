"""Facts about a SOP Instance in our care. UIDs are kept as received: they are compared, never used in a path."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Door(StrEnum):
    """By which door an instance came in."""

    DIMSE = "dimse"
    FOLDER = "folder"
    IMPORT = "import"


class Priority(IntEnum):
    """Order of delivery; lower goes first."""

    STAT = 0
    NORMAL = 1
    BULK = 2


FROM_DIMSE = {0x0000: Priority.NORMAL, 0x0001: Priority.STAT, 0x0002: Priority.BULK}
"""Priority (0000,0700) of a request: MEDIUM, HIGH, LOW (PS3.7 table 9.3-1)."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an instance came from. Empty strings where the door does not know."""

    door: Door
    address: str = ""
    """IP address of the sender, without port."""
    calling_ae_title: str = ""
    called_ae_title: str = ""
    listener_port: int = 0
    dimse_priority: int = 0
    """Priority (0000,0700) as the sender said it."""

    @property
    def asked(self) -> Priority:
        """The order of delivery that the sender asks for; NORMAL when it asks for nothing that the standard knows."""
        return FROM_DIMSE.get(self.dimse_priority, Priority.NORMAL)


@dataclass(frozen=True, slots=True)
class Header:
    """What routing needs to know, read from the first kilobytes of a data set; empty where it is not there."""

    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    modality: str = ""
    parsable: bool = True
    """False when the scanner met bytes it could not follow; the object is kept and forwarded verbatim all the same."""


@dataclass(frozen=True, slots=True)
class SOPInstance:
    """One object in custody: the ledger's row, without its state."""

    object_id: str
    """Our own id, 32 hex digits; names the file, is the only name that ever reaches a log."""
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    sha256: str
    """Hex digest of the data set bytes exactly as received (without File Meta Information)."""
    length: int
    """Bytes of the data set."""
    header: Header
    origin: Origin
    received_at: float
    """Seconds since 1970 by the box's clock, which may be wrong: for people only, never for order."""
