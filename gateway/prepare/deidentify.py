"""De-identification of a data set by the Basic Application Level Confidentiality Profile (PS3.15 E.2) and its options.

What the table leaves open is decided for the patient: what cannot be understood is removed, of several permitted
actions the one that fits every IOD is taken, and what cannot be made safe here raises PrepareError. So beside the
table's rows: dates, times, names and instance UIDs are found by their VR wherever they stand (E.1.1 note 4), and texts
of content items; curves and overlays go as whole groups; unknown attributes, VRs that hide another, numbers with
letters and pixels in items go.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from functools import lru_cache

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from gateway import __version__
from gateway.config.deidentify import DeidentifySettings
from gateway.dicom.part10 import MAX_DEPTH
from gateway.model.errors import PrepareError
from gateway.prepare.dates import age, is_age, is_time, is_zone, moved_date, moved_datetime
from gateway.prepare.dummies import KINDS, TEXTS, dummy
from gateway.prepare.profile import CODES, STRUCTURAL, Action, Row, edition, rows, safe_private
from gateway.prepare.pseudonym import Pseudonyms, is_uid

PATIENT_NAME, PATIENT_ID, ISSUER, PATIENT_AGE = 0x00100010, 0x00100020, 0x00100021, 0x00101010
BIRTH_DATE, STUDY_INSTANCE_UID, TIMEZONE = 0x00100030, 0x0020000D, 0x00080201
STUDY_DATES = (0x00080020, 0x00080022, 0x00080021, 0x00080023)
"""Study, Acquisition, Series and Content Date: the first that is there says how old the patient was."""
BURNED_IN, ROWS = 0x00280301, 0x00280010
CURVES, OVERLAYS, PIXELS = 0x5000, 0x6000, 0x7FE0
ENTANGLED = frozenset((0x04000500, 0x00080300, 0x4FFE0001))
"""Others' encrypted identities, descriptions of private elements, parameters of signatures: nothing without what the
profile removes."""
TEXT_VALUE = 0x0040A160
"""Free text of a content item (PS3.3 C.17.3.2.3): the table replaces it with its sequence, we do wherever it stands."""
SHAPE = frozenset(
    (
        *(0x0040A010, 0x0040A040, 0x0040A050, 0x0040DB73, 0x0040A130, 0x00081160),
        *(0x00700003, 0x00700004, 0x00700005, 0x00700020, 0x00700021, 0x00700023, 0x00700024, 0x00700015),
    )
)
"""What makes a content tree or a graphic readable and says nothing: relationship and value type, kinds, counts."""
WELL_KNOWN = "1.2.840.10008."
"""UIDs of the standard itself (PS3.6 Annex A), such as the well-known frames of reference."""
DATES: dict[str, Callable[[str, int], str | None]] = {"DA": moved_date, "DT": moved_datetime}
TEMPORAL = frozenset({*DATES, "TM"})
FORMS: dict[str, Callable[[str], bool]] = {"TM": is_time, "AS": is_age, "UI": is_uid}
"""What is kept must be what its VR says, and so can hold nothing else."""
_NUMBERS = re.compile(rb"[\d+\-.,eE\\ \0]*")
_WORDS = re.compile(r"[\W_]+")
_UNREADABLE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, NotImplementedError, TypeError, ValueError),
    struct.error,
)
"""What pydicom raises when a value is not of its VR."""
Identity = tuple[str, str]
"""Patient ID and its issuer."""


def deidentify(dataset: Dataset, settings: DeidentifySettings, pseudonyms: Pseudonyms) -> None:
    """De-identify a data set in place. File Meta Information, preamble and Pixel Data are the caller's.

    A text that an option cleans keeps only the allowed words, and where none is left the Basic Profile is followed;
    `clean-structured-content` keeps codes, numbers and references of a report, no text or name. `clean-pixel-data` is
    recorded here: that `blacken` was done is the caller's promise. Raises PrepareError, and the data set must not be
    used, when the pixels may show what it no longer says: Burned In Annotation is YES without `clean-pixel-data`, or
    an overlay stands in unused bits of the pixels.
    """
    _doubt_pixels(dataset, settings)
    try:
        _Deidentifier(dataset, settings, pseudonyms).run()
    except RecursionError as error:
        raise PrepareError("sequences nested too deeply") from error


def _doubt_pixels(dataset: Dataset, settings: DeidentifySettings) -> None:
    if "clean-pixel-data" not in settings.options and text_of(dataset, BURNED_IN).upper() == "YES":
        raise PrepareError("text is burned in to the pixels: the option clean-pixel-data has rules for that")
    for group in {tag.group for tag in dataset.keys() if tag.group & 0xFF01 == OVERLAYS}:  # noqa: SIM118
        bits, position = (text_of(dataset, group << 16 | element) for element in (0x0100, 0x0102))
        if group << 16 | 0x3000 not in dataset and (bits not in ("", "1") or position not in ("", "0")):
            raise PrepareError("an overlay stands in unused bits of the pixels")


def text_of(dataset: Dataset, tag: int) -> str:
    """Return an attribute's values as text, joined by backslashes; "" when it is not there or cannot be read."""
    element = _element(dataset, tag) if tag in dataset else None
    if element is None or element.value is None:
        return ""
    return "\\".join(str(value) for value in _values(element)).strip(" \0")


