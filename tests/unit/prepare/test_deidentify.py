"""What a de-identified data set says and no longer says. Expected values stand in PS3.15 Annex E, PS3.5 and PS3.16."""

from __future__ import annotations

from datetime import date, timedelta
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from gateway.config.deidentify import DeidentifySettings
from gateway.model.errors import PrepareError
from gateway.prepare.deidentify import deidentify
from gateway.prepare.pseudonym import Pseudonyms

KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
CT = "1.2.840.10008.5.1.4.1.1.2"


def settings(*options: str, **more) -> DeidentifySettings:
    if "clean-pixel-data" in options:
        more.setdefault("blacken", [{"modality": "CT", "rectangles": []}])
    return DeidentifySettings(name="research", key_file=Path("key"), options=list(options), **more)


def encoded(dataset: Dataset, *, implicit: bool = False) -> bytes:
    target = DicomBytesIO()
    target.is_little_endian, target.is_implicit_VR = True, implicit
    write_dataset(target, dataset)
    return target.getvalue()


def decoded(raw: bytes, *, implicit: bool = False) -> Dataset:
    return read_dataset(BytesIO(raw), is_implicit_VR=implicit, is_little_endian=True)


def done(dataset: Dataset, *options: str, key: bytes = KEY, implicit: bool = False, **more) -> Dataset:
    """The data set as it is after a way over the wire, de-identified, and once more."""
    received = decoded(encoded(dataset, implicit=implicit), implicit=implicit)
    deidentify(received, settings(*options, **more), Pseudonyms(key))
    return decoded(encoded(received))


def sample() -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CT, "1.2.3.4"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    dataset.StudyDate, dataset.StudyTime = "20240229", "101112"
    dataset.AcquisitionDateTime = "20240229101112.5+0100"
    dataset.Modality, dataset.Manufacturer = "CT", "ACME"
    dataset.PatientName, dataset.PatientID, dataset.IssuerOfPatientID = "Doe^Jane", "MRN-7741", "North Clinic"
    dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientAge = "19800301", "F", "043Y"
    dataset.AccessionNumber, dataset.StudyDescription = "A-5566", "CT chest 55F Dr Smith"
    dataset.InstitutionName, dataset.StationName, dataset.DeviceSerialNumber = "North Clinic", "CT-ROOM-4", "SN-99"
    dataset.Rows, dataset.Columns = 2, 2
    return dataset


def private(dataset: Dataset, creator: str, group: int, element: int, vr: str, value) -> None:
    dataset.private_block(group, creator, create=True).add_new(element, vr, value)


def test_the_basic_profile_replaces_empties_and_removes():
    after = done(sample())
    assert after.PatientName == after.PatientID == "ANON-" + Pseudonyms(KEY).patient("MRN-7741", "North Clinic")
    assert [after[name].is_empty for name in ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyDate")] == [
        True
    ] * 4
    for name in ("IssuerOfPatientID", "PatientAge", "StudyDescription"):
        assert name not in after
    for name in ("InstitutionName", "StationName", "DeviceSerialNumber"):
        assert after[name].value == "REMOVED"
    assert (after.SOPClassUID, after.Modality, after.Manufacturer, after.Rows) == (CT, "CT", "ACME", 2)


def test_it_says_what_was_done():
    after = done(sample(), "retain-uids", "clean-pixel-data")
    assert after.PatientIdentityRemoved == "YES"
    items = [(i.CodeValue, i.CodingSchemeDesignator, i.CodeMeaning) for i in after.DeidentificationMethodCodeSequence]
    assert items == [
        ("113100", "DCM", "Basic Application Confidentiality Profile"),
        ("113101", "DCM", "Clean Pixel Data Option"),
        ("113110", "DCM", "Retain UIDs Option"),
    ]
    assert after.DeidentificationMethod and all(len(value) <= 64 for value in after.DeidentificationMethod)
    assert after.BurnedInAnnotation == "NO"
    assert after.LongitudinalTemporalInformationModified == "REMOVED"
    assert "RecognizableVisualFeatures" not in after
    assert "BurnedInAnnotation" not in done(sample())


