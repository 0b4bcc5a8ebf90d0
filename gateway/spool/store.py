"""The bytes of what we hold: part files, sealed objects, verified reading.

An object is a Part 10 file (PS3.10) that any DICOM tool opens: our preamble and File Meta Information, then the data
set exactly as received. The meta's Private Information (0002,0102) carries everything the ledger knows about the
object, its SHA-256 included, so that the file itself proves that it is whole and the ledger can be rebuilt from it.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import BinaryIO

from gateway.dicom import part10
from gateway.model.errors import CustodyRot, SpoolError
from gateway.model.instance import Door, Header, Origin, SOPInstance
from gateway.spool.files import fsync_directory, make_directory

LABEL_BYTES = 2048
"""Fixed size of the label in (0002,0102): the data set is written behind it before the hash in it is known."""
BLOCK_BYTES = 256 * 1024
PAGE_BYTES = 4096
WRITE_BACK_BYTES = 256 * 1024
"""Write-back is started at each such step, before its bytes are hashed: the disk works while the processor does."""
PREPARED_PARTS = 16
"""Parts made at once: one directory flush for all of them, instead of one for each object."""
SHELF_OBJECTS = 1000
"""Objects in one folder: few enough to list."""

ID_WINDOW_S = 256
"""Ids made within one such window begin alike: their rows in the ledger's index are neighbours however large it grows,
and the rest of the first twelve digits, which people are shown, still tells them apart."""

_SYNC_FILE_RANGE_WRITE = 2
_libc = ctypes.CDLL(None, use_errno=True)


_INSTANCE, _HEADER, _ORIGIN = ([field.name for field in fields(kind)] for kind in (SOPInstance, Header, Origin))


_JSON = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False)


def new_object_id(now: float) -> str:
    """Return 32 hex digits: five of the window that `now` (s since 1970) lies in, 27 of chance. Unique by chance alone:
    a clock that is wrong or goes back costs neighbours, no more."""
    return f"{int(now // ID_WINDOW_S) & 0xFFFFF:05x}{secrets.token_hex(14)[1:]}"


def _label(instance: SOPInstance) -> bytes:
    facts = {name: getattr(instance, name) for name in _INSTANCE}  # asdict copies deeply, and took longer than a flush
    facts["header"] = {name: getattr(instance.header, name) for name in _HEADER}
    facts["origin"] = {name: getattr(instance.origin, name) for name in _ORIGIN}
    text = _JSON.encode(facts).encode()
    if len(text) > LABEL_BYTES:
        raise SpoolError("the object's identifiers are too long for its label")
    return text.ljust(LABEL_BYTES)


def _read_label(label: bytes) -> SOPInstance:
    fields = json.loads(label)
    header = Header(**fields.pop("header"))
    origin = fields.pop("origin")
    origin["door"] = Door(origin["door"])
    return SOPInstance(**fields, header=header, origin=Origin(**origin))


def _label_of(label: bytes | None) -> SOPInstance:
    """Return what an object's label says; raises CustodyRot."""
    try:
        return _read_label(label or b"")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CustodyRot("the object has no readable label") from error


_ROTTEN = {errno.ENOENT, errno.EIO, errno.EBADMSG, errno.EUCLEAN}
"""What a disk says about a file. Anything else, as too many open files, says something about us: nothing is put into
quarantine for it."""


def unreadable(error: OSError | ValueError) -> SpoolError:
    """Return what it means that an object could not be read: CustodyRot, or a fault of the moment."""
    if isinstance(error, OSError) and error.errno not in _ROTTEN:
        return SpoolError(f"the object cannot be read at present: {error.strerror}")
    return CustodyRot("the object cannot be read")


def _dataset_offset(file: BinaryIO, length: int) -> int:
    """Return where the data set begins; from the end where the meta before it is no longer readable."""
    try:
        return part10.read_meta(file).dataset_offset
    except (ValueError, OSError):
        return max(0, os.fstat(file.fileno()).st_size - length)


def _readable(file: BinaryIO) -> Iterator[bytes]:
    """Yield what can be read of the rest of a file."""
    try:
        while block := file.read(BLOCK_BYTES):
            yield block
    except OSError:
        return


