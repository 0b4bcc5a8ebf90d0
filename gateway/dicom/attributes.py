"""Values of chosen attributes as text, from the first bytes of a data set: what rules about tags look at.

Decoded by Specific Character Set (PS3.3 C.12.1.1.2), bounded like the header scanner, and as forgiving: bytes that
cannot be decoded are read as Latin-1, what is not text or number is not seen.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from gateway.dicom.part10 import MAX_VALUE_BYTES, RawValue, scan_elements
from gateway.model.transfer_syntax import is_big_endian

SPECIFIC_CHARACTER_SET = 0x00080005
TEXT_VRS = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"})
"""Always in the default repertoire (PS3.5 6.1.2.3)."""
ENCODED_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
"""Of a PN, empty components at the end say nothing (PS3.5 6.2.1), and are not seen."""
NUMBER_VRS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
"""VR -> format of `struct`."""
READABLE_VRS = TEXT_VRS | ENCODED_VRS | NUMBER_VRS.keys()
_ESCAPE = b"\x1b"
_DELIMITERS = {ord("\\"), ord("^"), ord("=")}


def attribute_values(prefix: bytes, transfer_syntax_uid: str, wanted: Mapping[int, str]) -> dict[int, str]:
    """Return tag -> text of those of `wanted` (tag -> VR by the dictionary) that are seen, without padding.

    Several values stay joined by backslashes. Never raises for what the bytes say.
    """
    found, _ = scan_elements(prefix, transfer_syntax_uid, {SPECIFIC_CHARACTER_SET, *wanted})
    character_set = found.get(SPECIFIC_CHARACTER_SET, RawValue(b"", 0, b"")).content.decode("latin-1")
    order = ">" if is_big_endian(transfer_syntax_uid) else "<"
    values = {}
    for tag, dictionary_vr in wanted.items():
        raw = found.get(tag)
        if raw is None or len(raw.content) < min(raw.length, MAX_VALUE_BYTES):
            continue  # half a value is none
        vr = raw.vr.decode("latin-1") if raw.vr not in (b"", b"UN") else dictionary_vr or "LO"
        text = _as_text(raw, vr, order, character_set)
        if text is not None:
            values[tag] = text
    return values


def _as_text(raw: RawValue, vr: str, order: str, character_set: str) -> str | None:
    content = raw.content
    if vr in NUMBER_VRS:
        size = struct.calcsize(NUMBER_VRS[vr])
        count = len(content) // size
        numbers = struct.unpack_from(f"{order}{count}{NUMBER_VRS[vr]}", content)
        return "\\".join(f"{number:.7g}" if vr == "FL" else str(number) for number in numbers)
    if vr in ENCODED_VRS:
        halves = "ignore" if raw.length > len(content) else "strict"  # a cut may go through the last character
        return _decoded(content, character_set, halves).strip("\0 ").rstrip("^=" if vr == "PN" else "")
    if vr in TEXT_VRS:
        return content.decode("latin-1").strip("\0 ")
    return None


def _decoded(content: bytes, character_set: str, errors: str) -> str:
    if content.isascii() and _ESCAPE not in content:
        return content.decode("ascii")
    from pydicom.charset import decode_bytes, python_encoding  # slow to import, and seldom needed

    encodings = [python_encoding.get(term.strip("\0 "), "latin-1") for term in character_set.split("\\")]
    try:
        if _ESCAPE in content:
            return str(decode_bytes(content, encodings, _DELIMITERS))
        return content.decode(encodings[0], errors)
    except (UnicodeError, LookupError):
        return content.decode("latin-1")