@pytest.mark.parametrize(
    ("option", "said"),
    [("retain-longitudinal-full-dates", "UNMODIFIED"), ("retain-longitudinal-modified-dates", "MODIFIED")],
)
def test_it_says_what_became_of_the_dates(option, said):
    assert done(sample(), option).LongitudinalTemporalInformationModified == said


def test_a_uid_is_replaced_by_the_same_wherever_it_stands():
    dataset = sample()
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CT, "1.2.3.4"
    dataset.ReferencedImageSequence = Sequence([reference])
    dataset.FrameOfReferenceUID = "1.2.840.10008.1.4.1.1"  # Talairach Brain Atlas, of PS3.6 Annex A
    dataset.MultiFrameSourceSOPInstanceUID = "1.2.3.4"  # the table has no row for it
    dataset.add_new(0x00083010, "UI", ["1.2.3.4", "1.2.3.5"])
    after = done(dataset)
    new = after.SOPInstanceUID
    assert new.startswith("2.25.") and len(new) <= 64 and new.is_valid
    assert int(new[5:]) < 2**128
    item = after.ReferencedImageSequence[0]
    assert (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) == (CT, new)
    assert after.MultiFrameSourceSOPInstanceUID == new
    assert after[0x00083010].value == [new, Pseudonyms(KEY).uid("1.2.3.5")]
    assert after.FrameOfReferenceUID == "1.2.840.10008.1.4.1.1"
    assert len({after.SOPInstanceUID, after.StudyInstanceUID, after.SeriesInstanceUID}) == 3


def test_uids_are_kept_by_their_option():
    dataset = sample()
    dataset.MultiFrameSourceSOPInstanceUID = "1.2.3.9"
    after = done(dataset, "retain-uids")
    assert (after.SOPInstanceUID, after.StudyInstanceUID) == ("1.2.3.4", "1.2.3")
    assert after.MultiFrameSourceSOPInstanceUID == "1.2.3.9"


def test_dates_move_together_and_times_stay():
    first, second = sample(), sample()
    second.StudyDate, second.AcquisitionDateTime = "20240307", "202403"
    second.add_new(0x00144076, "DA", "20240307")  # Procedure Creation Date has no row in the table
    one, two = (done(dataset, "retain-longitudinal-modified-dates") for dataset in (first, second))
    days = Pseudonyms(KEY).days_back("MRN-7741", "North Clinic")
    assert one.StudyDate == (date(2024, 2, 29) - timedelta(days)).strftime("%Y%m%d") != "20240229"
    assert two.StudyDate == two[0x00144076].value == (date(2024, 3, 7) - timedelta(days)).strftime("%Y%m%d")
    assert one.AcquisitionDateTime == one.StudyDate + "101112.5+0100"
    assert two.AcquisitionDateTime == (date(2024, 3, 15) - timedelta(days)).strftime("%Y%m")
    assert one.StudyTime == "101112"
    assert one["PatientBirthDate"].is_empty


def test_what_is_no_date_is_not_kept_as_one():
    dataset = sample()
    raw = encoded(dataset).replace(b"20240229", b"Doe Jane", 1)
    for option in ("retain-longitudinal-full-dates", "retain-longitudinal-modified-dates"):
        received = decoded(raw)
        deidentify(received, settings(option), Pseudonyms(KEY))
        assert b"Doe Jane" not in encoded(received)
        assert received["StudyDate"].is_empty


