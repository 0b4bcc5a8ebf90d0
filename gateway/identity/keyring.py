"""Whose commands this box obeys: public keys in a TOML file that came with the box, never by the network."""

from __future__ import annotations

import base64
import os
import stat
import tomllib
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import Field, ValidationError

from gateway.config.base import Name, Table
from gateway.model.errors import IdentityError

MAX_BYTES = 65536
ROLES = ("viewer", "operator", "admin")
"""Each may do what those before it may."""


class Key(Table):
    """`[[key]]`: one public key."""

    kid: Name = Field(description="How envelopes name the key.")
    role: Literal["viewer", "operator", "admin"] = Field(description="What it may command.")
    public_key: str = Field(description="Ed25519 public key: its 32 bytes in Base64 (RFC 8032).")
    revoked: bool = Field(False, description="true: never again.")

    def signed(self, message: bytes, signature: bytes) -> bool:
        """True when the owner of the key signed these very bytes."""
        try:
            raw = base64.b64decode(self.public_key, validate=True)
            Ed25519PublicKey.from_public_bytes(raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    def may(self, role: str) -> bool:
        """True when the key's role is this one or above it."""
        return ROLES.index(self.role) >= ROLES.index(role)


class _Keyring(Table):
    key: list[Key] = Field([], max_length=256, description="The keys.")


def load_keyring(path: Path) -> dict[str, Key]:
    """Return the keys by kid; raises IdentityError: a file that others may write proves nothing."""
    try:
        with open(path, "rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o022:
                raise IdentityError(f"{path} can be written by others than its owner", hint=f"chmod go-w {path}")
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise IdentityError(f"{path} cannot be read: {error.strerror}") from error
    try:
        if len(content) > MAX_BYTES:
            raise ValueError("too long")
        keys = _Keyring.model_validate(tomllib.loads(content.decode())).key
        if any(len(base64.b64decode(key.public_key, validate=True)) != 32 for key in keys):
            raise ValueError("a public_key is not 32 bytes in Base64")
        if len({key.kid for key in keys}) != len(keys):
            raise ValueError("a kid is there twice")
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise IdentityError(f"{path} is no keyring: {where}: {error.errors()[0]['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise IdentityError(f"{path} is no keyring: {error}") from error
    return {key.kid: key for key in keys}
