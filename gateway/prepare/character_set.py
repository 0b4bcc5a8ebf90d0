"""Specific Character Set (PS3.3 C.12.1.1.2, PS3.5 6.1): whether a text fits in, and going over to ISO_IR 192.

A data set that goes over is decoded as it says, or not at all: no letter is guessed.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pydicom import config
from pydicom.charset import convert_encodings, decode_bytes, default_encoding, encode_string
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.valuerep import TEXT_VR_DELIMS, VR

from gateway.dicom.attributes import ENCODED_VRS, SPECIFIC_CHARACTER_SET
from gateway.model.errors import PrepareError

UNICODE = "ISO_IR 192"
_ESCAPE = b"\x1b"
Terms = tuple[str, ...]
"""The values of Specific Character Set."""


@contextmanager
def quietly() -> Iterator[None]:
    """Let pydicom say nothing: its warnings, which it also logs, quote values."""
    log, mode = logging.getLogger("pydicom"), config.settings.reading_validation_mode
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.disabled, config.settings.reading_validation_mode = True, config.IGNORE
        try:
            yield
        finally:
            log.disabled, config.settings.reading_validation_mode = False, mode


@contextmanager
def strictly() -> Iterator[None]:
    """Take letters that cannot be decoded for errors, where pydicom would put others in their place; else be quiet."""
    with quietly():
        for start in ("Failed to decode", "Found unknown escape"):
            warnings.filterwarnings("error", message=start)
        yield


def terms_of(element: DataElement | RawDataElement | None, inherited: Terms) -> Terms:
    """Return what a (0008,0005) says; without one what holds outside of the item (PS3.5 7.5.3)."""
    if element is None:
        return inherited
    value = element.value or ""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    values = value.split("\\") if isinstance(value, str) else value
    return tuple(str(one).strip("\0 ") for one in values)


def level_terms(dataset: Dataset, inherited: Terms) -> Terms:
    """Return the character sets of a data set, or of an item."""
    present = SPECIFIC_CHARACTER_SET in dataset
    return terms_of(dataset.get_item(SPECIFIC_CHARACTER_SET) if present else None, inherited)


def encodings_of(terms: Terms) -> list[str]:
    """Return Python's names of the character sets, the default repertoire for what is not known."""
    return list(convert_encodings(list(terms)))


def _certain(terms: Terms) -> list[str]:
    """The same without what is not said: pydicom takes the default repertoire for Latin-1, but it is ASCII."""
    return ["ascii" if encoding == default_encoding else encoding for encoding in encodings_of(terms)]


def expressible(text: str, terms: Terms) -> bool:
    """True when the character sets have every letter of a text."""
    if text.isascii():
        return True
    try:
        with strictly():
            encodings = _certain(terms)
            parts = text.replace("=", "^").replace("\\", "^").split("^")
            return all(
                decode_bytes(encode_string(part, encodings), encodings, TEXT_VR_DELIMS) == part for part in parts
            )
    except (ValueError, LookupError, Warning):
        return False


def go_over(dataset: Dataset, inherited: Terms = ()) -> None:
    """Decode every text, of items too, and declare ISO_IR 192; raises PrepareError when one is not clean."""
    try:
        with strictly():
            _decode(dataset, inherited)
    except (ValueError, LookupError, Warning) as error:
        raise PrepareError("there are letters that its Specific Character Set does not explain") from error
    dataset[SPECIFIC_CHARACTER_SET] = DataElement(SPECIFIC_CHARACTER_SET, VR.CS, UNICODE)


def _decode(dataset: Dataset, inherited: Terms) -> None:
    terms = level_terms(dataset, inherited)
    for tag in list(dataset.keys()):
        element = dataset.get_item(tag)
        if isinstance(element, RawDataElement):
            element = _decoded(element, dataset, terms)
            if element is None:
                continue
            dataset[tag] = element
        if element.VR == VR.SQ:
            for item in element.value:
                _decode(item, terms)
                if SPECIFIC_CHARACTER_SET in item:
                    item[SPECIFIC_CHARACTER_SET] = DataElement(SPECIFIC_CHARACTER_SET, VR.CS, UNICODE)


def _decoded(raw: RawDataElement, dataset: Dataset, terms: Terms) -> DataElement | None:
    """Return a sequence, or a text that is spelled otherwise in ISO_IR 192; None: the bytes stay."""
    value = raw.value or b""
    if raw.tag == SPECIFIC_CHARACTER_SET or (value.isascii() and _ESCAPE not in value):
        return None
    element = convert_raw_data_element(raw, encoding=encodings_of(terms), ds=dataset)
    if element.VR in ENCODED_VRS:
        _check(value, terms)
    return element if element.VR in ENCODED_VRS or element.VR == VR.SQ else None


def _check(value: bytes, terms: Terms) -> None:
    decode_bytes(value, _certain(terms), TEXT_VR_DELIMS)


def texts_of(element: DataElement) -> Sequence[str]:
    """Return the values of an element as texts."""
    if element.is_empty:
        return []
    values = [element.value] if element.VM == 1 else element.value
    return [str(value) for value in values]
