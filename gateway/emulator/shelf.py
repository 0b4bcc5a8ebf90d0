"""What an emulated archive has: SHA-256 of each object as it came, its bytes where a folder is named, one JSON line."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TextIO

from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID


@dataclass(frozen=True, slots=True)
class Received:
    """One instance as the archive saw it."""

    sop_instance_uid: str
    sha256: str
    """Of the data set bytes as they came."""
    length: int
    transfer_syntax_uid: str
    status: int
    """That was answered: DIMSE status, or HTTP status above 99 and below 600."""
    calling_ae_title: str = ""
    at_s: float = 0.0
    """Seconds since the epoch."""

    @property
    def kept(self) -> bool:
        """True when the archive has it."""
        return self.status in (0x0000, 200, 202) or self.status & 0xF000 == 0xB000


class Shelf:
    """Shared by all doors of one archive."""

    def __init__(self, folder: Path | None = None, log: TextIO | None = None) -> None:
        self.received: list[Received] = []
        self._folder, self._log = folder, log
        self._have: set[str] = set()
        self._lock = threading.Lock()

    def has(self, sop_instance_uid: str) -> bool:
        """True when an instance of this UID was kept."""
        with self._lock:
            return sop_instance_uid in self._have

    def note(self, instance: Received, sop_class_uid: str, content: bytes) -> None:
        """Write down what came and what was answered, and keep it if that was success."""
        instance_uid = instance.sop_instance_uid
        if instance.kept and self._folder is not None:
            name = self._folder / f"{instance.sha256[:32]}.dcm"
            name.write_bytes(_head(sop_class_uid, instance_uid, instance.transfer_syntax_uid) + content)
        with self._lock:
            self.received.append(instance)
            if instance.kept:
                self._have.add(instance_uid)
            if self._log is not None:
                self._log.write(json.dumps(asdict(instance)) + "\n")
                self._log.flush()


def received(uid: str, content: bytes, syntax: str, status: int, calling: str = "") -> Received:
    """Return what is known of an object that came now."""
    return Received(uid, sha256(content).hexdigest(), len(content), syntax, status, calling, round(time.time(), 3))


def _head(sop_class_uid: str, sop_instance_uid: str, syntax: str) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class_uid), UID(sop_instance_uid)
    meta.TransferSyntaxUID, meta.ImplementationClassUID = UID(syntax), UID("2.25.77")
    file = DicomBytesIO()
    write_file_meta_info(file, meta)
    return b"\0" * 128 + b"DICM" + file.getvalue()
