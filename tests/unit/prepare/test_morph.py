"""What operations make of a data set, as DCMTK reads it, and the record of it (PS3.3 C.12.1)."""

from __future__ import annotations

import subprocess
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from gateway.config.morph import MorphSettings
from gateway.dicom.part10 import meta_bytes, read_meta
from gateway.model.errors import PrepareError
from gateway.model.transfer_syntax import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE
from gateway.prepare.edit import edit
from gateway.prepare.recipe import Occasion
from gateway.prepare.stages import steps_of

CHARSETS = Path(pydicom.__file__).parent / "data" / "charset_files"
OCCASION = Occasion("CT1", "ct1-gateway", 1_500_000_000.25)
"""2017-07-14 02:40:00.25 UTC."""


def recipe(*changes: dict, name: str = "m", **more) -> MorphSettings:
    return MorphSettings.model_validate({"name": name, "change": list(changes), **more})


def sample() -> Dataset:
    dataset = Dataset()
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    dataset.AccessionNumber, dataset.Modality = "00123", "CT"
    dataset.StudyDescription = " CT KOPF"
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "17"
    dataset.PatientBirthDate, dataset.PatientComments = "", "a" * 2000
    dataset.OtherPatientNames = ["Roe^Jane", "", "Poe^Jane"]
    dataset.PatientSize, dataset.SeriesNumber = "1.70", "3"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.4", "1.2.5"
    steps = []
    for number in "12":
        item = Dataset()
        item.ScheduledProcedureStepID, item.RequestedProcedureID = f"S{number}", f"R{number}"
        steps.append(item)
    dataset.RequestAttributesSequence = Sequence(steps)
    dataset.add_new(0x00090010, "LO", "MAKER")
    dataset.add_new(0x00091001, "LO", "private")
    dataset.add_new(0x00091002, "UN", b"\1\2")
    return dataset


def written(dataset: Dataset, syntax: str) -> bytes:
    file = pydicom.filebase.DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = syntax == IMPLICIT_LE, syntax != EXPLICIT_BE
    pydicom.filewriter.write_dataset(file, dataset)
    return bytes(file.getvalue())


def changed(tmp_path, content: Dataset | bytes, *recipes: MorphSettings, syntax: str = EXPLICIT_LE) -> Path:
    """A Part 10 file of what the recipes make of a data set."""
    source, out, whole = tmp_path / "source", tmp_path / "out", tmp_path / "whole.dcm"
    source.write_bytes(content if isinstance(content, bytes) else written(content, syntax))
    edit(source, 0, syntax, out, steps_of(recipes, OCCASION))
    whole.write_bytes(meta_bytes("1.2.840.10008.5.1.4.1.1.7", "1.2.3", syntax) + out.read_bytes())
    return whole


def said(path: Path, *tags: str) -> list[str]:
    """What DCMTK reads, in UTF-8, one line for each element, without its comment."""
    options = [word for tag in tags for word in ("+P", tag)]
    told = subprocess.run(["dcmdump", "-q", "+U8", "+L", *options, str(path)], capture_output=True)
    assert told.returncode == 0, told.stderr
    return [line.partition("#")[0].strip() for line in told.stdout.decode().splitlines()]


