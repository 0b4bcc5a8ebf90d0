"""`[[morph]]`: how attributes are changed on the way to a destination. Checked here as far as a file can be checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from re import _parser  # type: ignore[attr-defined]  # the only reading of a template that cannot differ from `re`'s
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from gateway.config.base import Name, Table
from gateway.config.regex import compiled
from gateway.config.tags import known
from gateway.dicom.values import WRITABLE, count_fault, value_fault

MAX_CHANGES = 200
_STEP = re.compile(r"^([^\[\]]+?)(?:\[(\d{1,5})\])?$")
_SEPARATOR = re.compile(r"\.(?=[A-Za-z(]|[0-9A-Fa-f]{4},)")

FIXED = {
    **dict.fromkeys((0x00080005,), "is changed with the letters of the values, not by hand"),
    **dict.fromkeys((0x00080016, 0x00080018), "names the object in everybody's custody"),
    **dict.fromkeys((0x04000561, 0x04000550), "is the record of changes"),
    **dict.fromkeys(
        (
            *(0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280009, 0x00280010, 0x00280011, 0x00280034),
            *(0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00280106, 0x00280107, 0x00280120, 0x00280121),
            *(0x00281101, 0x00281102, 0x00281103, 0x00281201, 0x00281202, 0x00281203),
            *(0x00281221, 0x00281222, 0x00281223, 0x00282110, 0x00282112, 0x00282114, 0x00287FE0),
        ),
        "describes the pixels",
    ),
}
"""Tag -> why no recipe may touch it."""
NEVER_EMPTY = frozenset({0x0020000D, 0x0020000E})
"""Study and Series Instance UID may be changed, but without them an object belongs nowhere."""


@dataclass(frozen=True, slots=True)
class Step:
    """One element on the way to an attribute."""

    tag: int
    item: int | None
    """Which item of a sequence, counted from 0; None: all of them, or an attribute."""


@dataclass(frozen=True, slots=True)
class TagPath:
    """An attribute, perhaps within sequences."""

    steps: tuple[Step, ...]
    vr: str
    """By the data dictionary; "" where it does not say, "US or SS" where it depends."""

    @property
    def tag(self) -> int:
        """The attribute's own."""
        return self.steps[-1].tag


@lru_cache(maxsize=1024)
def tag_path(text: str) -> TagPath:
    """Read "PatientID", "0010,0020", "RequestAttributesSequence[0].StudyID"; raises ValueError with a sentence."""
    steps, vr = [], ""
    names = _SEPARATOR.split(text)
    for number, name in enumerate(names, 1):
        match = _STEP.match(name)
        if match is None:
            raise ValueError(f"'{name}' is neither a keyword nor group,element")
        tag, vr = known(match[1])
        item = match[2]
        if number < len(names) and vr not in ("SQ", ""):
            raise ValueError(f"'{match[1]}' is no sequence")
        if number == len(names) and item is not None:
            raise ValueError("ends with an item; name an attribute in it")
        steps.append(Step(tag, None if item is None else int(item)))
    return TagPath(tuple(steps), vr)


def _texts(value: object) -> object:
    """Take one value or a list of them, numbers as they are written."""
    values = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(one, bool) or not isinstance(one, int | float | str) for one in values):
        raise ValueError("must be a text or a number, or a list of them")
    return tuple(str(one) for one in values)


Texts = Annotated[tuple[str, ...], BeforeValidator(_texts, json_schema_input_type=str | float | list[str | float])]
Regex = Annotated[re.Pattern[str], BeforeValidator(compiled)]


