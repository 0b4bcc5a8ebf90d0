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


def replace_file(path: Path, text: str) -> None:
    """Replace a file, whole and durably, with the rights that it had, else for its owner alone; raises OSError."""
    part = path.with_name(f".{path.name}.part")
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
    fsync_directory(path.parent)
