"""A scanner that writes files: Part 10 as it should be, or without preamble, growing, with a DICOMDIR beside."""

from __future__ import annotations

import time
from hashlib import sha256
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import dcmwrite, write_file_meta_info
from pydicom.uid import UID

from gateway.emulator.encoding import encode
from gateway.emulator.profile import EXPLICIT, IMPLICIT, Profile
from gateway.emulator.sender import Sent

MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
STEPS = 5
"""In so many pieces a file grows."""


def drop(dataset: Dataset, folder: Path, profile: Profile, pace: float) -> Sent:
    """Write one instance into a folder that is there. Raises OSError."""
    started, files = time.monotonic(), profile.files
    own = str(dataset.file_meta.TransferSyntaxUID)
    compressed = own not in (IMPLICIT, EXPLICIT)
    bare = not files.preamble and not compressed  # what has no File Meta Information is Implicit VR (PS3.10 7)
    syntax = own if compressed else IMPLICIT if bare else profile.network.syntaxes[0]
    encoded = encode(dataset, syntax, profile.data)
    content = encoded.content if bare else _head(dataset, syntax) + encoded.content
    uid = str(dataset.SOPInstanceUID).strip("\0 ")
    name = folder / f"{dataset.Modality}.{uid[-24:]}.{sha256(content).hexdigest()[:8]}"
    _write(name, content, files.grow_s * pace)
    if files.dicomdir and not (folder / "DICOMDIR").exists():
        (folder / "DICOMDIR").write_bytes(_directory())
    return Sent(str(dataset.StudyInstanceUID), uid, encoded.sha256, 0, time.monotonic() - started)


def _head(dataset: Dataset, syntax: str) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID, meta.ImplementationClassUID = UID(syntax), UID("2.25.77")
    file = DicomBytesIO()
    write_file_meta_info(file, meta)
    return b"\0" * 128 + b"DICM" + file.getvalue()


def _write(path: Path, content: bytes, grow_s: float) -> None:
    """Under its final name from the first byte on, as devices do."""
    with open(path, "wb") as file:
        step = max(1, len(content) // STEPS)
        for at in range(0, len(content), step):
            file.write(content[at : at + step])
            file.flush()
            time.sleep(grow_s / STEPS)


def _directory() -> bytes:
    """An empty DICOMDIR (PS3.10 8.6)."""
    directory = Dataset()
    directory.file_meta = FileMetaDataset()
    directory.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1")
    directory.file_meta.MediaStorageSOPClassUID = UID(MEDIA_DIRECTORY)
    directory.file_meta.MediaStorageSOPInstanceUID = UID("2.25.78")
    directory.FileSetID = "EMULATED"
    directory.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity = 0
    directory.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity = 0
    directory.FileSetConsistencyFlag = 0
    directory.DirectoryRecordSequence = []
    file = BytesIO()
    dcmwrite(file, directory, enforce_file_format=True)
    return file.getvalue()
