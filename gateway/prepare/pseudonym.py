"""Names, UIDs and date offsets that a keyed hash makes: the same for the same key, on any day and on any box.

A hash without a key could be reversed by trying all Patient IDs of a hospital (PS3.15 E.1.1, note on hashes).
"""

from __future__ import annotations

import base64
import hmac
from pathlib import Path

from gateway.config.deidentify import key_fault
from gateway.model.errors import ConfigError

MAX_OFFSET_DAYS = 3652
"""Ten years: enough that a date says nothing, and dates stay in the century of the equipment."""
_TOKEN_BYTES = 10
"""80 bits: a million patients share a token once in 10^12 boxes; 16 letters in base 32."""


def is_uid(value: str) -> bool:
    """Whether this has a UID's digits and dots alone (PS3.5 9.1)."""
    return all(letter in "0123456789." for letter in value.strip(" \0"))


class Pseudonyms:
    """What the key makes of an identity. Holds the key, and shows it to nobody."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def from_file(cls, path: Path) -> Pseudonyms:
        """Read the key, once; raises ConfigError when it cannot be used."""
        fault = key_fault(path)
        try:
            key = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"the key {path} cannot be read: {error.strerror}") from error
        if fault:
            raise ConfigError(fault)
        return cls(key)

    def __repr__(self) -> str:
        return "Pseudonyms(…)"

    def uid(self, uid: str) -> str:
        """Return the UID that replaces this one: 2.25. and a UUID (PS3.5 B.2) of version 8 (RFC 9562 5.8)."""
        number = int.from_bytes(self._hash(b"uid", uid.strip(" \0"))[:16])
        number = number & ~(0xF << 76) | 8 << 76
        number = number & ~(3 << 62) | 2 << 62
        return f"2.25.{number}"

    def patient(self, patient_id: str, issuer: str) -> str:
        """Return 16 letters and digits that stand for this patient."""
        return base64.b32encode(self._hash(b"patient", patient_id, issuer)[:_TOKEN_BYTES]).decode()

    def days_back(self, patient_id: str, issuer: str) -> int:
        """Return by how many days this patient's dates move into the past: 1 to `MAX_OFFSET_DAYS`."""
        return 1 + int.from_bytes(self._hash(b"days", patient_id, issuer)[:8]) % MAX_OFFSET_DAYS

    def _hash(self, purpose: bytes, *values: str) -> bytes:
        """HMAC-SHA256; the length before each value keeps ("AB", "C") apart from ("A", "BC")."""
        message = [purpose]
        for value in values:
            encoded = value.encode("utf-8", "surrogatepass")
            message += [len(encoded).to_bytes(8), encoded]
        return hmac.digest(self._key, b"".join(message), "sha256")
