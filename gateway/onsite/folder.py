"""What lies in a folder `CONFIG`: a configuration and the files that it names.

An engineer fills it on any system, so that names in capitals, a byte order mark, and lines that end in CR LF are fine.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from gateway.model.errors import ConfigError
from gateway.spool.files import fsync_directory

CONFIG, NAME, NETWORK, RESULT = "CONFIG", "gateway.toml", "network.toml", "result.txt"
MAX_BYTES = 1 << 20
PUBLIC = ("ca_file", "cert_file", "keyring_file")
"""What every other `*_file` holds is a secret."""
PRIVATE_KEY = b"PRIVATE KEY"


@dataclass(frozen=True, slots=True)
class Parcel:
    """What was found; nothing of it is judged yet."""

    folder: Path
    text: str
    """The configuration, with plain line ends."""
    files: dict[str, bytes]
    """What else it names and the folder holds."""
    named: frozenset[str]
    """All that it names beside itself; what is not here may be on the box."""
    secrets: frozenset[str]
    """Those of `files` that must not stay in the folder."""

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 by name, hex."""
        contents = {NAME: self.text.encode(), **self.files}
        return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def holds_configuration(folder: Path) -> bool:
    """True when there is something to take, or something that was meant to be."""
    return _named(folder, NAME) is not None or _named(folder, NAME + ".txt") is not None


def read(folder: Path) -> Parcel:
    """Return what a folder holds; raises ConfigError in an engineer's words."""
    path = _named(folder, NAME)
    if path is None:
        if _named(folder, NAME + ".txt"):
            raise ConfigError(f"the file is called {NAME}.txt", hint=f"rename it to {NAME}, without .txt")
        raise ConfigError(f"there is no {NAME} in {folder.name}", hint="make one with `dicom-gateway provision FOLDER`")
    text = _text(path)
    files: dict[str, bytes] = {}
    named, secrets = {NETWORK}, set()
    network = _named(folder, NETWORK)
    if network is not None:
        files[NETWORK] = _text(network).encode()
    for key, name in _files_named(text):
        if not _plain(name):
            raise ConfigError(
                f"{key} = {name!r} is no plain file name", hint=f"put the file beside {NAME}, and give its name alone"
            )
        named.add(name)
        found = _named(folder, name)
        if found is not None:
            files[name] = _content(found)
            if key not in PUBLIC or PRIVATE_KEY in files[name]:
                secrets.add(name)
    return Parcel(folder, text, files, frozenset(named), frozenset(secrets))


def remove_secrets(parcel: Parcel) -> None:
    """Overwrite and delete them; raises OSError. Flash may keep the old blocks: secrets should serve one box only."""
    gone = parcel.folder / "secret.gone"
    _wipe(gone)
    for name in parcel.secrets:
        path = _named(parcel.folder, name)
        if path is None:
            continue
        path.replace(gone)  # first: half overwritten, it must not be taken for a new secret after a power cut
        fsync_directory(parcel.folder)
        _wipe(gone)


def _wipe(path: Path) -> None:
    if path.exists():
        with open(path, "r+b") as file:
            file.write(bytes(path.stat().st_size))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()


def answer(folder: Path, text: str) -> None:
    """Write `result.txt` for whoever looks at the folder on a laptop; raises OSError."""
    part = folder / "result.new"
    with open(part, "w", encoding="utf-8", newline="\r\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / RESULT)
    fsync_directory(folder)


def _plain(name: str) -> bool:
    """A name in the folder itself; an absolute path names a file of the box, which is not ours to bring."""
    path = PurePosixPath(name)
    return len(path.parts) == 1 and "\\" not in name and name not in (".", "..") and not name.startswith(".")


def _files_named(text: str) -> Iterator[tuple[str, str]]:
    """Yield key and value of every `*_file` that is not an absolute path; nothing when the text is not TOML."""
    try:
        raw = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return
    waiting: list[Any] = [raw]
    while waiting:
        table = waiting.pop()
        if isinstance(table, list):
            waiting += table
        elif isinstance(table, dict):
            for key, value in table.items():
                if isinstance(value, (dict, list)):
                    waiting.append(value)
                elif key.endswith("_file") and isinstance(value, str) and not value.startswith("/"):
                    yield key, value


def _named(folder: Path, name: str) -> Path | None:
    """Find a file whatever the case of its letters: FAT does not tell them apart."""
    try:
        found = [path for path in folder.iterdir() if path.name.lower() == name.lower() and _own(path)]
    except OSError:
        return None
    return min(found, default=None)


def _own(path: Path) -> bool:
    """A file, and no link to one of the box."""
    return path.is_file() and not path.is_symlink()


def _text(path: Path) -> str:
    try:
        return _content(path).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name} is not UTF-8 text", hint="save it as UTF-8") from error


def _content(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be read: {error.strerror}", hint="copy it anew") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path.name} is longer than {MAX_BYTES} bytes", hint="is it the right file?")
    return content
