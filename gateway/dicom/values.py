"""What a value of each VR may look like (PS3.5 table 6.2-1, 6.2.1), judged before it is written. Pure.

Values are texts, numbers in decimal, one value at a time: a backslash separates values and is part of none, save where
the VR has only one.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable

MAX_CHARS = {"AE": 16, "CS": 16, "DS": 16, "IS": 12, "LO": 64, "LT": 10240, "SH": 16, "ST": 1024, "UI": 64}
MAX_GROUP_CHARS = 64
"""Of each component group of a PN."""
SINGLE_VALUED = frozenset({"LT", "ST", "UR", "UT"})
"""A backslash is a letter here (PS3.5 6.4)."""
PARAGRAPHS = frozenset({"LT", "ST", "UT"})
"""May hold line ends, form feeds and tabs."""
_BITS = {"S": 16, "L": 32, "V": 64}
INTEGERS = {f"{sign}{size}": (bits, sign == "S") for sign in "US" for size, bits in _BITS.items()}
"""VR -> bits, and whether it is signed."""
FLOATS = frozenset({"FL", "FD"})
MAX_FLOAT = 3.4028235e38
WRITABLE = frozenset(
    (*MAX_CHARS, "AS", "DA", "DT", "PN", "TM", "UC", "UR", "UT", *INTEGERS, *FLOATS),
)
"""VRs of which a value can be given as text."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_IN_TEXT = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")
_FORM = {
    "AE": (r"(?=.*[^ ])[\x20-\x5b\x5d-\x7e]+", "an AE title: letters of ASCII, not all of them spaces"),
    "AS": (r"\d{3}[DWMY]", "an age: three digits and one of D, W, M, Y"),
    "CS": (r"[A-Z0-9 _]+", "a code: capital letters, digits, spaces and underscores"),
    "DS": (r" *[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)? *", "a decimal number"),
    "DT": (
        r"\d{4}(\d\d(\d\d(\d\d(\d\d(\d\d(\.\d{1,6})?)?)?)?)?)?([+-]\d{4})?",
        "a date and time: YYYYMMDDHHMMSS.FFFFFF&ZZXX",
    ),
    "DA": (r"\d{8}", "a date: YYYYMMDD"),
    "IS": (r" *[+-]?\d+ *", "a whole number"),
    "TM": (r"\d\d(\d\d(\d\d(\.\d{1,6})?)?)?", "a time: HHMMSS.FFFFFF"),
    "UI": (r"(0|[1-9]\d*)(\.(0|[1-9]\d*))*", "a UID: numbers without leading zeros, points between them"),
    "UR": (r"[\x21-\x7e]+", "a URL: letters of ASCII without spaces"),
}


def value_fault(vr: str, value: str) -> str | None:
    """Return what is wrong with a value, as the rest of a sentence about it that does not repeat it; None: nothing.

    An empty value is never wrong: whether an attribute may be empty is its own affair.
    """
    if not value:
        return None
    if vr not in WRITABLE:
        return f"cannot be given as text: it is a {vr}"
    if "\\" in value and vr not in SINGLE_VALUED:
        return "holds a backslash, which separates values"
    if vr in INTEGERS:
        return _integer_fault(value, *INTEGERS[vr])
    if vr in FLOATS:
        return _float_fault(vr, value)
    if (_CONTROL_IN_TEXT if vr in PARAGRAPHS else _CONTROL).search(value):
        return "holds a control character"
    if len(value) > MAX_CHARS.get(vr, len(value)):
        return f"is longer than the {MAX_CHARS[vr]} characters that {vr} allows"
    form, words = _FORM.get(vr, ("", ""))
    if form and not re.fullmatch(form, value, re.ASCII):
        return f"is not {words}"
    check = _FURTHER.get(vr)
    return check(value) if check else None


def _integer_fault(value: str, bits: int, signed: bool) -> str | None:
    if not re.fullmatch(r"[+-]?\d{1,20}", value, re.ASCII):
        return "is not a whole number"
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return None if low <= int(value) <= high else f"does not lie between {low} and {high}"


def _float_fault(vr: str, value: str) -> str | None:
    try:
        number = float(value)
    except ValueError:
        return "is not a number"
    return "is too large for an FL" if vr == "FL" and MAX_FLOAT < abs(number) < float("inf") else None


def _is_fault(value: str) -> str | None:
    return None if -(1 << 31) <= int(value) < 1 << 31 else "does not fit in 32 bits"


def _da_fault(value: str) -> str | None:
    year, month, day = int(value[:4]), int(value[4:6]), int(value[6:])
    if year and 1 <= month <= 12 and 1 <= day <= monthrange(year, month)[1]:
        return None
    return "is not a day of the calendar"


def _tm_fault(value: str) -> str | None:
    parts = [int(part) for part in re.findall(r"\d\d", value.partition(".")[0])]
    return (
        None if all(part <= most for part, most in zip(parts, (23, 59, 60), strict=False)) else "is not a time of day"
    )


def _dt_fault(value: str) -> str | None:
    digits = re.split(r"[.+-]", value)[0]
    day = digits[:8] + "00000101"[len(digits[:8]) :]
    return _da_fault(day) or (_tm_fault(digits[8:]) if len(digits) > 8 else None)


def _pn_fault(value: str) -> str | None:
    groups = value.split("=")
    if len(groups) > 3:
        return "has more than three component groups"
    if any(len(group) > MAX_GROUP_CHARS for group in groups):
        return f"has a component group of more than {MAX_GROUP_CHARS} characters"
    return "has more than five components" if any(group.count("^") > 4 for group in groups) else None


_FURTHER: dict[str, Callable[[str], str | None]] = {
    "IS": _is_fault,
    "DA": _da_fault,
    "TM": _tm_fault,
    "DT": _dt_fault,
    "PN": _pn_fault,
}


def count_fault(multiplicity: str, count: int) -> str | None:
    """Return what is wrong with so many values where the dictionary has `multiplicity` ("1", "1-n", "2-2n", "1-3")."""
    most = multiplicity.rpartition("-")[2]
    if most.isdigit() and count > int(most):
        return f"takes no more than {most} value{'s' if most != '1' else ''}"
    return None
