"""Which rendition serves a destination, and which tables a recipe names. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gateway.config.morph import MorphSettings
from gateway.config.schema import Settings
from gateway.model.errors import PrepareError
from gateway.model.transfer_syntax import EXPLICIT_LE, IMPLICIT_LE, LOSSLESS, LOSSY_METHODS, NATIVE

PREFERENCE = (EXPLICIT_LE, IMPLICIT_LE)
"""Explicit first: it keeps the VR of private elements."""
Stage = MorphSettings
"""A table that a recipe may name; `prepare/stages.py` says what each kind does."""


@dataclass(frozen=True, slots=True)
class Rendition:
    """A derived form of an instance: a bare data set in a file of its own."""

    path: Path
    transfer_syntax_uid: str
    sha256: str
    length: int
    sop_instance_uid: str
    """The UIDs that it has now: a recipe may have changed them."""
    study_instance_uid: str


def stages_of(settings: Settings, names: Iterable[str]) -> tuple[Stage, ...]:
    """Return the tables that a recipe names, in its order; raises PrepareError for a name that is no longer there."""
    tables = {table.name: table for table in settings.morph}
    missing = [name for name in names if name not in tables]
    if missing:
        raise PrepareError(f"the configuration has no recipe '{missing[0]}' any more")
    return tuple(tables[name] for name in names)


def target_syntax(source: str, accepted: frozenset[str], *, allow_decompress: bool = False) -> str | None:
    """Return the Transfer Syntax to re-encode into; None when no permitted way leads to what the peer takes.

    What a lossless syntax encapsulates may be decoded, a lossy image only with `allow_decompress`, video never.
    """
    if source not in NATIVE | LOSSLESS and not (allow_decompress and source in LOSSY_METHODS):
        return None
    return next((syntax for syntax in PREFERENCE if syntax in accepted and syntax != source), None)
