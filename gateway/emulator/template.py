"""Attributes written down as data become a data set: keywords of PS3.6, text with {names} in it, nested sequences."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

PRIVATE = re.compile(r"([0-9A-F]{4}),([0-9A-F]{4}) ([A-Z]{2})")
"""An element by tag and VR, as "0009,1001 LO"."""
WHOLE = ("US", "SS", "UL", "SL", "UV", "SV")
FLOATING = ("FD", "FL")
BINARY = ("OB", "OW", "UN")


class Contour:
    """{contour:x y a b z}: points of an ellipse in the plane `z`, as Contour Data has them; millimetres."""

    POINTS = 40

    def __format__(self, spec: str) -> str:
        x, y, a, b, z = (float(part) for part in spec.split())
        angles = np.linspace(0, 2 * np.pi, self.POINTS, endpoint=False)
        points = [(x + a * np.cos(t), y + b * np.sin(t), z) for t in angles]
        return "\\".join(f"{value:.1f}" for point in points for value in point)


class Steps:
    """{steps:0 3.0}: 0, 3, 6, one for each frame."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __format__(self, spec: str) -> str:
        first, apart = (float(part) for part in spec.split())
        return "\\".join(f"{first + number * apart:g}" for number in range(self._count))


class Repeated:
    """{repeated:text}: the text, once for each frame."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __format__(self, spec: str) -> str:
        return "\\".join([spec] * self._count)


def fill(dataset: Dataset, table: Mapping[str, Any], names: Mapping[str, Any]) -> Dataset:
    """Add every attribute of `table`. In a list of tables, `repeat = n` makes n items, numbered {i} from 1, at {step}
    millimetres apart. Raises ValueError for what is no keyword."""
    for keyword, value in table.items():
        if keyword in ("repeat", "apart_mm"):
            continue
        private = PRIVATE.fullmatch(keyword)
        if private:
            tag, vr = Tag(int(private[1], 16), int(private[2], 16)), private[3]
        else:
            known = tag_for_keyword(keyword)
            if known is None:
                raise ValueError(f"{keyword} is no keyword of PS3.6")
            tag, vr = Tag(known), dictionary_VR(known)
        if vr == "SQ":
            dataset[tag] = DataElement(tag, vr, Sequence(_items(value, names)))
        else:
            vr = "US" if vr == "US or SS" else "OW" if "OW" in vr else vr
            dataset[tag] = DataElement(tag, vr, _value(value, vr, names))
    return dataset


def _items(tables: list[Mapping[str, Any]], names: Mapping[str, Any]) -> list[Dataset]:
    made = []
    for table in tables:
        for number in range(int(table.get("repeat", 1))):
            here = {**names, "i": number + 1, "step": round(number * float(table.get("apart_mm", 0)), 3)}
            made.append(fill(Dataset(), table, here if "repeat" in table else names))
    return made


def _value(value: Any, vr: str, names: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_value(one, vr, names) for one in value]
    if not isinstance(value, str):
        return value
    text = value.format_map(names) if "{" in value else value
    if vr in BINARY:
        return bytes.fromhex(text)
    if text == "":
        return None if vr in (*WHOLE, *FLOATING) else text
    parts: list[Any] = text.split("\\") if vr not in ("ST", "LT", "UT") else [text]
    if vr in WHOLE:
        parts = [int(float(part)) for part in parts]
    elif vr in FLOATING:
        parts = [float(part) for part in parts]
    elif vr == "AT":
        parts = [Tag(int(part, 16)) for part in parts]
    return parts if len(parts) > 1 else parts[0]
