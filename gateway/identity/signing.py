"""The key by which this box signs what it states: Ed25519 (RFC 8032), made at first use and never sent anywhere."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from gateway.model.errors import IdentityError

HINT = "restore the file from where it was kept, or remove it: then a new key is made, and its public half must be told"


class SigningKey:
    """Signs; its public half is for whoever verifies."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of the signature."""
        return self._key.sign(message)

    @property
    def public_pem(self) -> str:
        """The public half, PEM (SubjectPublicKeyInfo, RFC 8410)."""
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public half in DER, hex."""
        der = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(der).hexdigest()


def signing_key(path: Path) -> SigningKey:
    """Return the key in a file that only its owner may read; makes it, durably, when there is none.

    Raises IdentityError: a key that others could read proves nothing.
    """
    try:
        if not path.exists():
            _make(path)
        with open(path, "rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise IdentityError(f"{path} can be read by others than its owner", hint=HINT)
            key = load_pem_private_key(file.read(), None)
    except OSError as error:
        raise IdentityError(f"{path} cannot be used: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise IdentityError(f"{path} is no private key without a password, PEM", hint=HINT) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise IdentityError(f"{path} is no Ed25519 key", hint=HINT)
    return SigningKey(key)


def _make(path: Path) -> None:
    """Write a new key; of two that are made at once, one stays."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    part = path.with_name(f".{uuid4().hex}.part")
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)
        except FileExistsError:
            return
    finally:
        part.unlink(missing_ok=True)
    for folder in (path.parent, path.parent.parent):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
