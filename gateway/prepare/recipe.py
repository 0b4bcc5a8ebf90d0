"""Which rendition serves a destination. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gateway.model.transfer_syntax import EXPLICIT_LE, IMPLICIT_LE, LOSSLESS, NATIVE

PREFERENCE = (EXPLICIT_LE, IMPLICIT_LE)
"""Explicit first: it keeps the VR of private elements."""


@dataclass(frozen=True, slots=True)
class Rendition:
    """A derived form of an instance: a bare data set in a file of its own."""

    path: Path
    transfer_syntax_uid: str
    sha256: str
    length: int


def target_syntax(source: str, accepted: frozenset[str]) -> str | None:
    """Return the Transfer Syntax to re-encode into; None when no exact way leads to what the peer takes.

    Pixels that a lossless syntax encapsulates are decoded to Explicit VR only; lossy ones are never decoded.
    """
    if source in LOSSLESS:
        return EXPLICIT_LE if EXPLICIT_LE in accepted else None
    if source not in NATIVE:
        return None
    return next((syntax for syntax in PREFERENCE if syntax in accepted and syntax != source), None)
