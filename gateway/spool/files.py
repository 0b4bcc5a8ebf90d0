"""Files and names that survive a power cut."""

from __future__ import annotations

import os
from pathlib import Path


def fsync_directory(path: Path) -> None:
    """Make names in `path` survive a power cut; raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(path: Path) -> None:
    """Create `path` and make its name durable; fine if it is there."""
    if not path.is_dir():
        path.mkdir(mode=0o750, parents=True, exist_ok=True)
        fsync_directory(path.parent)


def write_file(path: Path | str, content: bytes, mode: int, folder: int | None = None) -> None:
    """Write a file and flush it, never through a link that somebody laid there; its name is not durable yet.

    `folder`: an open folder that a relative path begins at.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, mode, dir_fd=folder), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file, whole and durably, with the rights that it had, else with `mode`; raises OSError."""
    part = path.with_name(f".{path.name}.part")
    write_file(part, text.encode(), path.stat().st_mode & 0o777 if path.exists() else mode)
    part.rename(path)
    fsync_directory(path.parent)