def test_what_is_no_uid_and_no_age_is_not_kept_as_one():
    dataset = sample()
    raw = encoded(dataset).replace(b"1.2.3.1", b"MRN7741").replace(b"043Y", b"Jane")
    received = decoded(raw)
    deidentify(received, settings("retain-uids", "retain-patient-characteristics"), Pseudonyms(KEY))
    assert received.StudyInstanceUID == "1.2.3"
    assert b"MRN7741" not in encoded(received) and b"Jane" not in encoded(received)
    assert received.SeriesInstanceUID == Pseudonyms(KEY).uid("MRN7741")


def test_full_dates_stay_as_they_are():
    after = done(sample(), "retain-longitudinal-full-dates")
    assert (after.StudyDate, after.AcquisitionDateTime) == ("20240229", "20240229101112.5+0100")


def test_characteristics_stay_by_their_option_and_the_age_is_computed_when_only_the_date_of_birth_tells_it():
    dataset = sample()
    assert done(dataset, "retain-patient-characteristics").PatientAge == "043Y"
    del dataset.PatientAge
    after = done(dataset, "retain-patient-characteristics")
    assert (after.PatientAge, after.PatientSex) == ("043Y", "F")  # the 44th birthday is the day after
    assert after["PatientBirthDate"].is_empty
    assert "PatientAge" not in done(dataset)


def test_device_and_institution_stay_by_their_options():
    device = done(sample(), "retain-device-identity")
    assert (device.StationName, device.DeviceSerialNumber, device.InstitutionName) == ("CT-ROOM-4", "SN-99", "REMOVED")
    institution = done(sample(), "retain-institution-identity")
    assert (institution.InstitutionName, institution.StationName) == ("North Clinic", "REMOVED")


def test_descriptions_keep_the_allowed_words_alone():
    after = done(sample(), "clean-descriptors", allowed_words=["ct", "Chest"])
    assert after.StudyDescription == "CT chest"
    assert "StudyDescription" not in done(sample(), "clean-descriptors")
    assert "StudyDescription" not in done(sample(), "clean-descriptors", allowed_words=["abdomen"])


def test_private_elements_go_except_the_safe_ones_with_their_creators():
    dataset = sample()
    private(dataset, "SIEMENS MR HEADER", 0x0019, 0x0C, "IS", "1000")
    private(dataset, "SIEMENS MR HEADER", 0x0019, 0x10, "LO", "Doe^Jane")
    private(dataset, "SIEMENS CSA HEADER", 0x0029, 0x10, "OB", b"Doe^Jane")
    private(dataset, "ACME 1", 0x0031, 0x01, "LO", "Doe^Jane")
    private(dataset, "ACME 1", 0x0031, 0x02, "DS", "1.5")
    private(dataset, "ACME 1", 0x0031, 0x03, "UI", "1.2.3.4")
    private(dataset, "ACME 1", 0x0031, 0x04, "PN", "Doe^Jane")
    assert not [element for element in done(dataset) if element.tag.is_private]
    mine = [{"creator": "ACME 1", "elements": ["0031,xx02", "0031,xx03", "0031,xx04"]}]
    after = done(dataset, "retain-safe-private", safe_private=mine)
    kept = {str(element.tag): element.value for element in after if element.tag.is_private}
    assert kept == {
        "(0019,0010)": "SIEMENS MR HEADER",
        "(0019,100C)": 1000,
        "(0031,0010)": "ACME 1",
        "(0031,1002)": 1.5,
        "(0031,1003)": after.SOPInstanceUID,
    }


def test_a_safe_private_element_of_another_vr_is_not_the_safe_one():
    dataset = sample()
    private(dataset, "SIEMENS MR HEADER", 0x0019, 0x0C, "LO", "Doe^Jane")
    assert not [element for element in done(dataset, "retain-safe-private") if element.tag.is_private]


