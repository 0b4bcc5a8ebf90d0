"""The table is the standard's: counts and rows are compared with what others read from PS3.15."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import get_args

import pydicom
import pytest
from dicomanonymizer.dicom_anonymization_databases import dicomfields_2024b, dicomfields_2026c
from pydicom._private_dict import private_dictionaries
from pydicom.sr.codedict import codes

import gateway.prepare.profile
from gateway.config.deidentify import Option
from gateway.prepare.profile import CODES, STRUCTURAL, Action, edition, rows, safe_private

TABLE = json.loads(Path(gateway.prepare.profile.__file__).with_name("profile.json").read_text())["rows"]
LISTS = {
    "D_TAGS": "D",
    "Z_TAGS": "Z",
    "X_TAGS": "X",
    "U_TAGS": "U",
    "Z_D_TAGS": "Z/D",
    "X_Z_TAGS": "X/Z",
    "X_D_TAGS": "X/D",
    "X_Z_D_TAGS": "X/Z/D",
    "X_Z_U_STAR_TAGS": "X/Z/U*",
}


def theirs(database) -> dict[str, str]:
    """Tag -> action as dicom-anonymizer has it; masks are its way to write the repeating groups."""
    found = {}
    for name, action in LISTS.items():
        for tag in getattr(database, name):
            key = f"{tag[0]:04x}{tag[1]:04x}"
            if len(tag) == 4:
                key = f"{tag[0] >> 8:02x}xx" + (f"{tag[1]:04x}" if tag[3] else "xxxx")
            found[key] = action
    return found


def test_the_basic_profile_is_what_another_project_read_from_the_same_edition():
    assert edition() == "2026c"
    ours = {key: row["basic"] for key, row in TABLE.items() if key != "private"}
    assert ours == theirs(dicomfields_2026c)
    assert len(TABLE) == 656


def test_an_older_edition_differs_by_what_was_added_since_only():
    ours = {key: row["basic"] for key, row in TABLE.items()}
    older = theirs(dicomfields_2024b)
    assert {key: action for key, action in older.items() if ours.get(key) != action} == {}
    assert len(ours) - len(older) == 36  # 35 attributes, and the row of private attributes


def test_the_options_have_as_many_rows_as_in_the_standard():
    """Counted in the 2024c edition, and what later editions added."""
    found = Counter(option for row in TABLE.values() for option in row if option not in ("name", "basic"))
    assert found == {
        "retain-safe-private": 1,
        "retain-uids": 60,
        "retain-device-identity": 57 + 2,
        "retain-institution-identity": 10,
        "retain-patient-characteristics": 14 + 5,
        "retain-longitudinal-full-dates": 165 + 4,
        "retain-longitudinal-modified-dates": 165 + 4,
        "clean-descriptors": 125 + 15,
        "clean-structured-content": 3 + 1,
        "clean-graphics": 4,
    }


@pytest.mark.parametrize(
    ("keyword", "row"),
    [
        ("PatientName", {"basic": "Z"}),
        ("PatientID", {"basic": "Z/D"}),
        ("PatientBirthDate", {"basic": "Z"}),
        ("PatientSex", {"basic": "Z", "retain-patient-characteristics": "K"}),
        ("PatientAge", {"basic": "X", "retain-patient-characteristics": "K"}),
        ("SOPInstanceUID", {"basic": "U", "retain-uids": "K"}),
        ("ReferencedSOPInstanceUID", {"basic": "U", "retain-uids": "K"}),
        ("StudyDescription", {"basic": "X", "clean-descriptors": "C"}),
        ("DeviceSerialNumber", {"basic": "X/Z/D", "retain-device-identity": "K"}),
        ("InstitutionName", {"basic": "X/Z/D", "retain-institution-identity": "K"}),
        ("ContentSequence", {"basic": "D", "clean-structured-content": "C"}),
        ("ReferencedImageSequence", {"basic": "X/Z/U*", "retain-uids": "K"}),
        ("OriginalAttributesSequence", {"basic": "X"}),
        ("DigitalSignaturesSequence", {"basic": "X"}),
        ("IconImageSequence", {"basic": "X"}),
        ("EncapsulatedDocument", {"basic": "D"}),
        (
            "StudyDate",
            {"basic": "Z", "retain-longitudinal-full-dates": "K", "retain-longitudinal-modified-dates": "C"},
        ),
    ],
)
def test_rows_that_everybody_knows(keyword, row):
    key = f"{pydicom.datadict.tag_for_keyword(keyword):08x}"
    assert {name: code for name, code in TABLE[key].items() if name != "name"} == row


def test_the_names_belong_to_the_tags():
    def letters(text):
        return "".join(filter(str.isalnum, text)).lower().removesuffix("trial")

    wrong = []
    for key, row in TABLE.items():
        if key == "private" or "x" in key or not pydicom.datadict.dictionary_has_tag(int(key, 16)):
            continue
        name = pydicom.datadict.dictionary_description(int(key, 16))
        if letters(name) != letters(row["name"]):
            wrong.append((key, name, row["name"]))
    assert wrong == []


def test_repeating_groups_and_private_elements_are_removed():
    assert [TABLE[key]["basic"] for key in ("50xxxxxx", "60xx3000", "60xx4000", "private")] == ["X"] * 4


def test_every_option_has_its_code_of_cid_7050():
    known = {str(getattr(codes.cid7050, name).value): getattr(codes.cid7050, name) for name in codes.cid7050.dir()}
    assert set(get_args(Option)) == set(CODES) - {"basic"}
    for option, (code, meaning) in CODES.items():
        assert (known[code].meaning, known[code].scheme_designator) == (meaning, "DCM"), option
        assert len(meaning) <= 64


def test_an_option_overrides_the_profile_and_cleaning_prevails_over_keeping():
    allergies = pydicom.datadict.tag_for_keyword("Allergies")
    assert rows(frozenset())[allergies].action is Action.REMOVE
    both = rows(frozenset({"retain-patient-characteristics", "clean-descriptors"}))
    assert both[allergies].action is Action.CLEAN
    serial = pydicom.datadict.tag_for_keyword("DeviceSerialNumber")
    assert rows(frozenset({"retain-device-identity"}))[serial].action is Action.KEEP


def test_uids_of_classes_syntaxes_and_coding_schemes_are_not_in_the_table():
    assert not {f"{tag:08x}" for tag in STRUCTURAL} & set(TABLE)
    names = {pydicom.datadict.keyword_for_tag(tag) for tag in STRUCTURAL}
    assert all(any(word in name for word in ("Class", "Syntax", "Scheme", "Context", "Mapping")) for name in names)


def test_safe_private_elements_have_the_vr_that_pydicom_knows():
    """Two the standard and pydicom disagree about: then the element must have the standard's VR to stay."""
    differing = []
    for (creator, tag), vr in safe_private().items():
        name = f"{tag >> 16:04X}xx{tag & 0xFF:02X}"
        known = {key.upper(): entry[0] for key, entry in private_dictionaries.get(creator, {}).items()}
        if known.get(name.upper(), vr) != vr:
            differing.append((creator, name))
        assert vr not in ("OB", "OW", "UN", "SQ", "PN", "DA", "DT")
        assert tag >> 16 & 1
    assert differing == [("HOLOGIC, Inc.", "7E01xx02"), ("Philips Imaging DD 001", "2001xx55")]
    assert safe_private()["SIEMENS MR HEADER", 0x0019000C] == "IS"
    assert safe_private()["Philips PET Private Group", 0x70530000] == "DS"