DONE = [
    ({"tag": "PatientID", "set": "new"}, "0010,0020", ["(0010,0020) LO [new]"]),
    ({"tag": "PatientID", "set": ""}, "0010,0020", ["(0010,0020) LO (no value available)"]),
    ({"tag": "StudyID", "set": "was not there"}, "0020,0010", ["(0020,0010) SH [was not there]"]),
    ({"tag": "ImageType", "set": ["A", "B", "C"]}, "0008,0008", ["(0008,0008) CS [A\\B\\C]"]),
    ({"tag": "PatientSize", "set": 1.8}, "0010,1020", ["(0010,1020) DS [1.8]"]),
    ({"tag": "PatientSize", "set": "1.80"}, "0010,1020", ["(0010,1020) DS [1.80]"]),
    ({"tag": "NumberOfFilms", "set": 5}, "2000,0010", []),
    ({"tag": "PatientBirthDate", "set": "19800101"}, "0010,0030", ["(0010,0030) DA [19800101]"]),
    ({"tag": "StudyInstanceUID", "set": "1.2.9"}, "0020,000d", ["(0020,000d) UI [1.2.9]"]),
    ({"tag": "PatientComments", "remove": True}, "0010,4000", []),
    ({"tag": "PatientID", "copy_from": "AccessionNumber"}, "0010,0020", ["(0010,0020) LO [00123]"]),
    ({"tag": "PatientID", "copy_from": "StudyID"}, "0010,0020", ["(0010,0020) LO [17]"]),
    ({"tag": "PatientID", "copy_from": "PatientBirthDate"}, "0010,0020", ["(0010,0020) LO [17]"]),
    ({"tag": "StudyID", "copy_from": "RequestAttributesSequence[1].ScheduledProcedureStepID"}, "0020,0010",
        ["(0020,0010) SH [S2]"]),
    ({"tag": "PatientID", "prefix": "A-"}, "0010,0020", ["(0010,0020) LO [A-17]"]),
    ({"tag": "StudyID", "prefix": "A-"}, "0020,0010", []),
    ({"tag": "OtherPatientNames", "prefix": "X"}, "0010,1001", ["(0010,1001) PN [XRoe^Jane\\\\XPoe^Jane]"]),
    ({"tag": "StudyDescription", "map": {"CT KOPF": "CT head"}}, "0008,1030", ["(0008,1030) LO [CT head]"]),
    ({"tag": "Modality", "map": {"MR": "XA"}}, "0008,0060", ["(0008,0060) CS [CT]"]),
    ({"tag": "Modality", "map": {"MR": "XA"}, "default": "OT"}, "0008,0060", ["(0008,0060) CS [OT]"]),
    ({"tag": "StudyID", "map": {"": "1"}, "default": "2"}, "0020,0010", []),
    ({"tag": "PatientBirthDate", "map": {"": "19700101"}}, "0010,0030", ["(0010,0030) DA [19700101]"]),
    ({"tag": "ImageType", "map": {"ORIGINAL": "DERIVED"}}, "0008,0008", ["(0008,0008) CS [DERIVED\\PRIMARY]"]),
    ({"tag": "AccessionNumber", "match": "^0+", "replace": ""}, "0008,0050", ["(0008,0050) SH [123]"]),
    ({"tag": "PatientName", "match": r"(\w+)\^(\w+)", "replace": r"\2^\1"}, "0010,0010", ["(0010,0010) PN [Jane^Doe]"]),
    ({"tag": "SeriesNumber", "prefix": "10"}, "0020,0011", ["(0020,0011) IS [103]"]),
    ({"tag": "RequestAttributesSequence.ScheduledProcedureStepID", "prefix": "X"}, "0040,0009",
        ["(0040,0009) SH [XS1]", "(0040,0009) SH [XS2]"]),
    ({"tag": "RequestAttributesSequence[1].ScheduledProcedureStepID", "set": "Y"}, "0040,0009",
        ["(0040,0009) SH [S1]", "(0040,0009) SH [Y]"]),
    ({"tag": "RequestAttributesSequence[7].ScheduledProcedureStepID", "set": "Y"}, "0040,0009",
        ["(0040,0009) SH [S1]", "(0040,0009) SH [S2]"]),
    ({"tag": "ReferencedStudySequence.StudyID", "set": "Y"}, "0020,0010", []),
]  # fmt: skip


@pytest.mark.parametrize("syntax", [IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE])
@pytest.mark.parametrize(("change", "tag", "expected"), DONE)
def test_an_operation_as_another_implementation_reads_it(tmp_path, change, tag, expected, syntax):
    if change["tag"] == "NumberOfFilms":
        return
    found = said(changed(tmp_path, sample(), recipe(change), syntax=syntax), tag)
    assert found[: len(expected)] == expected  # behind them DCMTK shows the record's own
    assert expected or not any(line for line in found if "no value" not in line and "aaa" not in line)