def test_what_nobody_understands_goes():
    dataset = sample()
    dataset.add_new(0x00080F00, "LO", "Doe^Jane")  # no such attribute
    dataset.add_new(0x00280008, "IS", "1")
    raw = encoded(dataset)
    raw += b"\x40\x00\x12\x90UN\0\0\x08\0\0\0Doe^Jane"  # no such attribute either
    raw += b"\x40\x00\x75\x02UN\0\0\x08\0\0\0Doe^Jane"  # Request Attributes Sequence
    raw += b"\x20\x00\x11\x00IS\x08\x00Doe^Jane"  # Series Number
    raw += b"\x28\x00\x02\x00LO\x08\x00Doe^Jane"  # Samples per Pixel
    raw += b"\x40\x00\x60\x02LO\x08\x00Doe^Jane"  # Performed Protocol Code Sequence
    received = decoded(raw)
    deidentify(received, settings(), Pseudonyms(KEY))
    assert b"Doe^Jane" not in encoded(received)
    for tag in (0x00200011, 0x00280002, 0x00400260, 0x00080F00, 0x00400275, 0x00409012):
        assert tag not in received
    assert received.NumberOfFrames == 1


@pytest.mark.parametrize("option", ["retain-longitudinal-full-dates", "retain-longitudinal-modified-dates"])
def test_what_calls_itself_something_else_goes(option):
    raw = b"\x08\x00\x20\x00LO\x08\x00Doe^Jane"  # Study Date
    raw += b"\x08\x00\x67\x11LO\x08\x00Doe^Jane"  # Multi-frame Source SOP Instance UID
    raw += b"\x14\x00\x04\x01LO\x08\x00Doe^Jane"  # Secondary Reviewer Name
    received = decoded(raw)
    deidentify(received, settings(option, "retain-uids"), Pseudonyms(KEY))
    assert b"Doe^Jane" not in encoded(received)


def test_a_text_of_another_text_vr_is_no_reason_to_lose_it():
    received = decoded(b"\x08\x00\x70\x00SH\x04\x00ACME\x18\x00\x50\x00IS\x02\x005 ")
    deidentify(received, settings(), Pseudonyms(KEY))
    assert (received.Manufacturer, received.SliceThickness) == ("ACME", 5)


def test_known_attributes_that_came_as_unknown_are_read_and_cleaned():
    """PS3.5 6.2.2: a value of VR UN is that of the dictionary's VR, a sequence in it is in Implicit VR."""
    inner = Dataset()
    inner.PatientName, inner.CodeValue = "Doe^Jane", "C-1"
    item = encoded(inner, implicit=True)
    value = b"\xfe\xff\x00\xe0" + len(item).to_bytes(4, "little") + item
    raw = b"\x08\x00\x70\x00UN\0\0\x04\0\0\0ACME"
    raw += b"\x40\x00\x60\x02UN\0\0" + len(value).to_bytes(4, "little") + value
    received = decoded(raw)
    deidentify(received, settings(), Pseudonyms(KEY))
    assert received.Manufacturer == "ACME"
    assert received.PerformedProtocolCodeSequence[0].CodeValue == "C-1"
    assert b"Doe" not in encoded(received)


def test_groups_that_have_no_place_in_a_data_set_go():
    dataset = sample()
    dataset.add_new(0x00020016, "AE", "DOEJANE")
    dataset.add_new(0x00041500, "CS", "DOEJANE")
    dataset.add_new(0x50000022, "LO", "Doe^Jane")
    dataset.add_new(0x60000010, "US", 2)
    dataset.add_new(0x60000100, "US", 1)
    dataset.add_new(0x60003000, "OW", b"\1\1")
    dataset.add_new(0x60021500, "LO", "Doe^Jane")
    dataset.add_new(0x04000500, "SQ", Sequence([sample()]))
    dataset.add_new(0xFFFCFFFC, "OB", b"Doe^Jane")
    deidentify(dataset, settings(), Pseudonyms(KEY))
    assert not {element.tag.group for element in dataset} - {0x0008, 0x0010, 0x0012, 0x0018, 0x0020, 0x0028}


