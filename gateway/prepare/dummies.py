"""Values that say nothing, by VR (PS3.5 6.2): what action D of PS3.15 E.1.1 puts in place of a value."""

from __future__ import annotations

from typing import Any

TEXT = "REMOVED"
TEXTS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"})
INTEGERS = frozenset({"SL", "SS", "SV", "UL", "US", "UV", "AT"})
FLOATS = frozenset({"FD", "FL"})
BYTES = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_OTHERS: dict[str, str] = {
    "AS": "000Y",
    "DA": "19000101",
    "DS": "0",
    "DT": "19000101000000",
    "IS": "0",
    "TM": "000000",
    "UR": "http://removed.invalid",
}
KINDS: dict[str, str] = {
    **{vr: vr for vr in ("SQ", "UI", "PN", *_OTHERS)},
    **dict.fromkeys(BYTES, "bytes"),
    **dict.fromkeys(INTEGERS | FLOATS, "number"),
    **dict.fromkeys(("DS", "IS"), "number as text"),
    **dict.fromkeys(TEXTS - {"PN"}, "text"),
}
"""VRs of one kind may stand for each other in a data set that somebody wrote carelessly; others hide something: a text
that calls itself a date, or a name that calls itself a text, would be treated as what it is not."""


def dummy(vr: str, count: int) -> Any:
    """Return a dummy for a VR that is neither SQ nor UI; numbers as many as there were."""
    if vr in INTEGERS or vr in FLOATS or vr in ("DS", "IS"):
        one: Any = _OTHERS.get(vr, 0.0 if vr in FLOATS else 0)
        return one if count < 2 else [one] * count
    if vr in BYTES:
        return bytes(8)  # a multiple of every word
    return _OTHERS.get(vr, TEXT)
