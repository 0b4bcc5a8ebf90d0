"""What differs between two data sets, attribute by attribute, for people."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.valuerep import VR

from gateway.prepare.character_set import texts_of
from gateway.prepare.recipe import Difference


def differences(before: Dataset, after: Dataset, around: str = "") -> Iterator[Difference]:
    """Yield what differs, in the order of the tags, items of sequences compared by their place."""
    for tag in sorted({*before.keys(), *after.keys()}):
        if tag in before and tag in after and before.get_item(tag) is after.get_item(tag):
            continue
        old, new = (_element(dataset, tag) for dataset in (before, after))
        name = around + (keyword_for_tag(tag) or str(tag))
        if (old is None or old.VR == VR.SQ) and (new is None or new.VR == VR.SQ):
            yield from _between_items(_items(old), _items(new), name)
        elif (was := _text(old)) != (now := _text(new)):
            yield Difference(str(BaseTag(tag)), name, was, now)


def _between_items(old: list[Dataset], new: list[Dataset], name: str) -> Iterator[Difference]:
    for index in range(max(len(old), len(new))):
        was, now = (items[index] if index < len(items) else Dataset() for items in (old, new))
        yield from differences(was, now, f"{name}[{index}].")


def _element(dataset: Dataset, tag: BaseTag) -> DataElement | None:
    """Return an element, by its bytes where its value cannot be read; None when it is not there."""
    if tag not in dataset:
        return None
    try:
        return dataset[tag]
    except (ValueError, NotImplementedError):
        return DataElement(tag, VR.UN, dataset.get_item(tag).value)


def _items(element: DataElement | None) -> list[Dataset]:
    return [] if element is None else list(element.value)


def _text(element: DataElement | None) -> str | None:
    if element is None:
        return None
    if isinstance(element.value, bytes):
        return f"{len(element.value)} bytes"
    return "\\".join(_items_text(element))


def _items_text(element: DataElement) -> list[str]:
    return ["a sequence"] if element.VR == VR.SQ else list(texts_of(element))