class ChangeSettings(Table):
    """`[[morph.change]]`: one operation on one attribute, after those before it.

    An attribute in a sequence is changed in every item, or in the item whose number is given; items are never made.
    """

    tag: str = Field(
        description='Keyword ("PatientID"), or group and element ("0010,0020"), in sequences with points: '
        '"RequestAttributesSequence.ScheduledProcedureStepID", or "RequestAttributesSequence[0].…" for its first item.'
    )
    set: Texts | None = Field(None, description='The new value, or a list of values; "" empties the attribute.')
    remove: bool | None = Field(None, description="true: the attribute goes; a sequence with all that is in it.")
    copy_from: str | None = Field(
        None, description="The values of this attribute, from the first item that has any; without them, no change."
    )
    prefix: str | None = Field(None, min_length=1, description="Put before each value that is not empty.")
    map: dict[str, str] | None = Field(None, min_length=1, description="From each value to its new one.")
    default: str | None = Field(None, description="With map: the new value for what is not in it; absent: as it is.")
    match: Regex | None = Field(None, description="With replace: a regular expression, wherever it is found.")
    replace: str | None = Field(None, description=r"With match: what stands there instead; \1 is the first group.")

    @field_validator("tag", "copy_from")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        if value is not None:
            tag_path(value)
        return value

    @property
    def path(self) -> TagPath:
        """Where `tag` leads."""
        return tag_path(self.tag)

    @model_validator(mode="after")
    def _one_operation(self) -> ChangeSettings:
        asked = [self.set, self.remove, self.copy_from, self.prefix, self.map, self.match]
        if sum(operation is not None for operation in asked) != 1:
            raise ValueError("give exactly one of set, remove, copy_from, prefix, map, match")
        if self.remove is False:
            raise ValueError("remove is true or absent")
        if self.default is not None and self.map is None:
            raise ValueError("default goes with map")
        if (self.replace is None) != (self.match is None):
            raise ValueError("match and replace go together")
        if self.match is not None and self.replace is not None:
            _check_template(self.match, self.replace)
        self._check_attribute()
        self._check_literals()
        return self

    def _check_attribute(self) -> None:
        path = self.path
        for step in path.steps:
            _check_allowed(step.tag, self.tag)
        if self.remove:
            if path.tag in NEVER_EMPTY:
                raise ValueError(f"'{self.tag}' may be changed, not removed")
            return
        if path.vr and path.vr not in WRITABLE:
            raise ValueError(f"'{self.tag}' {_unwritable(path.vr)}")
        if self.copy_from is not None:
            source = tag_path(self.copy_from)
            if source.vr and source.vr not in WRITABLE:
                raise ValueError(f"'{self.copy_from}' {_unwritable(source.vr)}")

    def _check_literals(self) -> None:
        """Values that no instance can make right are wrong in the file (PS3.5 6.2)."""
        path = self.path
        given = [*(self.set or ()), *(self.map or {}).values(), *([self.default] if self.default is not None else [])]
        if path.tag in NEVER_EMPTY and (not all(given) or self.set == ()):
            raise ValueError(f"'{self.tag}' may not be empty")
        for value in given if path.vr else []:
            fault = value_fault(path.vr, value)
            if fault:
                raise ValueError(f"'{value}' {fault}")
        fault = value_fault(path.vr, self.prefix or "") if path.vr in _PREFIXABLE else None
        if fault:
            raise ValueError(f"'{self.prefix}' {fault}")
        if self.set is not None and path.vr:
            from pydicom.datadict import dictionary_VM

            fault = count_fault(str(dictionary_VM(path.tag)), len(self.set))
            if fault:
                raise ValueError(f"'{self.tag}' {fault}")


_PREFIXABLE = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"})
"""Before what is left of such a value a part of one may stand; of the others the whole counts."""


def _check_allowed(tag: int, name: str) -> None:
    group, element = tag >> 16, tag & 0xFFFF
    if group < 0x0008:
        raise ValueError(f"'{name}' does not belong to a data set")
    if element == 0 or tag == 0x00080001:
        raise ValueError(f"'{name}' is a length, which follows by itself")
    if tag in FIXED:
        raise ValueError(f"'{name}' {FIXED[tag]}")
    if group in (0x7FE0, 0xFFFC, 0xFFFE):
        raise ValueError(f"'{name}' belongs to the pixels, or to the syntax")


def _unwritable(vr: str) -> str:
    if vr == "SQ":
        return "is a sequence: name an attribute in it"
    return "has no VR of its own, it follows the pixels" if " " in vr else f"is a {vr}, neither text nor a number"


def _check_template(expression: re.Pattern[str], template: str) -> None:
    try:
        _parser.parse_template(template, expression)
    except (re.error, IndexError) as error:
        raise ValueError(f"replace cannot be used with match: {error}") from None


class MorphSettings(Table):
    """`[[morph]]`: changes that a route names by `morph = ["name"]`; each application is recorded in the object itself,
    in Original Attributes Sequence (PS3.3 C.12.1).
    """

    name: Name = Field(description="How routes name it.")
    change: list[ChangeSettings] = Field(
        min_length=1, max_length=MAX_CHANGES, description="The operations, in the order of the file."
    )
    source: Annotated[str, StringConstraints(max_length=64)] | None = Field(
        None,
        description="Source of Previous Values (0400,0564), as the institution; absent: the sender's AE title.",
    )
    reason: Literal["COERCE", "CORRECT"] = Field(
        "COERCE",
        description="Reason for the Attribute Modification (0400,0565): COERCE to fit in with this site, CORRECT what "
        "is wrong.",
    )

    @field_validator("source")
    @classmethod
    def _a_long_string(cls, value: str | None) -> str | None:
        fault = value_fault("LO", value or "")
        if fault:
            raise ValueError(fault)
        return value


def change_in_words(change: ChangeSettings) -> str:
    """Say what an operation does: "PatientID with 'A-' before it"."""
    words: dict[str, Any] = {
        "set": lambda: f"set to {', '.join(map(_quoted, change.set or ()))}",
        "remove": lambda: "removed",
        "copy_from": lambda: f"copied from {change.copy_from}",
        "prefix": lambda: f"with {_quoted(change.prefix)} before it",
        "map": lambda: _map_in_words(change),
        "match": lambda: f"with {_quoted(change.replace)} for {_quoted(change.match and change.match.pattern)}",
    }
    done = next(name for name in words if getattr(change, name) is not None)
    return f"{change.tag} {words[done]()}"


def _map_in_words(change: ChangeSettings) -> str:
    other = "as it is" if change.default is None else _quoted(change.default)
    pairs = ", ".join(f"{_quoted(old)} to {_quoted(new)}" for old, new in (change.map or {}).items())
    return f"by a table ({pairs}, else {other})"


def _quoted(text: str | None) -> str:
    return f"'{text}'"
