"""The header scanner sees what pydicom sees, and follows nobody into the depths."""

from __future__ import annotations

import io
import zlib

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dicom import part10

DEFLATED, ELE, ILE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"


def test_real_headers_read_as_pydicom_reads_them(test_files):
    seen = 0
    for path in test_files:
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
            with open(path, "rb") as file:
                meta = part10.read_meta(file)
                file.seek(meta.dataset_offset)
                header = part10.scan_header(file.read(part10.PREFIX_BYTES), meta.transfer_syntax_uid)
        except (pydicom.errors.InvalidDicomError, ValueError):
            continue
        if header.parsable:
            seen += 1
            assert header.sop_instance_uid == str(dataset.get("SOPInstanceUID", ""))
            assert header.study_instance_uid == str(dataset.get("StudyInstanceUID", "") or "")
            assert header.modality == (dataset.get("Modality", "") or "")
    assert seen > 60


def test_our_meta_is_what_pydicom_expects():
    content = part10.meta_bytes("1.2.840.10008.5.1.4.1.1.2", "1.2.3", ELE, source_ae="CT1", private=b"x" * 2048)
    meta = pydicom.dcmread(io.BytesIO(content)).file_meta
    assert (meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID) == ("1.2.3", ELE)
    assert meta.SourceApplicationEntityTitle == "CT1"
    assert part10.read_meta(io.BytesIO(content)).dataset_offset == len(content)


@given(st.binary(max_size=2000), st.sampled_from([ELE, ILE, DEFLATED, "1.2.840.10008.1.2.2"]))
def test_whatever_the_bytes_the_scanner_answers(content, syntax):
    part10.scan_header(content, syntax)


def test_a_deflated_bomb_stays_small():
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = squeeze.compress(b"\0" * (64 << 20)) + squeeze.flush()
    assert not part10.scan_header(bomb[: part10.PREFIX_BYTES], DEFLATED).sop_instance_uid


@pytest.mark.parametrize("depth", [10, 300, 5000])
def test_nested_sequences_do_not_recurse(depth):
    content = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * depth
    part10.scan_header(content, ELE)
