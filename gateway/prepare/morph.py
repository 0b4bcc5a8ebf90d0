"""One `[[morph]]` applied to a data set: its operations, and the record of them in Original Attributes Sequence.

A value that its VR does not allow, or that cannot be read, ends the whole: an object changed by half is none. What goes
wrong is said by tag, never by value.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VM
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag
from pydicom.valuerep import VR

from gateway.config.morph import NEVER_EMPTY, ChangeSettings, MorphSettings, Step, TagPath, tag_path
from gateway.dicom.values import FLOATS, INTEGERS, WRITABLE, count_fault, value_fault
from gateway.model.errors import PrepareError
from gateway.prepare.character_set import texts_of
from gateway.prepare.recipe import Occasion

ORIGINAL_ATTRIBUTES = 0x04000561
MAX_MATCHED_CHARS = 1024
"""`config/regex.py` counts the ways over a short value; over a book a worker would take its whole time."""


def morph(dataset: Dataset, settings: MorphSettings, occasion: Occasion) -> None:
    """Change a data set in place; raises PrepareError when an operation cannot be done as the standard asks."""
    before: dict[int, RawDataElement | DataElement | None] = {}
    changed: set[int] = set()
    for change in settings.change:
        top = change.path.steps[0].tag
        before.setdefault(top, _snapshot(dataset, top))
        for holder in list(_holders(dataset, change.path.steps)):
            if _operate(holder, change, dataset):
                changed.add(top)
    there = {tag: before[tag] for tag in sorted(changed) if before[tag] is not None or tag in dataset}
    if there:
        _record(dataset, there, settings, occasion)


def _snapshot(dataset: Dataset, tag: int) -> RawDataElement | DataElement | None:
    """Return an element so that what happens to it later does not show."""
    element = dataset.get_item(tag) if tag in dataset else None
    return element if element is None or isinstance(element, RawDataElement) else copy.deepcopy(element)


def _holders(dataset: Dataset, steps: Sequence[Step]) -> Iterator[Dataset]:
    """Yield the data set, or the items, in which the last step's attribute stands or would stand."""
    if len(steps) == 1:
        yield dataset
        return
    first = steps[0]
    if first.tag not in dataset:
        return
    element = dataset[first.tag]
    if element.VR != VR.SQ:
        raise PrepareError(f"{element.tag} is no sequence")
    items = list(element.value)
    for item in items if first.item is None else items[first.item : first.item + 1]:
        yield from _holders(item, steps[1:])


def _operate(holder: Dataset, change: ChangeSettings, dataset: Dataset) -> bool:
    """Do one operation in one place; return whether anything changed."""
    tag = BaseTag(change.path.tag)
    if change.remove:
        if tag not in holder:
            return False
        del holder[tag]
        return True
    vr = _vr_of(holder, change.path)
    old = _old_texts(holder, tag, change)
    new = _new_texts(old, change, dataset)
    if new is None or (new == old and tag in holder):
        return False
    _check(new, vr, change, len(old or ()))
    holder[tag] = DataElement(tag, vr, _value_of(new, vr), validation_mode=IGNORE)
    return True


def _vr_of(holder: Dataset, path: TagPath) -> str:
    """Return the VR that the attribute has, or is to have."""
    vr = holder.get_item(path.tag).VR if path.tag in holder else None
    vr = path.vr if vr in (None, VR.UN) else str(vr)
    if vr not in WRITABLE:
        raise PrepareError(f"{BaseTag(path.tag)} has no VR of which a value could be given")
    return vr


def _old_texts(holder: Dataset, tag: BaseTag, change: ChangeSettings) -> list[str] | None:
    """Return the values that are there, None when the attribute is not; what is replaced need not be readable."""
    if tag not in holder:
        return None
    try:
        return _texts(holder, tag)
    except (ValueError, Warning):
        if change.set is None and change.copy_from is None:
            raise
        return []


def _texts(holder: Dataset, tag: int) -> list[str]:
    element = holder[tag]
    if element.VR not in WRITABLE:
        raise PrepareError(f"{element.tag} is neither text nor a number")
    return list(texts_of(element))


