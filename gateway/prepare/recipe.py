"""Which rendition serves a destination, and which tables a recipe names. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gateway.config.deidentify import DeidentifySettings
from gateway.config.morph import MorphSettings
from gateway.config.schema import Settings
from gateway.dicom.values import value_fault
from gateway.model.errors import PrepareError
from gateway.model.instance import SOPInstance
from gateway.model.transfer_syntax import EXPLICIT_LE, IMPLICIT_LE, LOSSLESS, LOSSY_METHODS, NATIVE

PREFERENCE = (EXPLICIT_LE, IMPLICIT_LE)
"""Explicit first: it keeps the VR of private elements."""
Stage = MorphSettings | DeidentifySettings
"""A table that a recipe may name; `prepare/stages.py` says what each kind does."""


@dataclass(frozen=True, slots=True)
class Occasion:
    """What is recorded with a change, whatever the change."""

    source: str
    """Source of Previous Values (0400,0564), unless the recipe names one: the sender's AE title."""
    modifying_system: str
    """Modifying System (0400,0563): this box's id."""
    at: float
    """Seconds since 1970. That the instance came, not that it is sent: a second attempt must yield the same bytes."""


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


@dataclass(frozen=True, slots=True)
class Difference:
    """One attribute that a recipe leaves otherwise than it was, for people."""

    tag: str
    """(gggg,eeee)"""
    name: str
    """Its keyword, or its number, behind those of the sequences around it."""
    before: str | None
    """Its values, backslashes between them; None: it was not there."""
    after: str | None
    """The same; None: it is gone."""


def stages_of(settings: Settings, names: Iterable[str]) -> tuple[Stage, ...]:
    """Return the tables that a recipe names, in its order; raises PrepareError for a name that is no longer there."""
    tables: dict[str, Stage] = {morph.name: morph for morph in settings.morph}
    tables |= {deidentify.name: deidentify for deidentify in settings.deidentify}
    missing = [name for name in names if name not in tables]
    if missing:
        raise PrepareError(f"the configuration has no recipe '{missing[0]}' any more")
    return tuple(tables[name] for name in names)


def occasion_of(settings: Settings, instance: SOPInstance) -> Occasion:
    """Return what is to be recorded with a change of this instance."""
    source = instance.origin.calling_ae_title.strip()
    usable = source.isascii() and value_fault("LO", source) is None
    return Occasion(source if usable else "", settings.gateway.id, instance.received_at)


def target_syntax(source: str, accepted: frozenset[str], *, allow_decompress: bool = False) -> str | None:
    """Return the Transfer Syntax to re-encode into; None when no permitted way leads to what the peer takes.

    What a lossless syntax encapsulates may be decoded, a lossy image only with `allow_decompress`, video never.
    """
    if source not in NATIVE | LOSSLESS and not (allow_decompress and source in LOSSY_METHODS):
        return None
    return next((syntax for syntax in PREFERENCE if syntax in accepted and syntax != source), None)
