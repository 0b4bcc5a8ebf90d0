"""Operators' keys, Ed25519 (RFC 8032): the public half in the keyring of the boxes, the private half with its owner."""

from __future__ import annotations

import base64
import fcntl
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from pydantic import ValidationError

from gateway.identity.keyring import Key, load_keyring
from gateway.model.errors import IdentityError
from gateway.spool.files import fsync_directory, replace_file

HEAD = (
    "# Public keys whose commands a box obeys: `[mqtt] keyring_file`. Written by `fleet keys`; comments are not kept.\n"
)
SUFFIX = ".seq"


def make(kid: str, role: str, key_file: Path, keyring_file: Path, passphrase: bytes | None = None) -> Key:
    """Make a key pair: the private half into a new file for its owner alone, the public half into the keyring, which is
    made when there is none. Returns the public half; raises IdentityError, and nothing was changed then."""
    private = Ed25519PrivateKey.generate()
    raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    try:
        key = Key(kid=kid, role=role, public_key=base64.b64encode(raw).decode())
    except ValidationError as error:
        raise IdentityError(
            f"{kid!r} with role {role!r}: {error.errors()[0]['msg']}", hint="a kid is made of a-z, 0-9 and -"
        ) from None
    keys = load_keyring(keyring_file) if keyring_file.exists() else {}
    if kid in keys:
        raise IdentityError(f"{keyring_file} has a key {kid} already", hint="take another kid; an old one is revoked")
    secrecy = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    _write_secret(key_file, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secrecy))
    try:
        _write_keyring(keyring_file, [*keys.values(), key])
    except IdentityError:
        key_file.unlink()
        raise
    return key


def revoke(kid: str, keyring_file: Path) -> None:
    """Let no box that gets this keyring obey the key any more; raises IdentityError."""
    keys = load_keyring(keyring_file)
    if kid not in keys:
        raise IdentityError(f"{keyring_file} has no key {kid}", hint="`fleet keys list` shows which it has")
    _write_keyring(
        keyring_file, [key.model_copy(update={"revoked": True}) if key.kid == kid else key for key in keys.values()]
    )


def _write_secret(path: Path, content: bytes) -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fsync_directory(path.parent)
    except FileExistsError:
        raise IdentityError(f"{path} is there already", hint="a key is never overwritten: name another file") from None
    except OSError as error:
        raise IdentityError(f"{path} cannot be written: {error.strerror}") from error


def _write_keyring(path: Path, keys: Iterable[Key]) -> None:
    text = HEAD
    for key in keys:
        text += f'\n[[key]]\nkid = "{key.kid}"\nrole = "{key.role}"\npublic_key = "{key.public_key}"\n'
        text += "revoked = true\n" if key.revoked else ""
    try:
        if not path.exists():  # no secret: the service of a box is another user
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        replace_file(path, text)
    except OSError as error:
        raise IdentityError(f"{path} cannot be written: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One operator's private key; its file is named after its kid: `ops-1.key`."""

    kid: str
    path: Path
    _private: Ed25519PrivateKey

    @classmethod
    def load(cls, path: Path, passphrase: bytes | None = None) -> SigningKey:
        """Read a key; raises IdentityError."""
        try:
            if path.stat().st_mode & 0o077:
                raise IdentityError(f"{path} can be read by others than its owner", hint=f"chmod 600 {path}")
            content = path.read_bytes()
        except OSError as error:
            raise IdentityError(f"{path} cannot be read: {error.strerror}") from error
        try:
            private = load_pem_private_key(content, passphrase)
        except TypeError:
            needed = "needs a passphrase" if passphrase is None else "has no passphrase"
            raise IdentityError(f"{path} {needed}", hint="see --passphrase-file") from None
        except (ValueError, UnsupportedAlgorithm):
            blame = "the passphrase is wrong" if b"ENCRYPTED" in content else "it is no Ed25519 key in PEM"
            raise IdentityError(f"{path} cannot be used: {blame}", hint="`fleet keys make` makes one") from None
        if not isinstance(private, Ed25519PrivateKey):
            raise IdentityError(f"{path} is no Ed25519 key", hint="`fleet keys make` makes one")
        return cls(path.stem, path, private)

    def sign(self, message: bytes) -> bytes:
        """Return the signature over these very bytes."""
        return self._private.sign(message)

    def next_seq(self, now: float) -> int:
        """Return a number above all that this key has used, durable before it is used; raises IdentityError.

        Milliseconds since 1970 by `now`, or one more than the last: so a number file that is lost, or a second machine
        with the same key, does no harm while clocks are right, and a clock that is set back none while the file is
        there.
        """
        path = self.path.with_suffix(SUFFIX)
        try:
            with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                number = max(int(file.read(32) or b"0") + 1, int(now * 1000))
                file.seek(0)
                file.write(b"%016d\n" % number)  # of one length: never a mixture of two numbers' ends
                os.fsync(file.fileno())
        except ValueError:
            raise IdentityError(
                f"{path} holds no number",
                hint="remove it: the next number is taken from the clock, and is higher while the clock is right",
            ) from None
        except OSError as error:
            raise IdentityError(f"{path} cannot be written: {error.strerror}") from error
        return number