@pytest.mark.parametrize(("bits", "position"), [(16, 12), (16, 0), (None, 12), (1, 12)])
def test_an_overlay_in_the_pixels_is_not_passed_silently(bits, position):
    dataset = sample()
    dataset.add_new(0x60000102, "US", position)
    if bits:
        dataset.add_new(0x60000100, "US", bits)
    with pytest.raises(PrepareError, match="overlay"):
        done(dataset)


def test_an_overlay_beside_the_pixels_is_no_reason_to_hold():
    dataset = sample()
    dataset.add_new(0x60000100, "US", 1)
    dataset.add_new(0x60000102, "US", 0)
    assert done(dataset).PatientIdentityRemoved == "YES"


def test_text_that_is_burned_in_is_not_passed_silently():
    dataset = sample()
    dataset.BurnedInAnnotation = "YES"
    with pytest.raises(PrepareError, match="burned in"):
        done(dataset)
    assert done(dataset, "clean-pixel-data").BurnedInAnnotation == "NO"


def report() -> Dataset:
    """A structured report: a code, a number, a text, a name, a reference."""
    root = sample()
    items = []
    for kind in ("CODE", "NUM", "TEXT", "PNAME", "IMAGE", "DATE"):
        item, concept = Dataset(), Dataset()
        item.RelationshipType, item.ValueType = "CONTAINS", kind
        concept.CodeValue, concept.CodingSchemeDesignator, concept.CodeMeaning = "121071", "DCM", "Finding"
        item.ConceptNameCodeSequence = Sequence([concept])
        items.append(item)
    value = Dataset()
    value.CodeValue, value.CodingSchemeDesignator, value.CodeMeaning = "111", "DCM", "Mass"
    items[0].ConceptCodeSequence = Sequence([value])
    measured = Dataset()
    measured.NumericValue = "12.5"
    items[1].MeasuredValueSequence = Sequence([measured])
    items[2].TextValue, items[3].PersonName, items[5].Date = "Seen by Dr Smith", "Smith^A", "20240229"
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CT, "1.2.3.4"
    items[4].ReferencedSOPSequence = Sequence([reference])
    root.ValueType, root.ContinuityOfContent, root.ContentSequence = "CONTAINER", "SEPARATE", Sequence(items)
    return root


def test_a_report_keeps_its_shape_alone_without_the_option():
    items = done(report()).ContentSequence
    assert [(item.RelationshipType, item.ValueType) for item in items] == [
        ("CONTAINS", kind) for kind in ("CODE", "NUM", "TEXT", "PNAME", "IMAGE", "DATE")
    ]
    assert items[0].ConceptCodeSequence[0].CodeMeaning == "REMOVED"
    assert items[1].MeasuredValueSequence[0].NumericValue == 0
    assert (items[2].TextValue, items[3].PersonName) == ("REMOVED", "REMOVED")
    reference = items[4].ReferencedSOPSequence[0]
    assert reference.ReferencedSOPClassUID == CT
    assert reference.ReferencedSOPInstanceUID == Pseudonyms(KEY).uid("1.2.3.4")


def test_a_cleaned_report_keeps_codes_numbers_and_references_but_no_text():
    items = done(report(), "clean-structured-content").ContentSequence
    assert items[0].ConceptCodeSequence[0].CodeMeaning == "Mass"
    assert items[1].MeasuredValueSequence[0].NumericValue == 12.5
    assert (items[2].TextValue, items[3].PersonName, items[5].Date) == ("REMOVED", "REMOVED", "19000101")
    assert items[4].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == Pseudonyms(KEY).uid("1.2.3.4")


