"""Small disks of their own: ext4 in a loop-mounted file, and tmpfs, that can be filled, emptied and made read-only."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEGABYTES = 64
"""The ledger's reserve takes 16 MiB, and is only taken where as much stays free beside it."""


def run(*command: object) -> subprocess.CompletedProcess:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=30)


class Disk:
    """A mounted file system."""

    def __init__(self, folder: Path, image: Path | None = None) -> None:
        self.folder = folder
        self.image = image
        self.block = os.statvfs(folder).f_frsize
        self._fillers = folder / "somebody-elses-files"

    def free(self) -> int:
        stat = os.statvfs(self.folder)
        return stat.f_bavail * stat.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Let somebody else's file take all but `leave` bytes, to the block."""
        self._fillers.mkdir(exist_ok=True)
        fd, end, step = os.open(self._fillers / "file", os.O_RDWR | os.O_CREAT, 0o600), 0, 1 << 20
        try:
            while self.free() > leave and step >= self.block:
                step = min(step, self.free() - leave)
                try:
                    os.posix_fallocate(fd, end, step)
                    end += step
                except OSError:
                    step //= 2
            os.fsync(fd)
        finally:
            os.close(fd)

    def fill_inodes(self) -> None:
        """Let somebody else's empty files take every inode."""
        self._fillers.mkdir(exist_ok=True)
        for number in range(100_000):
            try:
                (self._fillers / str(number)).touch()
            except OSError:
                return

    def make_room(self) -> None:
        """Remove somebody else's files."""
        shutil.rmtree(self._fillers)

    def fails(self) -> None:
        """Do what ext4 does when its journal finds an error: be read-only for whoever has files open, too.

        While a file is open for writing the kernel refuses a plain `remount,ro`.
        """
        done = run("mount", "-o", "remount,abort", self.folder)
        assert done.returncode == 0, done.stderr

    def mount(self, options: str = "") -> None:
        kind = ["-o", f"loop,{options}".rstrip(","), self.image] if self.image else ["-t", "tmpfs", "none"]
        done = run("mount", *kind, self.folder)
        assert done.returncode == 0, done.stderr

    def unmount(self) -> None:
        done = run("umount", self.folder)
        assert done.returncode == 0, done.stderr

    def check(self) -> None:
        """Repair as the next boot does; the disk must not be mounted."""
        done = run("e2fsck", "-fp", self.image)
        assert done.returncode in (0, 1), done.stdout


@contextmanager
def ext4(place: Path, *options: object) -> Iterator[Disk]:
    """A fresh ext4 at `place`/data; `options` are mkfs's."""
    image, folder = place / "disk.img", place / "data"
    folder.mkdir(parents=True)
    with open(image, "wb") as file:
        file.truncate(MEGABYTES << 20)
    lazy = "lazy_itable_init=0,lazy_journal_init=0"  # else the kernel goes on writing the image after the mount
    made = run("mkfs.ext4", "-q", "-m", "0", "-b", "4096", "-E", lazy, *options, image)
    assert made.returncode == 0, made.stderr
    mounted = run("mount", "-o", "loop", image, folder)
    assert mounted.returncode == 0, mounted.stderr
    try:
        yield Disk(folder, image)
    finally:
        _undo(folder)


@contextmanager
def tmpfs(place: Path) -> Iterator[Disk]:
    """A fresh tmpfs at `place`/data."""
    folder = place / "data"
    folder.mkdir(parents=True)
    mounted = run("mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "none", folder)
    assert mounted.returncode == 0, mounted.stderr
    try:
        yield Disk(folder)
    finally:
        _undo(folder)


def _undo(folder: Path) -> None:
    """Unmount whatever state it is in; the loop device goes with its last user."""
    if os.path.ismount(folder) and run("umount", folder).returncode:
        run("umount", "--lazy", folder)


def why_not(place: Path) -> str:
    """Return what is missing for such disks, empty when nothing is."""
    if os.geteuid() != 0:
        return "only root can mount a small disk"
    for command in ("mkfs.ext4", "e2fsck", "mount", "strace"):
        if shutil.which(command, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None:
            return f"no {command} here"
    try:
        with ext4(place):
            return ""
    except AssertionError as error:
        return f"no loop device can be mounted here: {error}"
