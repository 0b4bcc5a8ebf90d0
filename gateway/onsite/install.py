"""Takes a parcel as a whole or not at all, whenever the power goes.

It is gathered and examined in `.incoming.part`, flushed, and renamed to `.incoming`: from then on it is taken. What
lies there is moved into place file by file, and moved on by the next start where that was cut short. The service starts
only after that.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.config.load import load
from gateway.config.schema import Settings
from gateway.identity.device import CERTIFICATE, KEY, belongs, make_key, own_certificate
from gateway.identity.keyring import load_keyring
from gateway.identity.tls import client_context, server_context
from gateway.model.errors import ConfigError, GatewayError, IdentityError
from gateway.onsite.folder import NAME, NETWORK, Parcel
from gateway.onsite.network import load_network
from gateway.spool.files import fsync_directory, write_file

PART, INCOMING, RECORD = ".incoming.part", ".incoming", ".provisioned.json"
MODE = 0o640
"""The service reads by its group; the folder hands that group on (setgid)."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a parcel."""

    settings: Settings
    changed: bool
    """False: this very parcel was taken from there before."""


def ensure_key(home: Path) -> bytes:
    """Return the key of this box, PEM, made and made durable when there is none; raises OSError."""
    path = home / KEY
    if not path.exists():
        part = home / f".{KEY}.part"
        write_file(part, make_key(), MODE)
        part.rename(path)
        fsync_directory(home)
    key = _had(path)
    if key is None:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return key


def finish(home: Path) -> bool:
    """Move what was taken into place; return whether there was something. Raises OSError."""
    incoming = home / INCOMING
    if incoming.is_symlink() or not incoming.is_dir():
        return False
    with _opened(incoming) as folder:
        names = [entry.name for entry in os.scandir(folder)]
        for name in sorted(names, key=lambda name: (name == RECORD, name == NAME, name)):
            os.replace(name, home / name, src_dir_fd=folder)
    fsync_directory(home)
    incoming.rmdir()
    fsync_directory(home)
    return True


def take(parcel: Parcel, home: Path, source: str, *, again: bool = False) -> Taken:
    """Put a parcel in force, or raise ConfigError with all problems and leave everything as it was.

    `source` names where it came from: what came from there before is not taken again, since a better one may have
    come by another way meanwhile; `again` takes it all the same. Raises OSError when the box's own disk fails.
    """
    key = ensure_key(home)
    finish(home)
    known = _record(home)
    before = known.get(source, {})
    if not again and all(before.get(name) == digest for name, digest in parcel.digests.items()):
        return Taken(load(home / NAME).settings, changed=False)
    part = home / PART
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o700)
    with _opened(part) as folder:
        _gather(parcel, home, folder, key)
        settings = examine(part)
        known[source] = {**before, **parcel.digests}
        write_file(RECORD, json.dumps(known).encode(), MODE, folder)
        os.fsync(folder)
    part.rename(home / INCOMING)
    fsync_directory(home)
    finish(home)
    return Taken(settings, changed=True)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """A folder of ours, held open: what the service puts in its place meanwhile is not written to, nor moved."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "is not ours", str(folder))
        yield fd
    finally:
        os.close(fd)


def _gather(parcel: Parcel, home: Path, folder: int, key: bytes) -> None:
    """Write the parcel, and beside it what the box has already, so that both can be examined as one."""
    if KEY in parcel.files:
        raise ConfigError(f"{KEY} is made on the box and never leaves it", hint=f"take {KEY} out of the folder")
    brought = parcel.files.get(CERTIFICATE)
    if brought is not None and not belongs(brought, key):
        raise ConfigError(
            f"{CERTIFICATE} does not belong to the key of this box", hint="have the device.csr of this box signed"
        )
    had = {name: _had(home / name) for name in (*parcel.named, CERTIFICATE, KEY)}
    contents = {name: content for name, content in had.items() if content is not None} | parcel.files
    contents.setdefault(CERTIFICATE, own_certificate(key, _id(parcel.text)))
    for name, content in {**contents, NAME: parcel.text.encode()}.items():
        write_file(name, content, MODE, folder)


def _id(text: str) -> str:
    """Return the box's name for a certificate, before anything is known to be right."""
    try:
        found = tomllib.loads(text)["gateway"]["id"]
    except (tomllib.TOMLDecodeError, RecursionError, KeyError, TypeError):
        return "gateway"
    return found if isinstance(found, str) and re.fullmatch(r"[a-z0-9-]{1,63}", found) else "gateway"


def examine(folder: Path) -> Settings:
    """Return the settings of a folder that can be used in every part; raises ConfigError with all problems."""
    try:
        settings = load(folder / NAME).settings
        if (folder / NETWORK).exists():
            load_network(folder / NETWORK)
    except ConfigError as error:
        raise ConfigError(error.detail.replace(f"{folder}/", ""), hint=error.hint) from error
    problems = []
    try:
        if settings.mqtt and settings.mqtt.keyring_file:
            load_keyring(settings.mqtt.keyring_file)
    except IdentityError as error:
        problems.append(_sentence(error))
    for listener in settings.listener:
        if listener.tls:
            problems += _attempt(server_context, listener.tls)
    for table in (*settings.destination, *([settings.mqtt] if settings.mqtt else [])):
        tls = getattr(table, "tls", None)
        if tls:
            problems += _attempt(client_context, tls)
    if problems:
        text = "\n".join(f"  {problem}" for problem in sorted(set(problems))).replace(f"{folder}/", "")
        raise ConfigError(f"what {NAME} names cannot be used\n{text}")
    return settings


def _attempt(build: Any, tls: Any) -> list[str]:
    try:
        build(tls)
    except IdentityError as error:
        return [_sentence(error)]
    return []


def _sentence(error: GatewayError) -> str:
    return error.detail + (f" ({error.hint})" if error.hint else "")


def installed(home: Path, parcel: Parcel) -> bool:
    """True when the box has every secret of the parcel, so that the folder need not keep it."""
    return all(hashlib.sha256(_had(home / name) or b"").hexdigest() == parcel.digests[name] for name in parcel.secrets)


def _record(home: Path) -> dict[str, dict[str, str]]:
    try:
        found = json.loads((home / RECORD).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _had(path: Path) -> bytes | None:
    """Return a file that the box has; no link: the service may lay one here, and root must not read for it."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
            return file.read()
    except OSError:
        return None