def _new_texts(old: list[str] | None, change: ChangeSettings, dataset: Dataset) -> list[str] | None:
    """Return what the values become; None: nothing is to be done."""
    if change.set is not None:
        return [] if change.set in ((), ("",)) else list(change.set)
    if change.copy_from is not None:
        return _copied(dataset, tag_path(change.copy_from))
    if old is None:
        return None
    if change.prefix is not None:
        return [change.prefix + value if value else value for value in old]
    if change.map is not None:
        return _mapped(old or [""], change)
    return [_replaced(value, change) for value in old]


def _copied(dataset: Dataset, source: TagPath) -> list[str] | None:
    for holder in _holders(dataset, source.steps):
        values = _texts(holder, source.tag) if source.tag in holder else []
        if any(values):
            return values
    return None


def _mapped(old: list[str], change: ChangeSettings) -> list[str]:
    table = change.map or {}
    new = [table.get(value.strip(), value if change.default is None else change.default) for value in old]
    return [] if new == [""] else new


def _replaced(value: str, change: ChangeSettings) -> str:
    if len(value) > MAX_MATCHED_CHARS:
        raise PrepareError(f"a value of {change.tag} is too long for a regular expression")
    return change.match.sub(change.replace or "", value) if change.match is not None else value


def _check(values: list[str], vr: str, change: ChangeSettings, before: int) -> None:
    """Raises PrepareError for what the VR does not allow (PS3.5 6.2), and for more values than belong there; as many as
    `before` are not our doing."""
    faults = [value_fault(vr, value) for value in values]
    fault = next(filter(None, faults), None)
    if fault:
        raise PrepareError(f"a value of {change.tag} {fault}")
    tag = change.path.tag
    if tag in NEVER_EMPTY and not any(values):
        raise PrepareError(f"{change.tag} may not be empty")
    if change.path.vr and len(values) > before:
        fault = count_fault(str(dictionary_VM(tag)), len(values))
        if fault:
            raise PrepareError(f"{change.tag} {fault}")


def _value_of(texts: list[str], vr: str) -> object:
    if vr in INTEGERS:
        values: list[object] = [int(text) for text in texts if text]
    elif vr in FLOATS:
        values = [float(text) for text in texts if text]
    else:
        values = list(texts)
    return values if len(values) > 1 else values[0] if values else None


def _record(
    dataset: Dataset,
    before: dict[int, RawDataElement | DataElement | None],
    settings: MorphSettings,
    occasion: Occasion,
) -> None:
    """Add an item with the previous values (PS3.3 C.12.1.1.9); what was not there before is there without a value.

    A change of Specific Character Set is not told: in an item it would say how the item is spelled.
    """
    modified = Dataset()
    for tag, element in before.items():
        modified[tag] = DataElement(tag, dataset[tag].VR, None) if element is None else element
    # Private creators last (PS3.5 7.8.1): with them there pydicom would read what follows, in no character set.
    for creator in {tag & 0xFFFF0000 | tag >> 8 & 0xFF for tag in before if tag >> 16 & 1 and tag & 0xFFFF > 0xFF}:
        if creator in dataset:
            modified[creator] = dataset.get_item(creator)
    item = Dataset()
    item.SourceOfPreviousValues = settings.source if settings.source is not None else occasion.source
    item.AttributeModificationDateTime = datetime.fromtimestamp(occasion.at, UTC).strftime("%Y%m%d%H%M%S.%f+0000")
    item.ModifyingSystem = occasion.modifying_system
    item.ReasonForTheAttributeModification = settings.reason
    item.ModifiedAttributesSequence = Items([modified])
    if ORIGINAL_ATTRIBUTES in dataset and dataset[ORIGINAL_ATTRIBUTES].VR == VR.SQ:
        dataset[ORIGINAL_ATTRIBUTES].value.append(item)
    else:
        dataset[ORIGINAL_ATTRIBUTES] = DataElement(ORIGINAL_ATTRIBUTES, VR.SQ, Items([item]))
