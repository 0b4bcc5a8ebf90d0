"""The values that rules look at are those that pydicom reads."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.multival import MultiValue

from gateway.dicom import part10
from gateway.dicom.attributes import NUMBER_VRS, READABLE_VRS, attribute_values

DEFLATED, ELE, ILE, EBE = ("1.2.840.10008.1.2" + end for end in (".1.99", ".1", "", ".2"))
CHARSET_FILES = sorted((Path(pydicom.__file__).parent / "data" / "charset_files").glob("*.dcm"))


def seen_by_us(path: Path, wanted: dict[int, str]) -> dict[int, str]:
    with open(path, "rb") as file:
        meta = part10.read_meta(file)
        file.seek(meta.dataset_offset)
        return attribute_values(file.read(part10.PREFIX_BYTES), meta.transfer_syntax_uid, wanted)


def as_pydicom_reads(element) -> list[str]:
    values = element.value if isinstance(element.value, (MultiValue, list)) else [element.value]
    end = "^= " if element.VR == "PN" else " "
    return [str("" if value is None else value).strip("\0 ").rstrip(end) for value in values]


def readable(dataset) -> dict[int, str]:
    return {int(e.tag): e.VR for e in dataset if e.VR in READABLE_VRS and 8 <= e.tag.group < 0x7FE0}


def test_real_attributes_read_as_pydicom_reads_them(test_files):
    compared = 0
    for path in [*test_files, *CHARSET_FILES]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dataset = pydicom.dcmread(path, stop_before_pixels=True)
                wanted = readable(dataset)
                ours = seen_by_us(path, wanted)
        except (pydicom.errors.InvalidDicomError, ValueError, TypeError, OSError):
            continue
        for tag, text in ours.items():
            expected = as_pydicom_reads(dataset[tag])
            if len(text) > 100 or len(str(dataset[tag].value)) > 100:
                continue
            if wanted[tag] in NUMBER_VRS:
                assert [float(n) for n in text.split("\\") if n] == pytest.approx([float(n) for n in expected if n])
            else:
                assert [part.strip() for part in text.split("\\")] == [
                    part.strip() for value in expected for part in value.split("\\")
                ], (path.name, dataset[tag])
            compared += 1
    assert compared > 3000


@pytest.mark.parametrize("path", CHARSET_FILES, ids=lambda path: path.stem)
def test_a_name_is_compared_in_its_own_letters(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = str(pydicom.dcmread(path).get("PatientName", ""))
    assert seen_by_us(path, {0x00100010: "PN"}).get(0x00100010, "") == expected.rstrip("^= ")


def encoded(syntax: str, **values) -> bytes:
    dataset = pydicom.Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    file = io.BytesIO()
    pydicom.filewriter.dcmwrite(file, dataset, implicit_vr=syntax == ILE, little_endian=syntax != EBE)
    return file.getvalue()


@pytest.mark.parametrize("syntax", [ELE, ILE, EBE])
def test_numbers_and_texts_are_the_same_in_every_syntax(syntax):
    content = encoded(syntax, PatientSex="F", Rows=512, SpecificCharacterSet="ISO_IR 192", PatientName="Müller^Änne")
    wanted = {0x00100040: "CS", 0x00280010: "US", 0x00100010: "PN", 0x00100020: "LO"}
    seen = attribute_values(content, syntax, wanted)
    assert seen == {0x00100040: "F", 0x00280010: "512", 0x00100010: "Müller^Änne"}


def test_what_stands_in_a_sequence_is_not_seen():
    inner = pydicom.Dataset()
    inner.PatientSex = "F"
    content = encoded(ELE, RequestAttributesSequence=[inner], Rows=1)
    assert attribute_values(content, ELE, {0x00100040: "CS", 0x00280010: "US"}) == {0x00280010: "1"}


def test_a_value_that_the_prefix_cuts_is_not_seen():
    content = encoded(ELE, PatientName="A" * 40)
    assert attribute_values(content[:-20], ELE, {0x00100010: "PN"}) == {}


def test_a_long_value_is_seen_by_its_beginning_even_when_the_cut_goes_through_a_letter():
    content = encoded(ELE, SpecificCharacterSet="ISO_IR 192", ImageComments="x" + "ä" * 200)
    assert attribute_values(content, ELE, {0x00204000: "LT"}) == {0x00204000: "x" + "ä" * 63}


@pytest.mark.parametrize("character_set", ["", "NONSENSE", "ISO_IR 192", "\\ISO 2022 IR 87", "ISO 2022 IR 13\\\\"])
def test_letters_that_cannot_be_decoded_are_read_as_latin_1(character_set):
    charset = character_set.encode() + b" " * (len(character_set) % 2)
    content = (
        b"\x08\x00\x05\x00CS" + len(charset).to_bytes(2, "little") + charset + b"\x10\x00\x10\x00PN\x04\x00M\xfcn "
    )
    assert attribute_values(content, ELE, {0x00100010: "PN"})[0x00100010][:1] == "M"


@given(st.binary(max_size=2000), st.sampled_from([ELE, ILE, DEFLATED, EBE]), st.sampled_from([b"", b"\x1b$B", b"\\"]))
def test_whatever_the_bytes_the_scanner_answers(content, syntax, more):
    header = b"\x08\x00\x05\x00CS\x10\x00\\ISO 2022 IR 87 \x10\x00\x10\x00PN" if syntax == ELE else b""
    content = header + (len(content + more).to_bytes(2, "little") if header else b"") + more + content
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = attribute_values(content, syntax, {0x00100010: "PN", 0x00280010: "US", 0x00181020: "LO"})
    assert all(len(text) <= part10.MAX_VALUE_BYTES * 2 for text in seen.values())
