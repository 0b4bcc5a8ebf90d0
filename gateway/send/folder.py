"""`kind = "folder"`: Part 10 files for another program to fetch. The shortest courier, and the example to copy."""

from __future__ import annotations

import os
from collections.abc import Sequence

from gateway.config.destinations import FolderDestination
from gateway.dicom.part10 import meta_bytes
from gateway.model.verdict import Blame, Verdict
from gateway.send.courier import Consignment


class Folder:
    """Writes each instance under our own id: whole or not at all."""

    def __init__(self, settings: FolderDestination, calling_ae_title: str) -> None:
        self._path = settings.path
        self._source_ae = calling_ae_title

    def prepare(self, offers: Sequence[tuple[str, str]]) -> None:
        """Nothing to agree on."""

    def deliver(self, consignment: Consignment) -> Verdict:
        """Write one file: part, flush, rename, flush the folder."""
        final = self._path / f"{consignment.object_id}.dcm"
        part = self._path / f".{consignment.object_id}.part"
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            try:
                with open(part, "wb") as file:
                    file.write(
                        meta_bytes(
                            consignment.sop_class_uid,
                            consignment.sop_instance_uid,
                            consignment.transfer_syntax_uid,
                            source_ae=self._source_ae,
                        )
                    )
                    for block in consignment.body():
                        file.write(block)
                    file.flush()
                    os.fsync(file.fileno())
                os.rename(part, final)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
            self._flush()
        except OSError as error:
            return Verdict.deferred(Blame.DESTINATION, text=f"the folder cannot be written: {error.strerror}")
        return Verdict.accepted(text="stored")

    def _flush(self) -> None:
        fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def accepts(self, sop_class_uid: str) -> frozenset[str] | None:
        """A folder takes everything, so that nothing is ever asked for."""
        return None

    def probe(self) -> Verdict:
        """See whether the folder can be written."""
        try:
            self._path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            return Verdict.deferred(Blame.DESTINATION, text=f"the folder cannot be made: {error.strerror}")
        if not os.access(self._path, os.W_OK):
            return Verdict.deferred(Blame.DESTINATION, text="the folder cannot be written")
        return Verdict.accepted(text="the folder can be written")

    def close(self) -> None:
        """Nothing is kept open."""