class Part:
    """An object on its way in: written and hashed as it comes, in one pass. Used by one thread."""

    def __init__(self, path: Path, fd: int, identity: tuple[str, str, str]) -> None:
        """Begin an object in an empty file whose name is durable; `identity` is SOP class, instance, syntax."""
        self.object_id = path.stem
        self.path = path
        self.length = 0
        self._fd = fd
        self._digest = hashlib.sha256()
        self._meta = part10.meta_bytes(*identity, private=b" " * LABEL_BYTES)
        self._written_back = PAGE_BYTES
        """The first page is written last, with the label."""

    def _write_all(self, block: bytes | memoryview, at: int) -> None:
        view = memoryview(block)
        while view:
            count = os.pwrite(self._fd, view, at)
            view, at = view[count:], at + count

    def write(self, fragment: bytes | memoryview) -> None:
        """Append data set bytes; raises OSError, after which the part can only be dropped."""
        end = len(self._meta) + self.length + len(fragment)
        self._write_all(fragment, end - len(fragment))
        if end - self._written_back >= WRITE_BACK_BYTES:
            whole_pages = (end - self._written_back) // PAGE_BYTES * PAGE_BYTES
            _libc.sync_file_range(
                self._fd,
                ctypes.c_int64(self._written_back),
                ctypes.c_int64(whole_pages),
                ctypes.c_uint(_SYNC_FILE_RANGE_WRITE),
            )
            self._written_back += whole_pages
        self._digest.update(fragment)
        self.length += len(fragment)

    @property
    def sha256(self) -> str:
        """Hex digest of the data set bytes so far."""
        return self._digest.hexdigest()

    def seal(self, instance: SOPInstance) -> None:
        """Label the object and make its bytes durable; raises OSError, after which it can only be dropped.

        A failed flush is never repeated: the kernel may have dropped the pages and would say "done" (contract D6).
        """
        self._write_all(self._meta[:-LABEL_BYTES] + _label(instance), 0)
        os.fdatasync(self._fd)
        fd, self._fd = self._fd, -1
        os.close(fd)

    def drop(self) -> None:
        """Forget the object; safe to call twice, and after anything."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                os.close(fd)
            except OSError:
                pass  # the bytes are unwanted; recovery removes what unlink below cannot
        try:
            self.path.unlink(missing_ok=True)
        except OSError:
            pass  # a part is never taken for an object; recovery removes it


class Store:
    """The folders under the data directory that hold objects."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.objects = data_dir / "objects"
        self.parts = data_dir / "parts"
        self.quarantine = data_dir / "quarantine"
        self.renditions = data_dir / "renditions"
        """Derived forms on their way; worth nothing after a restart."""
        self._shelf = self.objects / f"{0:06d}"
        self._on_shelf = 0
        self._prepared: list[tuple[Path, int]] = []
        self._preparing = threading.Lock()

    def prepare(self) -> None:
        """Make the folders, and go on with the last shelf."""
        for folder in (self.data_dir, self.objects, self.parts, self.quarantine, self.renditions):
            make_directory(folder)
        shelves = sorted(int(path.name) for path in self.objects.iterdir() if path.name.isdigit())
        self._shelf = self.objects / f"{shelves[-1] if shelves else 0:06d}"
        make_directory(self._shelf)
        self._on_shelf = sum(1 for _ in self._shelf.iterdir())

    def current_shelf(self) -> Path:
        """Return the folder that takes the next object; opens a new one, durably, when it is full."""
        if self._on_shelf >= SHELF_OBJECTS:
            shelf = self.objects / f"{int(self._shelf.name) + 1:06d}"
            make_directory(shelf)
            self._shelf, self._on_shelf = shelf, 0
        return self._shelf

    def new_part(self, identity: tuple[str, str, str]) -> Part:
        """Begin an object under a name that survives a power cut already; raises OSError."""
        with self._preparing:
            if not self._prepared:
                self._prepare_parts()
            path, fd = self._prepared.pop()
        return Part(path, fd, identity)

    def _prepare_parts(self) -> None:
        """Make empty parts with durable names, so that no object waits for the flush of a folder."""
        try:
            for _ in range(PREPARED_PARTS):
                path = self.parts / f"{new_object_id(time.time())}.part"
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
                self._prepared.append((path, fd))
            fsync_directory(self.parts)
        except OSError:
            self.drop_prepared()
            raise

    def drop_prepared(self) -> None:
        """Remove the parts that nothing was written to."""
        while self._prepared:
            path, fd = self._prepared.pop()
            with suppress(OSError):  # an empty part is worth nothing; recovery removes what stays
                os.close(fd)
                path.unlink(missing_ok=True)

    def place(self, part: Part, shelf: Path) -> None:
        """Give a sealed part its final name on `shelf`. Not flushed: the part's own name is durable, its bytes prove
        themselves, and recovery finishes a rename that a power cut forgot."""
        os.rename(part.path, shelf / f"{part.object_id}.dcm")
        self._on_shelf += 1

    def path_of(self, shelf: str, object_id: str) -> Path:
        """Return where an object's file is."""
        return self.objects / shelf / f"{object_id}.dcm"

    def body(self, path: Path, instance: SOPInstance) -> Iterator[bytes]:
        """Yield the data set of an object; the first block only when its own label says of it what the ledger does, the
        last only after the whole matched its hash.

        Raises CustodyRot when the bytes are not those that were acknowledged, the ledger is not as it was written, or
        the disk cannot give them (contract D3); SpoolError when it is we who cannot read at present.
        """
        try:
            with open(path, "rb") as file:
                meta = part10.read_meta(file)
        except (OSError, ValueError) as error:
            raise unreadable(error) from error
        if _label_of(meta.private) != instance:
            raise CustodyRot("ledger and object do not say the same of it: a bit changed in one of them")
        yield from self._proven(path, meta.dataset_offset, instance.sha256)

    def beginning(self, path: Path) -> bytes:
        """Return the first bytes of an object's data set, unproven; none when the file cannot be read: that it is
        rotten is for its delivery to find."""
        try:
            with open(path, "rb") as file:
                file.seek(part10.read_meta(file).dataset_offset)
                return file.read(part10.PREFIX_BYTES)
        except (OSError, ValueError):
            return b""

    def derived_body(self, path: Path, sha256: str) -> Iterator[bytes]:
        """Yield a rendition, a bare data set, in the same way."""
        yield from self._proven(path, 0, sha256)

    def _proven(self, path: Path, offset: int, sha256: str) -> Iterator[bytes]:
        digest = hashlib.sha256()
        try:
            with open(path, "rb") as file:
                file.seek(offset)
                held_back = b""
                while block := file.read(BLOCK_BYTES):
                    digest.update(block)
                    if held_back:
                        yield held_back
                    held_back = block
        except OSError as error:
            raise unreadable(error) from error
        if digest.hexdigest() != sha256:
            raise CustodyRot("the bytes on disk are not those that were acknowledged")
        if held_back:
            yield held_back

    def verify(self, path: Path) -> SOPInstance:
        """Return what the file says it is, if its bytes prove it; raises CustodyRot otherwise, or as `body` does."""
        try:
            with open(path, "rb") as file:
                label = part10.read_meta(file).private
        except OSError as error:
            raise unreadable(error) from error
        except ValueError as error:
            raise CustodyRot("the object has no readable label") from error
        instance = _label_of(label)
        for _ in self.body(path, instance):
            pass
        return instance

    def uncache(self, path: Path) -> None:
        """Have the next read come from the disk, where the rot is, and not from memory. Only a hint."""
        try:
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            pass  # who reads it will say so

    def export(self, shelf: str, instance: SOPInstance, target: Path) -> str | None:
        """Copy an object, without our label, to a new durable Part 10 file; return the SHA-256 of the data set that
        was found, whatever it is. None: the object cannot be read. Raises OSError when `target` cannot be written."""
        try:
            source = open(self.path_of(shelf, instance.object_id), "rb")  # noqa: SIM115 - told apart from the target
        except OSError:
            return None
        part = target.with_name(target.name + ".part")
        digest = hashlib.sha256()
        with source, open(part, "xb") as copy:
            copy.write(
                part10.meta_bytes(instance.sop_class_uid, instance.sop_instance_uid, instance.transfer_syntax_uid)
            )
            source.seek(_dataset_offset(source, instance.length))
            for block in _readable(source):  # less than all is better than nothing; its hash says so
                digest.update(block)
                copy.write(block)
            copy.flush()
            os.fsync(copy.fileno())
        os.rename(part, target)
        return digest.hexdigest()

    def aside(self) -> dict[Path, str]:
        """Return the files in the quarantine folder, each with what is wrong with it in words; raises OSError."""
        return {path: self._why_aside(path) for path in sorted(self.quarantine.iterdir())}

    def _why_aside(self, path: Path) -> str:
        try:
            self.verify(path)
        except SpoolError as error:
            return error.detail
        return "its label names another object"

    def set_aside(self, path: Path) -> None:
        """Move a file that proves nothing to the quarantine folder, which no code deletes from."""
        os.rename(path, self.quarantine / path.name)
        fsync_directory(self.quarantine)