def test_private_attributes_are_changed_where_their_vr_is_known(tmp_path):
    whole = changed(
        tmp_path, sample(), recipe({"tag": "0009,1001", "prefix": "A "}, {"tag": "0009,1002", "remove": True})
    )
    dataset = pydicom.dcmread(whole)
    assert (dataset[0x00091001].value, 0x00091002 in dataset) == ("A private", False)
    previous = dataset.OriginalAttributesSequence[0].ModifiedAttributesSequence[0]
    assert (previous[0x00090010].value, previous[0x00091001].value) == ("MAKER", "private")
    for change in ({"tag": "0009,1002", "set": "x"}, {"tag": "0009,1003", "set": "x"}):
        with pytest.raises(PrepareError, match="no VR"):
            changed(tmp_path, sample(), recipe(change))


REFUSED = [
    ({"tag": "PatientID", "prefix": "x" * 63}, "PatientID is longer than the 64 characters that LO allows"),
    ({"tag": "AccessionNumber", "copy_from": "PatientComments"}, "AccessionNumber is longer"),
    ({"tag": "Modality", "match": "C", "replace": "c"}, "Modality is not a code"),
    ({"tag": "StudyInstanceUID", "prefix": "a"}, "StudyInstanceUID is not a UID"),
    ({"tag": "StudyInstanceUID", "match": ".*", "replace": ""}, "StudyInstanceUID may not be empty"),
    ({"tag": "PatientID", "copy_from": "OtherPatientNames"}, "PatientID takes no more than 1 value"),
    ({"tag": "SeriesNumber", "prefix": "9999999999"}, "does not fit in 32 bits"),
    ({"tag": "PatientComments", "match": "b", "replace": ""}, "too long for a regular expression"),
    ({"tag": "0009,1001.PatientID", "set": "x"}, "no sequence"),
]


@pytest.mark.parametrize(("change", "sentence"), REFUSED)
def test_what_the_standard_does_not_allow_ends_the_whole(tmp_path, change, sentence):
    first = {"tag": "StudyID", "set": "done before"}
    with pytest.raises(PrepareError, match=sentence) as told:
        changed(tmp_path, sample(), recipe(first, change))
    assert not {"17", "00123", "Jane"} & set(told.value.detail.replace(".", " ").split())
    assert not (tmp_path / "out").exists()


def test_each_recipe_is_recorded_once_with_what_was_there(tmp_path):
    """PS3.3 C.12.1: COERCE and CORRECT; the previous values in Modified Attributes Sequence, nested ones with their
    top-level sequence, what was absent without a value."""
    first = recipe(
        {"tag": "PatientID", "prefix": "A-"},
        {"tag": "PatientID", "prefix": "B-"},
        {"tag": "PatientComments", "remove": True},
        {"tag": "StudyID", "set": "7"},
        {"tag": "RequestAttributesSequence[0].ScheduledProcedureStepID", "set": "Z"},
    )
    second = recipe({"tag": "PatientID", "set": "last"}, reason="CORRECT", source="General Hospital")
    nothing = recipe({"tag": "PatientID", "set": "last"}, {"tag": "OtherPatientIDs", "remove": True})
    whole = changed(tmp_path, sample(), first, second, nothing)
    dataset = pydicom.dcmread(whole)
    one, two = dataset.OriginalAttributesSequence
    assert (one.SourceOfPreviousValues, one.ModifyingSystem) == ("CT1", "ct1-gateway")
    assert one.AttributeModificationDateTime == "20170714024000.250000+0000"
    assert (one.ReasonForTheAttributeModification, two.ReasonForTheAttributeModification) == ("COERCE", "CORRECT")
    assert two.SourceOfPreviousValues == "General Hospital"
    (before,) = one.ModifiedAttributesSequence
    assert {element.keyword for element in before} == {
        *("PatientID", "PatientComments", "StudyID", "RequestAttributesSequence")
    }
    assert (before.PatientID, before.PatientComments, before.StudyID) == ("17", "a" * 2000, "")
    assert before.RequestAttributesSequence == sample().RequestAttributesSequence
    (before,) = two.ModifiedAttributesSequence
    assert [element.value for element in before] == ["B-A-17"]
    assert said(whole, "0400,0565") == ["(0400,0565) CS [COERCE]", "(0400,0565) CS [CORRECT]"]


