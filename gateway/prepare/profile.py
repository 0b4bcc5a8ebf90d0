"""PS3.15 Table E.1-1 as data: what becomes of each attribute, by profile and options.

`profile.json` has one row an attribute with the codes of the standard, `safe_private.json` the private elements of
Table E.3.10-1 and their VR; of these OB, SQ and those without a VR are left out, since they can hold anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

CODES = {
    "basic": ("113100", "Basic Application Confidentiality Profile"),
    "clean-pixel-data": ("113101", "Clean Pixel Data Option"),
    "clean-structured-content": ("113104", "Clean Structured Content Option"),
    "clean-descriptors": ("113105", "Clean Descriptors Option"),
    "retain-longitudinal-full-dates": ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    "retain-longitudinal-modified-dates": ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    "retain-patient-characteristics": ("113108", "Retain Patient Characteristics Option"),
    "retain-device-identity": ("113109", "Retain Device Identity Option"),
    "retain-uids": ("113110", "Retain UIDs Option"),
    "retain-safe-private": ("113111", "Retain Safe Private Option"),
    "retain-institution-identity": ("113112", "Retain Institution Identity Option"),
}
"""By the name of an option: its code in CID 7050 (PS3.16), coding scheme DCM, and the code's meaning."""

STRUCTURAL = frozenset(
    (
        *(0x00080016, 0x0008001A, 0x0008001B, 0x00080062, 0x00081150, 0x0008115A, 0x30100052, 0x30100053),
        *(0x0008040E, 0x00083002, 0x00340003, 0x04000010, 0x04000510),
        *(0x0008010C, 0x00080117, 0x00080118),
    )
)
"""UIDs of SOP Classes, Transfer Syntaxes, and coding schemes with their context groups: they name no instance, and are
never replaced (PS3.15 E.3.9 note 4). Every other UID is replaced, also where the table has no row for it."""


class Action(Enum):
    """What is done to an attribute; the letters are those of PS3.15 E.1.1."""

    DUMMY = "D"
    EMPTY = "Z"
    REMOVE = "X"
    UID = "U"
    CLEAN = "C"
    KEEP = "K"


_BASIC = {
    "D": Action.DUMMY,
    "Z": Action.EMPTY,
    "X": Action.REMOVE,
    "U": Action.UID,
    # Which of these an IOD demands is not known here. The last one satisfies every type, and reveals no more.
    "Z/D": Action.DUMMY,
    "X/Z": Action.EMPTY,
    "X/D": Action.DUMMY,
    "X/Z/D": Action.DUMMY,
    "X/Z/U*": Action.CLEAN,  # a sequence of references: the UIDs in it are replaced
}


@dataclass(frozen=True, slots=True)
class Row:
    """What the chosen profile says of one attribute."""

    basic: Action
    """By the Basic Profile: what is done when the option cannot be followed."""
    action: Action
    """With the options."""


def _resource(name: str) -> Mapping[str, Mapping[str, object]]:
    content: Mapping[str, Mapping[str, object]] = json.loads(Path(__file__).with_name(name).read_text("utf-8"))
    return content


@cache
def edition() -> str:
    """Return the edition of the standard that the table is of."""
    return str(_resource("profile.json")["edition"])


@cache
def rows(options: frozenset[str]) -> Mapping[int, Row]:
    """Return, by tag, what these options make of the table; repeating groups and private elements are not in it.

    An option overrides the profile (PS3.15 E.1.1); of two options the one that cleans prevails over one that keeps.
    """
    found = {}
    for key, row in _resource("profile.json")["rows"].items():
        if not isinstance(row, dict) or key == "private" or "x" in key:
            continue
        basic = _BASIC[row["basic"]]
        codes = {code for option, code in row.items() if option in options}
        action = Action.CLEAN if "C" in codes else Action.KEEP if "K" in codes else basic
        found[int(key, 16)] = Row(basic, action)
    return found


@cache
def safe_private() -> Mapping[tuple[str, int], str]:
    """Return VR by private creator and tag, the block's number in the tag being zero (PS3.15 Table E.3.10-1)."""
    return {
        (creator, int(key.replace("x", "0"), 16)): str(vr)
        for creator, elements in _resource("safe_private.json").items()
        for key, vr in elements.items()
    }
