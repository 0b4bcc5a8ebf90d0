"""The drop folder: files that somebody copies in are taken once they stand still.

What was taken moves to `accepted/`, what was not to `rejected/` beside a text file that says why. `watchdog` only
hints that something happened; a slow rescan finds what it did not report (network shares, lost events).
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from gateway.arrive.part10_file import take
from gateway.arrive.reception import Reception
from gateway.config.schema import FolderSettings
from gateway.dicom.services import OUT_OF_RESOURCES
from gateway.model.errors import Refused
from gateway.model.instance import Door, Origin

log = logging.getLogger("gateway.arrive")

ACCEPTED, REJECTED = "accepted", "rejected"
RESCAN_S = 2.0
MAX_DEPTH = 16


@dataclass(frozen=True, slots=True)
class _Sight:
    """How a file looked, and since when it looks so."""

    size: int
    mtime_ns: int
    since: float


class DropFolder:
    """One watched folder, served by one thread."""

    def __init__(self, settings: FolderSettings, reception: Reception) -> None:
        self._settings = settings
        self._reception = reception
        self._seen: dict[Path, _Sight] = {}
        self._wake = threading.Event()

    def run(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Watch until stopped."""
        root = self._settings.path
        for folder in (root, root / ACCEPTED, root / REJECTED):
            folder.mkdir(parents=True, exist_ok=True)
        observer = Observer()
        observer.schedule(_Hint(self._wake), str(root), recursive=True)
        observer.start()
        try:
            while not stop.is_set():
                beat()
                waiting = self.look(time.monotonic(), beat)
                self._wake.wait(min(RESCAN_S, max(0.05, self._settings.settle_s / 4)) if waiting else RESCAN_S)
                self._wake.clear()
        finally:
            observer.stop()
            observer.join(5.0)

    def look(self, now: float, beat: Callable[[], None]) -> bool:
        """Take every file that stands still; return whether some have yet to settle."""
        seen: dict[Path, _Sight] = {}
        for path, status in _walk(self._settings.path, 0):
            beat()
            if not stat.S_ISREG(status.st_mode):
                self._reject(path, "not a regular file: links and devices are not followed")
                continue
            sight = self._seen.get(path)
            if sight is None or (sight.size, sight.mtime_ns) != (status.st_size, status.st_mtime_ns):
                sight = _Sight(status.st_size, status.st_mtime_ns, now)
            if now - sight.since < self._settings.settle_s or not self._take(path, sight):
                seen[path] = sight
        self._seen = seen
        return bool(seen)

    def _take(self, path: Path, sight: _Sight) -> bool:
        """Take one settled file; return False when it must be looked at again."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        except OSError as error:
            self._reject(path, f"cannot be opened: {error.strerror}")
            return True
        try:
            with os.fdopen(fd, "rb") as file:
                before = os.fstat(file.fileno())
                if (before.st_size, before.st_mtime_ns) != (sight.size, sight.mtime_ns):
                    return False
                take(self._reception, file, Origin(Door.FOLDER))
        except Refused as refusal:
            if refusal.status == OUT_OF_RESOURCES:  # our trouble, not the file's: it stays, and is tried again
                return False
            self._reject(path, refusal.detail)
            return True
        self._put_away(path, ACCEPTED)
        return True

    def _put_away(self, path: Path, shelf: str) -> Path | None:
        """Move a file to `accepted/` or `rejected/`, keeping its subfolder, never over another file."""
        root = self._settings.path
        target = root / shelf / path.relative_to(root)
        try:
            if shelf == ACCEPTED and not self._settings.keep_accepted:
                path.unlink(missing_ok=True)
                return None
            target.parent.mkdir(parents=True, exist_ok=True)
            number = 0
            while os.path.lexists(target):
                number += 1
                target = target.with_name(f"{path.stem}.{number}{path.suffix}")
            os.rename(path, target)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.error("put_away_failed folder=%s shelf=%s reason=%s", root, shelf, error.strerror)
            return None
        return target

    def _reject(self, path: Path, reason: str) -> None:
        log.warning("rejected door=folder reason=%r", reason)
        target = self._put_away(path, REJECTED)
        if target is not None:
            note = target.with_name(target.name + ".txt")
            try:
                note.write_text(f"Not taken: {reason}\nThe file beside this note is unchanged.\n")
            except OSError as error:
                log.error("note_failed folder=%s reason=%s", self._settings.path, error.strerror)


class _Hint(FileSystemEventHandler):
    """Wakes the folder's thread."""

    def __init__(self, wake: threading.Event) -> None:
        self._wake = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Something happened; what it was is found by looking."""
        self._wake.set()


def _walk(folder: Path, depth: int) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield what lies in a folder, not following links; what vanishes while we look is not there."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        if not stat.S_ISDIR(status.st_mode):
            yield Path(entry.path), status
        elif depth < MAX_DEPTH and not (depth == 0 and entry.name in (ACCEPTED, REJECTED)):
            yield from _walk(Path(entry.path), depth + 1)