def test_each_recipe_records_what_the_one_before_it_left_in_a_sequence(tmp_path):
    tag = "RequestAttributesSequence[0].ScheduledProcedureStepID"
    whole = changed(tmp_path, sample(), *(recipe({"tag": tag, "prefix": letter}) for letter in "XY"))
    recorded = [item.ModifiedAttributesSequence[0] for item in pydicom.dcmread(whole).OriginalAttributesSequence]
    steps = [before.RequestAttributesSequence[0].ScheduledProcedureStepID for before in recorded]
    assert steps == ["S1", "XS1"]


def test_what_was_made_and_removed_again_is_no_change(tmp_path):
    content = written(sample(), EXPLICIT_LE)
    morph = recipe({"tag": "StudyID", "set": "7"}, {"tag": "StudyID", "remove": True})
    assert changed(tmp_path, content, morph).read_bytes().endswith(content)


def test_private_values_are_recorded_in_their_own_letters(tmp_path):
    dataset = sample()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset[0x00091001].value = "Żółw"
    dataset.add_new(0x00091003, "LO", "Łoś")
    morph = recipe({"tag": "0009,1001", "set": "x"}, {"tag": "0009,1003", "remove": True})
    whole = changed(tmp_path, dataset, morph)
    (before,) = pydicom.dcmread(whole).OriginalAttributesSequence[0].ModifiedAttributesSequence
    assert (before[0x00091001].value, before[0x00091003].value) == ("Żółw", "Łoś")


def test_a_record_that_is_there_is_added_to(tmp_path):
    whole = changed(tmp_path, sample(), recipe({"tag": "PatientID", "set": "1"}))
    with open(whole, "rb") as file:
        file.seek(read_meta(file).dataset_offset)
        once = file.read()
    dataset = pydicom.dcmread(changed(tmp_path, once, recipe({"tag": "PatientID", "set": "2"})))
    values = [item.ModifiedAttributesSequence[0].PatientID for item in dataset.OriginalAttributesSequence]
    assert (values, dataset.PatientID) == (["17", "1"], "2")
    first = written(dataset.OriginalAttributesSequence[0], EXPLICIT_LE)
    assert first == written(pydicom.dcmread(BytesIO(whole.read_bytes())).OriginalAttributesSequence[0], EXPLICIT_LE)


def test_the_same_instance_becomes_the_same_bytes_again(tmp_path):
    """A second attempt must not be another object under one UID."""
    morph = recipe({"tag": "PatientID", "prefix": "A-"})
    assert changed(tmp_path, sample(), morph).read_bytes() == changed(tmp_path, sample(), morph).read_bytes()


def test_nothing_changed_is_nothing_recorded(tmp_path):
    content = written(sample(), EXPLICIT_LE)
    morph = recipe({"tag": "PatientID", "set": "17"}, {"tag": "Modality", "map": {"MR": "CT"}})
    assert changed(tmp_path, content, morph).read_bytes().endswith(content)


def named(charset: str | None, name: str, raw: bytes) -> bytes:
    """A data set with a Patient's Name in the bytes of its character set."""
    dataset = sample()
    dataset.PatientName = name
    if charset is not None:
        dataset.SpecificCharacterSet = charset.split("\\")
    content = written(dataset, EXPLICIT_LE)
    raw += b" " * (len(raw) % 2)
    at = content.index(b"\x10\0\x10\0PN")
    length = int.from_bytes(content[at + 6 : at + 8], "little")
    return content[: at + 6] + len(raw).to_bytes(2, "little") + raw + content[at + 8 + length :]


