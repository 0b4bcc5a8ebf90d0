"""What is wrong with the bytes of a scanner is what it was told to be, and nothing else."""

from __future__ import annotations

import hashlib

import pytest
from pydicom import config
from pydicom.dataset import Dataset

from gateway.emulator.encoding import GARBAGE, UNJUDGED, encode
from gateway.emulator.profile import EXPLICIT, IMPLICIT, Data

UID = "1.2.826.0.1.7"
"""Of odd length."""


def small() -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = "1.2.840.10008.5.1.4.1.1.2", UID, "CT"
    return dataset


def plain(syntax: str = EXPLICIT) -> bytes:
    return encode(small(), syntax, Data()).content


def test_the_digest_is_that_of_the_bytes():
    made = encode(small(), EXPLICIT, Data(defects=["trailing"]))
    assert made.sha256 == hashlib.sha256(made.content).hexdigest()


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_a_uid_of_odd_length_has_no_padding(syntax):
    made = encode(small(), syntax, Data(uid_form="odd")).content
    assert len(made) == len(plain(syntax)) - 1 and len(made) % 2 == 1
    assert UID.encode() + b"\0" not in made and UID.encode() in made


@pytest.mark.parametrize(
    ("defect", "front", "behind"),
    [
        ("stray-item", b"\xfe\xff\x00\xe0\0\0\0\0", b""),
        ("meta-element", b"\x02\0\x10\0UI\x12\x001.2.840.10008.1.2\0", b""),
        ("odd-length", b"\x07\0\x01\x10LO\x05\0three", b""),
        ("unordered", b"", b"\x08\0\x01\x02SH\x06\0+0100 "),
        ("trailing", b"", GARBAGE),
    ],
)
def test_a_defect_leaves_the_rest_alone(defect, front, behind):
    assert encode(small(), EXPLICIT, Data(defects=[defect])).content == front + plain() + behind


def test_a_wrong_vr_is_in_the_data_set():
    assert b"\x40\0\x55\x05LO" in encode(small(), EXPLICIT, Data(defects=["wrong-vr"])).content


def test_what_is_said_and_what_is_encoded_differ_when_told_so():
    assert encode(small(), IMPLICIT, Data(encode_as="explicit")).content == plain(EXPLICIT)
    assert encode(small(), EXPLICIT, Data(encode_as="implicit")).content == plain(IMPLICIT)
    assert encode(small(), "1.2.3.4", Data(syntax="1.2.3.4")).content == plain(IMPLICIT)


def test_pydicom_judges_again_when_the_last_scanner_is_done():
    before = config.settings.reading_validation_mode
    with UNJUDGED:
        with UNJUDGED:
            pass
        assert config.settings.reading_validation_mode == config.IGNORE
    assert config.settings.reading_validation_mode == before
