"""A file that somebody hands us becomes an object in custody: shared by the drop folder and by `import`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO

from gateway.arrive.reception import Reception, Taken
from gateway.dicom.part10 import PREFIX_BYTES, bare_syntax, read_meta, scan_header
from gateway.model.errors import Refused
from gateway.model.instance import Origin

BLOCK_BYTES = 256 * 1024
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
NOT_UNDERSTOOD = 0xC000


@dataclass(frozen=True, slots=True)
class Envelope:
    """What must be known of a data set before it can be taken."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    offset: int


def envelope(file: BinaryIO) -> Envelope:
    """Find out what a file is, with or without preamble and meta; raises Refused with the reason in words."""
    try:
        meta = read_meta(file)
        syntax, offset = meta.transfer_syntax_uid, meta.dataset_offset
        told = (meta.sop_class_uid, meta.sop_instance_uid)
    except ValueError as error:
        file.seek(0)
        guessed = bare_syntax(file.read(PREFIX_BYTES))
        if guessed is None:
            raise Refused(NOT_UNDERSTOOD, f"not a DICOM file: {error}") from error
        syntax, offset, told = guessed, 0, ("", "")
    file.seek(offset)
    header = scan_header(file.read(PREFIX_BYTES), syntax)
    sop_class_uid = told[0] or header.sop_class_uid
    sop_instance_uid = told[1] or header.sop_instance_uid
    if sop_class_uid == MEDIA_DIRECTORY:
        raise Refused(NOT_UNDERSTOOD, "a DICOMDIR is an index, not an object; give the files it names")
    if not sop_class_uid or not sop_instance_uid:
        raise Refused(NOT_UNDERSTOOD, "not a DICOM object: it names no SOP Class or no SOP Instance UID")
    if not syntax:
        raise Refused(NOT_UNDERSTOOD, "the file names no Transfer Syntax")
    return Envelope(sop_class_uid, sop_instance_uid, syntax, offset)


def take(reception: Reception, file: BinaryIO, origin: Origin) -> Taken:
    """Take custody of a file's data set; raises Refused, and then nothing of it is here."""
    found = envelope(file)
    length = os.fstat(file.fileno()).st_size
    if length <= found.offset:
        raise Refused(NOT_UNDERSTOOD, "the file ends where its data set should begin")
    arrival = reception.begin(origin, found.sop_class_uid, found.sop_instance_uid, found.transfer_syntax_uid)
    try:
        file.seek(found.offset)
        while block := file.read(BLOCK_BYTES):
            arrival.write(block)
    except OSError as error:
        arrival.abandon()
        raise Refused(NOT_UNDERSTOOD, f"the file could not be read to its end: {error.strerror}") from error
    return arrival.finish()