@pytest.mark.parametrize(
    ("charset", "raw", "name"),
    [
        ("ISO_IR 100", b"M\xfcller", "Müller"),
        ("ISO_IR 144", b"\xbb\xee\xda\x63\x65\xdc\xd1\x79\x70\xd3", "Люкce\u043c\u0431yp\u0433"),
        ("ISO_IR 192", "Żółw".encode(), "Żółw"),
        ("GB18030", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab", "Wang^XiaoDong=王^小东"),
    ],
)
def test_a_value_is_set_in_the_data_sets_own_character_set(tmp_path, charset, raw, name):
    """Names by PS3.5 H, I, J; new letters that fit in leave it as it is."""
    content = named(charset, "x", raw)
    whole = changed(tmp_path, content, recipe({"tag": "InstitutionName", "copy_from": "PatientName"}))
    assert said(whole, "0008,0080")[0] == f"(0008,0080) LO [{name}]"
    assert pydicom.dcmread(whole).SpecificCharacterSet == charset
    assert raw + b" " * (len(raw) % 2) in whole.read_bytes()


HAVE_ALL = ("chrX1", "chrX2", "chrSQEncoding")
"""They declare ISO_IR 192 or GB18030, which have every letter."""
NOT_UNICODE = [path for path in sorted(CHARSETS.glob("*.dcm")) if path.stem not in HAVE_ALL]


@pytest.mark.parametrize("path", NOT_UNICODE, ids=lambda path: path.stem)
def test_a_data_set_goes_over_to_unicode_as_a_whole(tmp_path, path):
    """Every name that pydicom's samples hold, in items too, is the same when DCMTK reads it as ISO_IR 192."""
    with open(path, "rb") as file:
        meta = read_meta(file)
        file.seek(meta.dataset_offset)
        content = file.read()
    morph = recipe({"tag": "PatientComments", "set": "Жạ"}, {"tag": "PatientName", "prefix": "Ж"})
    whole = changed(tmp_path, content, morph, syntax=meta.transfer_syntax_uid)
    original, dataset = pydicom.dcmread(path), pydicom.dcmread(whole)
    assert dataset.SpecificCharacterSet == "ISO_IR 192"
    name, expected = str(original.get("PatientName", "")), f"Ж{original.get('PatientName')}"
    if not name:  # it stands in an item, in the item's own character set
        expected = original.RequestedProcedureCodeSequence[0].PatientName
    assert said(whole, "0010,0010")[0] == f"(0010,0010) PN [{expected}]"
    assert said(whole, "0010,4000")[0] == "(0010,4000) LT [Жạ]"
    previous = dataset.OriginalAttributesSequence[0].ModifiedAttributesSequence[0]
    assert str(previous.get("PatientName", "")) == name
    for old, new in zip(original.iterall(), dataset.iterall(), strict=False):
        if old.tag == new.tag and old.VR in ("LO", "SH", "ST", "UT") and old.tag != 0x00104000:
            assert old.value == new.value


@pytest.mark.parametrize("charset", [None, "ISO_IR 6", "ISO 2022 IR 999", "ISO_IR 192"])
def test_letters_that_nothing_explains_are_not_guessed(tmp_path, charset):
    content = named(charset, "x", b"M\xfcller")
    for change in ({"tag": "StudyID", "set": "ü"}, {"tag": "PatientName", "prefix": "A"}):
        if charset == "ISO_IR 192" and "set" in change:
            continue  # nothing else has to be read for it
        with pytest.raises(PrepareError, match="Specific Character Set does not explain"):
            changed(tmp_path, content, recipe(change))
    if charset != "ISO_IR 192":  # reading is no harm, but what was read is not certain
        looked_at = recipe({"tag": "PatientName", "match": "x{9}", "replace": ""}, {"tag": "StudyID", "set": "ü"})
        with pytest.raises(PrepareError, match="Specific Character Set does not explain"):
            changed(tmp_path, content, looked_at)
    whole = changed(tmp_path, content, recipe({"tag": "PatientID", "prefix": "A-"}))
    assert b"M\xfcller" in whole.read_bytes()
    whole = changed(tmp_path, content, recipe({"tag": "PatientName", "set": "Mueller"}))
    assert whole.read_bytes().count(b"M\xfcller") == 1  # in the record of what was there
