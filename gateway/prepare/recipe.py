"""Which rendition serves a destination. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gateway.model.transfer_syntax import EXPLICIT_LE, IMPLICIT_LE, LOSSLESS, LOSSY_METHODS, NATIVE

PREFERENCE = (EXPLICIT_LE, IMPLICIT_LE)
"""Explicit first: it keeps the VR of private elements."""


@dataclass(frozen=True, slots=True)
class Rendition:
    """A derived form of an instance: a bare data set in a file of its own."""

    path: Path
    transfer_syntax_uid: str
    sha256: str
    length: int


def target_syntax(source: str, accepted: frozenset[str], *, allow_decompress: bool = False) -> str | None:
    """Return the Transfer Syntax to re-encode into; None when no permitted way leads to what the peer takes.

    What a lossless syntax encapsulates may be decoded, a lossy image only with `allow_decompress`, video never.
    """
    if source not in NATIVE | LOSSLESS and not (allow_decompress and source in LOSSY_METHODS):
        return None
    return next((syntax for syntax in PREFERENCE if syntax in accepted and syntax != source), None)
