"""Attributes as a rule names them: by keyword, or by group and element."""

from __future__ import annotations

import re
from functools import lru_cache

from gateway.config.checks import near

_NUMBER = re.compile(r"^\(?([0-9A-Fa-f]{4}),? ?([0-9A-Fa-f]{4})\)?$")
_UNREADABLE = frozenset({"AT", "OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UN"})


@lru_cache(maxsize=1024)
def known(name: str) -> tuple[int, str]:
    """Return (tag, VR by the data dictionary, "US or SS" where it depends, or ""); raises ValueError with a sentence.

    The dictionary takes longer to import than all else that a configuration needs, so it is imported here.
    """
    from pydicom.datadict import dictionary_VR, keyword_dict

    number = _NUMBER.match(name)
    tag = int("".join(number.groups()), 16) if number else keyword_dict.get(name)
    if tag is None:
        raise ValueError(f"no DICOM attribute is called '{name}'{near(name, list(keyword_dict))}")
    try:
        return int(tag), str(dictionary_VR(tag))
    except KeyError:
        return int(tag), ""


def element(name: str) -> tuple[int, str]:
    """Return (tag, VR by the data dictionary or "") of what a rule can read; raises ValueError with a sentence."""
    tag, vr = known(name)
    if tag >> 16 < 0x0008 or tag >> 16 >= 0x7FE0:
        raise ValueError(f"'{name}' does not stand in the beginning of a data set")
    vr = vr[:2]
    if vr in _UNREADABLE:
        raise ValueError(f"'{name}' is {'a sequence' if vr == 'SQ' else 'neither text nor a number'}")
    return tag, vr