def _element(dataset: Dataset, tag: int) -> DataElement | None:
    try:
        return dataset[tag]
    except _UNREADABLE:
        return None


def _values(element: DataElement) -> list[object]:
    value = element.value
    return list(value) if isinstance(value, MultiValue | list) else [] if value is None else [value]


@lru_cache(maxsize=4096)
def _known_vrs(tag: int) -> tuple[str, ...]:
    """Return the VRs that the data dictionary gives the attribute; none when it does not know it."""
    try:
        return tuple(dictionary_VR(tag).split(" or "))
    except KeyError:
        return ()


class _Deidentifier:
    """One pass over one data set."""

    def __init__(self, dataset: Dataset, settings: DeidentifySettings, pseudonyms: Pseudonyms) -> None:
        self._dataset = dataset
        self._pseudonyms = pseudonyms
        self._options = frozenset(settings.options)
        self._rows = rows(self._options)
        self._prefix = settings.patient_id_prefix
        self._words = frozenset(word.casefold() for word in settings.allowed_words)
        self._safe: dict[tuple[str, int], str | None] = {}
        if "retain-safe-private" in self._options:
            self._safe |= safe_private()
            for entry in settings.safe_private:
                for name in entry.elements:
                    self._safe[entry.creator.strip(), int(name.replace(",", "").lower().replace("x", "0"), 16)] = None
        # Without a Patient ID, each study is a patient of its own: strangers must not become one.
        patient_id, issuer = text_of(dataset, PATIENT_ID), text_of(dataset, ISSUER)
        self._patient: Identity = (patient_id or text_of(dataset, STUDY_INSTANCE_UID), issuer)
        shifts = "retain-longitudinal-modified-dates" in self._options
        self._days = -pseudonyms.days_back(*self._patient) if shifts else 0

    def run(self) -> None:
        known_age = self._age()
        self._clean(self._dataset, self._patient, 0, dummies=False)
        if known_age:
            self._dataset.add_new(PATIENT_AGE, "AS", known_age)
        self._mark()

    def _age(self) -> str:
        """Return the age that the option retains where only the date of birth, which goes, would tell it."""
        if "retain-patient-characteristics" not in self._options or text_of(self._dataset, PATIENT_AGE):
            return ""
        then = next(filter(None, (text_of(self._dataset, tag) for tag in STUDY_DATES)), "")
        return age(text_of(self._dataset, BIRTH_DATE), then)

    def _mark(self) -> None:
        """Say what was done (PS3.15 E.1.1 item 6, E.3.1, E.3.6)."""
        dataset, options = self._dataset, self._options
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = [f"DICOM edge gateway {__version__}"[:64], f"PS3.15 {edition()} Table E.1-1"]
        codes = []
        for name, (code, meaning) in CODES.items():
            if name == "basic" or name in options:
                item = Dataset()
                item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "DCM", meaning
                codes.append(item)
        dataset.DeidentificationMethodCodeSequence = Sequence(codes)
        full, moved = "retain-longitudinal-full-dates" in options, "retain-longitudinal-modified-dates" in options
        dataset.LongitudinalTemporalInformationModified = "UNMODIFIED" if full else "MODIFIED" if moved else "REMOVED"
        if "clean-pixel-data" in options and ROWS in dataset:
            dataset.BurnedInAnnotation = "NO"

    def _clean(self, item: Dataset, patient: Identity, depth: int, *, dummies: bool) -> None:
        """Apply the profile to a data set or an item; `dummies`: the item's sequence is replaced with all it holds."""
        if depth > MAX_DEPTH:
            raise PrepareError("sequences nested too deeply")
        if depth and (own := text_of(item, PATIENT_ID)):
            patient = (own, text_of(item, ISSUER))
        safe = frozenset() if dummies else self._safe_tags(item)
        for tag in list(item.keys()):
            vr = None if self._goes(tag, depth) or (tag.is_private and tag not in safe) else self._vr(item, tag)
            if vr is None:
                del item[tag]
            elif tag.is_private and tag.is_private_creator:
                continue
            elif dummies:
                self._replace(item, tag, vr, patient, depth)
            else:
                self._apply(item, tag, vr, patient, depth)

    @staticmethod
    def _goes(tag: BaseTag, depth: int) -> bool:
        group = tag.group
        return (
            group < 0x0008  # of commands, files and directories, hidden in a data set
            or tag.element == 0x0000  # group lengths would be wrong
            or group & 0xFF01 in (CURVES, OVERLAYS)
            or (group == PIXELS and depth > 0)
            or int(tag) in ENTANGLED
        )

    def _safe_tags(self, item: Dataset) -> frozenset[int]:
        """Return the private elements that may stay, and the creators that define them (PS3.15 E.3.10)."""
        found: set[int] = set()
        for tag in list(item.keys()) if self._safe else []:
            if not tag.is_private or tag.element < 0x1000:
                continue
            creator_tag = tag.group << 16 | tag.element >> 8
            key = (text_of(item, creator_tag), tag.group << 16 | tag.element & 0xFF)
            element = _element(item, tag) if key in self._safe else None
            if element is None or element.VR in ("UN", "PN") or self._safe[key] not in (None, element.VR):
                continue
            found |= {int(tag), creator_tag}
        return frozenset(found)

    def _vr(self, item: Dataset, tag: BaseTag) -> str | None:
        """Return the VR of an element that may be looked at further; None: nobody knows what is in it."""
        raw, known = item.get_item(tag), _known_vrs(int(tag))
        vr: str | None = raw.VR
        if vr == "UN" or (vr is None and not known):
            element = _element(item, tag)
            vr = None if element is None or element.VR == "UN" else str(element.VR)
        elif vr is None:
            vr = known[0]
        if vr is None or (known and KINDS.get(vr) not in {KINDS.get(other) for other in known}):
            return None
        if vr in ("DS", "IS") and isinstance(raw, RawDataElement) and not _NUMBERS.fullmatch(raw.value or b""):
            return None
        return vr if vr in KINDS else None

    def _row(self, tag: BaseTag, vr: str) -> Row | None:
        """Return what the profile says; None: the attribute stays."""
        number = int(tag)
        if number in self._rows:
            return self._rows[number]
        if number == TEXT_VALUE:
            return Row(Action.DUMMY, Action.DUMMY)
        if not tag.is_private and not _known_vrs(number):
            return Row(Action.REMOVE, Action.REMOVE)
        if vr in TEMPORAL:
            kept = {"retain-longitudinal-full-dates", "retain-longitudinal-modified-dates"} & self._options
            return Row(Action.REMOVE, Action.CLEAN if kept else Action.REMOVE)
        if vr == "PN":
            return Row(Action.EMPTY, Action.EMPTY)
        if vr == "UI" and number not in STRUCTURAL:
            return Row(Action.UID, Action.KEEP if "retain-uids" in self._options else Action.UID)
        return None

    def _apply(self, item: Dataset, tag: BaseTag, vr: str, patient: Identity, depth: int) -> None:
        row = self._row(tag, vr)
        if int(tag) in (PATIENT_NAME, PATIENT_ID):
            item.add_new(tag, vr, self._pseudonym(patient))
        elif row is None or row.action in (Action.KEEP, Action.CLEAN):
            if vr == "SQ":
                self._items(item, tag, patient, depth, dummies=False)
            elif row is not None and not self._stays(item, tag, vr, row):
                self._obey(row.basic, item, tag, vr, patient, depth)
        else:
            self._obey(row.action, item, tag, vr, patient, depth)

    def _stays(self, item: Dataset, tag: BaseTag, vr: str, row: Row) -> bool:
        """Keep or clean a value as an option wants it; False when it cannot be done."""
        is_one = is_zone if int(tag) == TIMEZONE else FORMS.get(vr)
        if is_one is None and vr not in DATES:
            return row.action is Action.KEEP or self._keep_words(item, tag, vr)
        element = _element(item, tag)
        if element is None:
            return False
        values = [str(value) for value in _values(element)]
        if is_one is not None:
            return all(map(is_one, values))
        moved = [DATES[vr](value, self._days) for value in values]
        if None in moved:
            return False
        if self._days:
            item.add_new(tag, vr, moved)
        return True

    def _keep_words(self, item: Dataset, tag: BaseTag, vr: str) -> bool:
        element = _element(item, tag) if vr in TEXTS else None
        if element is None:
            return False
        kept = []
        for value in _values(element):
            words = [word for word in _WORDS.split(str(value)) if word.casefold() in self._words]
            kept += [" ".join(words)] if words else []
        if kept:
            item.add_new(tag, vr, kept)
        return bool(kept)

    def _obey(self, action: Action, item: Dataset, tag: BaseTag, vr: str, patient: Identity, depth: int) -> None:
        if action is Action.REMOVE:
            del item[tag]
        elif action is Action.DUMMY:
            self._replace(item, tag, vr, patient, depth)
        elif vr == "UI" and action is Action.UID:
            self._new_uids(item, tag)
        elif action is Action.CLEAN and vr == "SQ":
            self._items(item, tag, patient, depth, dummies=False)
        else:
            item.add_new(tag, vr, Sequence() if vr == "SQ" else None)

    def _replace(self, item: Dataset, tag: BaseTag, vr: str, patient: Identity, depth: int) -> None:
        """Put a dummy, or dummies in all items (PS3.15 E.1.1: action D applies to a sequence and its contents)."""
        number, row = int(tag), self._row(tag, vr)
        if number in SHAPE or (vr == "UI" and (row is None or row.action is Action.KEEP)):
            return
        if row is not None and row.basic is Action.REMOVE:
            del item[tag]
        elif vr == "SQ":
            self._items(item, tag, patient, depth, dummies=True)
        elif vr == "UI":
            self._new_uids(item, tag)
        else:
            element = _element(item, tag)
            item.add_new(tag, vr, dummy(vr, 1 if element is None else element.VM))

    def _items(self, item: Dataset, tag: BaseTag, patient: Identity, depth: int, *, dummies: bool) -> None:
        element = _element(item, tag)
        if element is None or not isinstance(element.value, Sequence):
            del item[tag]
            return
        for inner in element.value:
            self._clean(inner, patient, depth + 1, dummies=dummies)

    def _new_uids(self, item: Dataset, tag: BaseTag) -> None:
        element = _element(item, tag)
        uids = [] if element is None else [str(value) for value in _values(element)]
        item.add_new(tag, "UI", [self._uid(uid) for uid in uids])

    def _uid(self, uid: str) -> str:
        return uid if not uid or uid.startswith(WELL_KNOWN) else self._pseudonyms.uid(uid)

    def _pseudonym(self, patient: Identity) -> str:
        return self._prefix + self._pseudonyms.patient(*patient)
