"""A disk that forgets: rebuilt from the system calls of a run, as it was at any moment, without what was not flushed.

From one `strace` log come as many power cuts as it has events. What this disk promises is what POSIX does and no more:
`fdatasync` and `fsync` of a file keep its bytes, `fsync` of a folder keeps the names in it; a new file's own flush
keeps no name. Of the rest, `luck` decides what was on the platter by chance: names in the order of their making (a
journalled file system), data by sectors of 512 bytes in any order.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

CALLS = "openat,close,write,pwrite64,ftruncate,fdatasync,fsync,rename,unlink,mkdir"
SECTOR = 512
VOLATILE = "-shm"
"""SQLite's index of its journal is mapped memory, and is made anew after a crash."""
_LINE = re.compile(r"^(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Call:
    """One successful system call."""

    name: str
    fd: int
    """-1 where it takes paths."""
    strings: tuple[bytes, ...]
    numbers: str
    """The arguments as strace printed them."""
    result: int


def record(command: list[str], trace: Path, env: Mapping[str, str] | None = None) -> None:
    """Run a program of one thread and write down its system calls."""
    strace = ["strace", "-f", "-y", "-x", "-qq", "-s", "10000000", "-o", str(trace), "-e", f"trace={CALLS}"]
    subprocess.run([*strace, *command], check=True, env={**os.environ, **(env or {})}, cwd=ROOT, capture_output=True)


def life(data: Path, objects: int) -> list[str]:
    """The command line of `life.py`."""
    return [sys.executable, "-m", "tests.crash.life", str(data), str(objects)]


def read(trace: Path) -> list[Call]:
    """Every call that succeeded, in order."""
    found = []
    for line in trace.read_text().splitlines():
        match = _LINE.match(line)
        if match is None or int(match[3]) < 0:
            continue
        name, arguments, result = match[1], match[2], int(match[3])
        strings = tuple(ast.literal_eval(f'b"{text}"') for text in _STRING.findall(arguments))
        fd = re.match(r"(\d+)<", arguments)
        found.append(Call(name, int(fd[1]) if fd else -1, strings, _STRING.sub("", arguments), result))
    return found


@dataclass(eq=False)
class File:
    """A file's bytes: those that are safe, and what was written since."""

    safe: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    """(offset, bytes); None: cut to this length."""

    def flush(self) -> None:
        self.safe = self.content(None)
        self.pending.clear()

    def content(self, luck: Random | None, *, everything: bool = True) -> bytearray:
        """What can be read: all of it, or after a power cut what luck kept."""
        now = bytearray(self.safe)
        for at, block in self.pending if everything or luck else ():
            if block is None:
                if luck is None or luck.random() < 0.5:
                    now[at:] = bytes(max(0, at - len(now)))
                continue
            for start in range(0, len(block), SECTOR):
                if luck is None or luck.random() < 0.5:
                    piece, place = block[start : start + SECTOR], at + start
                    now.extend(bytes(max(0, place - len(now))))
                    now[place : place + len(piece)] = piece
        return now


Name = tuple[str, str, "File | None"]
"""(what: link, unlink or folder; path; file)."""


class Disk:
    """Follows the calls below one folder."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._now: dict[str, File | None] = {}
        """None is a folder."""
        self._safe: dict[str, File | None] = {}
        self._pending: list[tuple[tuple[str, ...], list[Name]]] = []
        """(folders that are touched, changes that happen together)."""
        self._open: dict[int, str | File] = {}
        self.said: list[str] = []
        """Lines on standard output by now."""

    def follow(self, call: Call) -> bool:
        """Do what a call did; True where a power cut is worth looking at: something was said or flushed."""
        paths = [text.decode() for text in call.strings if text.startswith(self._root.encode())]
        if call.name == "write" and call.fd == 1:
            self.said.append(call.strings[0].decode().strip())
            return True
        if call.name in ("openat", "mkdir", "rename", "unlink"):
            if paths:
                getattr(self, f"_{call.name}")(call, *paths)
        elif call.name == "close":
            self._open.pop(call.fd, None)
        elif call.fd in self._open:
            return self._on_open(call, self._open[call.fd])
        return False

    def _change(self, *changes: Name) -> None:
        self._pending.append((tuple(str(Path(path).parent) for _, path, _ in changes), list(changes)))
        _apply(self._now, changes)

    def _openat(self, call: Call, path: str) -> None:
        if path.endswith(VOLATILE):
            return
        if "O_CREAT" in call.numbers and path not in self._now:
            self._change(("link", path, File()))
        found = self._now.get(path)
        self._open[call.result] = path if found is None else found

    def _mkdir(self, call: Call, path: str) -> None:
        self._change(("folder", path, None))

    def _unlink(self, call: Call, path: str) -> None:
        if path in self._now:
            self._change(("unlink", path, None))

    def _rename(self, call: Call, old: str, new: str) -> None:
        self._change(("unlink", old, None), ("link", new, self._now[old]))

    def _on_open(self, call: Call, target: str | File) -> bool:
        numbers = [int(text) for text in re.findall(r"(?<=, )\d+", call.numbers)]
        if call.name in ("fsync", "fdatasync"):
            if isinstance(target, File):
                target.flush()
            else:
                self._keep_names(target)
            return True
        assert isinstance(target, File), f"{call.name} of a folder"
        if call.name == "pwrite64":
            target.pending.append((numbers[-1], call.strings[0][: call.result]))
        elif call.name == "ftruncate":
            target.pending.append((numbers[-1], None))
        else:
            raise AssertionError(f"this disk cannot follow {call.name}")
        return False

    def _keep_names(self, folder: str) -> None:
        kept = [changes for touched, changes in self._pending if folder in touched]
        self._pending = [(touched, changes) for touched, changes in self._pending if folder not in touched]
        for changes in kept:
            _apply(self._safe, changes)

    def after_power_cut(self, to: Path, luck: Random | None) -> None:
        """Make the folder as it is when power comes back; without luck nothing is there that was not flushed."""
        names = dict(self._safe)
        kept = self._pending[: luck.randint(0, len(self._pending))] if luck else []
        for _, changes in kept:
            _apply(names, changes)
        to.mkdir(parents=True)
        for path in sorted(names):
            there = to / os.path.relpath(path, self._root)
            if not there.parent.is_dir():
                continue  # its folder's name is gone
            if (file := names[path]) is None:
                there.mkdir(exist_ok=True)
            else:
                there.write_bytes(file.content(luck, everything=False))


def _apply(names: dict[str, File | None], changes: list[Name] | tuple[Name, ...]) -> None:
    for what, path, file in changes:
        if what == "unlink":
            names.pop(path, None)
        else:
            names[path] = file