def test_drawings_become_dummies_of_the_same_shape():
    dataset, annotation, graphic, text = sample(), Dataset(), Dataset(), Dataset()
    graphic.GraphicAnnotationUnits, graphic.GraphicDimensions, graphic.NumberOfGraphicPoints = "PIXEL", 2, 2
    graphic.GraphicData, graphic.GraphicType = [1.0, 2.0, 3.0, 4.0], "POLYLINE"
    text.UnformattedTextValue = "Doe Jane"
    annotation.GraphicObjectSequence, annotation.TextObjectSequence = Sequence([graphic]), Sequence([text])
    dataset.GraphicAnnotationSequence = Sequence([annotation])
    after = done(dataset).GraphicAnnotationSequence[0]
    drawn = after.GraphicObjectSequence[0]
    assert (drawn.GraphicData, drawn.NumberOfGraphicPoints, drawn.GraphicType) == ([0.0] * 4, 2, "POLYLINE")
    assert after.TextObjectSequence[0].UnformattedTextValue == "REMOVED"


def test_strangers_without_an_id_do_not_become_one_patient():
    first, second = sample(), sample()
    first.PatientID = second.PatientID = ""
    second.StudyInstanceUID = "1.2.4"
    assert done(first).PatientID != done(second).PatientID


def test_the_same_id_of_another_issuer_is_another_patient():
    other = sample()
    other.IssuerOfPatientID = "South Clinic"
    assert done(sample()).PatientID != done(other).PatientID


def test_a_patient_in_an_item_gets_a_pseudonym_of_their_own():
    dataset, mother = sample(), Dataset()
    mother.PatientID, mother.PatientName = "MRN-1", "Doe^Mary"
    dataset.ReferencedPatientPhotoSequence = Sequence([mother])
    dataset.PatientSizeCodeSequence = Sequence([mother])
    after = done(dataset)
    assert after.PatientSizeCodeSequence[0].PatientID == "ANON-" + Pseudonyms(KEY).patient("MRN-1", "")


def test_another_prefix_and_another_key():
    assert done(sample(), patient_id_prefix="TRIAL7-").PatientID.startswith("TRIAL7-")
    assert done(sample(), key=OTHER_KEY).PatientID != done(sample()).PatientID
    assert done(sample(), key=OTHER_KEY).SOPInstanceUID != done(sample()).SOPInstanceUID


def test_twice_is_fine():
    once = done(sample(), "retain-longitudinal-modified-dates", "clean-structured-content")
    twice = done(once, "retain-longitudinal-modified-dates", "clean-structured-content")
    assert [element.tag for element in twice] == [element.tag for element in once]
    assert twice.PatientID != once.PatientID and len(twice.PatientID) == len(once.PatientID)
    assert len(twice.DeidentificationMethodCodeSequence) == 3


def test_implicit_vr_is_understood_by_the_dictionary():
    dataset = sample()
    dataset.RequestAttributesSequence = Sequence([sample()])
    dataset.PerformedProtocolCodeSequence = Sequence([sample()])
    after = done(dataset, implicit=True)
    assert b"Doe^Jane" not in encoded(after)
    assert after.PerformedProtocolCodeSequence[0].StudyInstanceUID == after.StudyInstanceUID


def test_sequences_without_end_are_refused():
    dataset = inner = sample()
    for _ in range(80):
        deeper = Dataset()
        inner.PurposeOfReferenceCodeSequence = Sequence([deeper])
        inner = deeper
    with pytest.raises(PrepareError, match="nested"):
        deidentify(dataset, settings(), Pseudonyms(KEY))


def test_letters_of_other_alphabets_in_what_stays_are_not_damaged():
    dataset = sample()
    dataset.SpecificCharacterSet, dataset.Manufacturer = "ISO_IR 100", "Müller"
    dataset.PatientName = "Müller^Jürgen"
    after = done(dataset)
    assert after.Manufacturer == "Müller"
    assert "Jürgen".encode("latin-1") not in encoded(after)


def test_the_file_meta_is_not_touched():
    dataset = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"), stop_before_pixels=True)
    before = dict(dataset.file_meta.items())
    deidentify(dataset, settings(), Pseudonyms(KEY))
    assert dict(dataset.file_meta.items()) == before
