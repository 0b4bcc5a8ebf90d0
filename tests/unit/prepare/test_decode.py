"""What others compressed comes back as their own decoders have it; what lost something once says so for good.

Judges: DCMTK and GDCM. Decoders of what is lossy may round differently (ISO/IEC 10918-2 and 15444-4 allow it): one step
of a sample is tolerated there, and nothing where nothing was lost.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.uid import UID

from gateway.model.errors import PrepareError
from gateway.model.transfer_syntax import (
    EXPLICIT_LE,
    HTJ2K,
    HTJ2K_LOSSLESS_RPCL,
    IMPLICIT_LE,
    JPEG_2000,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_LS_LOSSLESS,
    LOSSLESS,
    LOSSY_METHODS,
    NATIVE,
)
from gateway.prepare.recipe import target_syntax
from tests.images import MATRIX, by_pixel, coded, image, saved

LOSSLESS_CODERS = {
    "JPEG-LS by DCMTK": (["dcmcjpls"], ["dcmdjpls"]),
    "RLE by DCMTK": (["dcmcrle"], ["dcmdrle"]),
    "JPEG SV1 by DCMTK": (["dcmcjpeg", "+e1"], ["dcmdjpeg", "+cn"]),
    "JPEG Lossless by DCMTK": (["dcmcjpeg", "+el"], ["dcmdjpeg", "+cn"]),
    "JPEG SV1 by GDCM": (["gdcmconv", "--jpeg"], ["gdcmconv", "--raw"]),
    "JPEG 2000 by GDCM": (["gdcmconv", "--j2k"], ["gdcmconv", "--raw"]),
    "JPEG-LS by GDCM": (["gdcmconv", "--jpegls"], ["gdcmconv", "--raw"]),
}
KINDS = ["8 bit", "16 bit", "12 in 16", "12 in 16 signed", "16 signed", "odd size 8 bit", "RGB", "YBR_FULL", "palette"]
KINDS += ["30 frames", "RGB by plane"]


def run(command, before: Path, after: Path) -> pydicom.Dataset:
    made = subprocess.run([*command, str(before), str(after)], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return pydicom.dcmread(after)


def samples(dataset) -> np.ndarray:
    return np.frombuffer(by_pixel(dataset), f"<u{dataset.BitsAllocated // 8}").astype(int)


@pytest.mark.parametrize("coder", LOSSLESS_CODERS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_lossless_image_is_decoded_as_by_a_foreign_decoder(tmp_path, kind, coder):
    encode, decode = LOSSLESS_CODERS[coder]
    compressed = tmp_path / "compressed.dcm"
    source = run(encode, saved(tmp_path, image(**MATRIX[kind])), compressed)
    if source.file_meta.TransferSyntaxUID in NATIVE:
        pytest.fail("the foreign coder did nothing")
    judged = run(decode, compressed, tmp_path / "judged.dcm")
    for native in (EXPLICIT_LE, IMPLICIT_LE):
        folder = tmp_path / native
        folder.mkdir()
        made = pydicom.dcmread(coded(folder, compressed, native))
        assert by_pixel(made) == by_pixel(judged)
        assert made.PhotometricInterpretation == judged.PhotometricInterpretation
        assert made.get("PlanarConfiguration", 0) == 0
        assert made.get("LossyImageCompression") == source.get("LossyImageCompression")
        assert made.SOPInstanceUID == source.SOPInstanceUID


LOSSY_CODERS = {
    "JPEG Baseline": (["dcmcjpeg", "+eb", "+q", "60"], ["dcmdjpeg"], 1),
    "JPEG Extended": (["dcmcjpeg", "+ee", "+q", "60"], ["dcmdjpeg"], 1),
    "JPEG Baseline 4:4:4": (["dcmcjpeg", "+eb", "+s4", "+q", "60"], ["dcmdjpeg"], 1),
    "JPEG Baseline RGB": (["dcmcjpeg", "+eb", "+cr"], ["dcmdjpeg"], 1),
    "JPEG-LS": (["dcmcjpls", "+en", "+md", "3"], ["dcmdjpls"], 0),
    "JPEG 2000": (["gdcmconv", "--j2k", "--lossy", "-r", "20"], ["gdcmconv", "--raw"], 1),
}


@pytest.mark.parametrize("coder", LOSSY_CODERS)
@pytest.mark.parametrize("kind", ["8 bit", "16 bit", "12 in 16", "odd size 8 bit", "RGB", "30 frames"])
def test_a_lossy_image_is_decoded_as_by_a_foreign_decoder_and_stays_marked(tmp_path, kind, coder):
    encode, decode, tolerated = LOSSY_CODERS[coder]
    compressed = tmp_path / "compressed.dcm"
    source = run(encode, saved(tmp_path, image(**MATRIX[kind])), compressed)
    syntax = str(source.file_meta.TransferSyntaxUID)
    assert syntax in LOSSY_METHODS
    judged = run(decode, compressed, tmp_path / "judged.dcm")
    made = pydicom.dcmread(coded(tmp_path, compressed, EXPLICIT_LE))
    assert abs(samples(made) - samples(judged)).max() <= tolerated
    assert made.PhotometricInterpretation == judged.PhotometricInterpretation
    assert made.PhotometricInterpretation in ("RGB", "MONOCHROME2")
    assert made.LossyImageCompression == "01"
    if "LossyImageCompressionRatio" not in source or "LossyImageCompressionMethod" in source:  # GDCM says half of it
        assert made.LossyImageCompressionMethod == LOSSY_METHODS[syntax]
    assert float(made.LossyImageCompressionRatio) > 1
    assert made.SOPInstanceUID == source.SOPInstanceUID
    assert made[0x7FE11001].value == "behind the pixels"


MARKS = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


def compressed_by_dcmtk(tmp_path, change=lambda dataset: None, kind="RGB", option="+eb") -> Path:
    path = tmp_path / "compressed.dcm"
    dataset = run(["dcmcjpeg", option], saved(tmp_path, image(**MATRIX[kind])), path)
    change(dataset)
    dataset.save_as(path)
    return path


@pytest.mark.parametrize("behind", [False, True])
def test_the_mark_of_a_lossy_image_is_added_where_it_is_missing(tmp_path, behind):
    def without(dataset):
        for mark in MARKS:
            del dataset[mark]
        if behind:
            dataset.add_new(0x00283010, "SQ", [])

    source = compressed_by_dcmtk(tmp_path, without)
    made = pydicom.dcmread(coded(tmp_path, source, EXPLICIT_LE))
    tags = list(made.keys())
    assert tags == sorted(tags)
    assert made.LossyImageCompression == "01" and made.LossyImageCompressionMethod == "ISO_10918_1"
    stream = sum(map(len, generate_frames(pydicom.dcmread(source).PixelData, number_of_frames=1)))
    assert float(made.LossyImageCompressionRatio) == pytest.approx(64 * 48 * 3 / stream, abs=0.01)


def test_a_jpeg_that_claims_to_have_lost_nothing_is_put_right_and_what_is_known_of_it_kept(tmp_path):
    def denied(dataset):
        dataset.LossyImageCompression = "00"
        dataset.LossyImageCompressionRatio = [7, 3]
        dataset.LossyImageCompressionMethod = ["ISO_15444_1", "ISO_10918_1"]

    made = pydicom.dcmread(coded(tmp_path, compressed_by_dcmtk(tmp_path, denied), EXPLICIT_LE))
    assert made.LossyImageCompression == "01"
    assert list(made.LossyImageCompressionRatio) == [7, 3]


def test_a_jpeg_2000_that_says_it_lost_nothing_is_believed(tmp_path):
    """1.2.840.10008.1.2.4.91 may hold a reversible stream, and only its maker knows whether it was cut."""
    path = tmp_path / "compressed.dcm"
    dataset = run(["gdcmconv", "--j2k"], saved(tmp_path, image()), path)
    dataset.file_meta.TransferSyntaxUID = UID(JPEG_2000)
    dataset.LossyImageCompression = "00"
    dataset.save_as(path)
    made = pydicom.dcmread(coded(tmp_path, path, EXPLICIT_LE))
    assert made.LossyImageCompression == "00" and "LossyImageCompressionMethod" not in made


def photometric(value):
    return lambda dataset: setattr(dataset, "PhotometricInterpretation", value)


def test_colours_that_the_stream_contradicts_are_not_decoded(tmp_path):
    """A JFIF stream is YCbCr; where the data set says RGB, decoders differ about what to show."""
    source = compressed_by_dcmtk(tmp_path, photometric("RGB"))
    with pytest.raises(PrepareError, match="contradicts"):
        coded(tmp_path, source, EXPLICIT_LE)
    (tmp_path / "2").mkdir()
    path = tmp_path / "2" / "compressed.dcm"
    jpeg_2000(path, "YBR_FULL", transformed=True)
    with pytest.raises(PrepareError, match="contradicts"):
        coded(tmp_path / "2", path, EXPLICIT_LE)
    jpeg_2000(path, "YBR_RCT", transformed=False)
    with pytest.raises(PrepareError, match="contradicts"):
        coded(tmp_path / "2", path, EXPLICIT_LE)


def jpeg_2000(path: Path, photometric: str, *, transformed: bool) -> pydicom.Dataset:
    """Write a colour image as JPEG 2000 without loss; return it as it was before."""
    native = image(**MATRIX["RGB"])
    pixels = np.frombuffer(native.PixelData, "u1").reshape(native.Rows, native.Columns, 3)
    stream = imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", reversible=True, mct=transformed)
    dataset = image(**MATRIX["RGB"])
    dataset.PixelData, dataset.PhotometricInterpretation = encapsulate([bytes(stream)]), photometric
    dataset.file_meta.TransferSyntaxUID = UID(JPEG_2000_LOSSLESS)
    dataset.save_as(path, enforce_file_format=True)
    return native


@pytest.mark.parametrize("name", ["YBR_RCT", "RGB"])
def test_the_colour_transformation_of_jpeg_2000_is_undone(tmp_path, name):
    path = tmp_path / "compressed.dcm"
    native = jpeg_2000(path, name, transformed=True)
    made = pydicom.dcmread(coded(tmp_path, path, EXPLICIT_LE))
    assert made.PhotometricInterpretation == "RGB"
    assert made.PixelData == native.PixelData
    assert by_pixel(run(["gdcmconv", "--raw"], path, tmp_path / "judged.dcm")) == by_pixel(native)


@pytest.mark.parametrize("name", ["YBR_FULL_422", "YBR_PARTIAL_420", "HSV", ""])
def test_colours_that_lossless_decoding_would_have_to_guess_are_passed_on(tmp_path, name):
    source = compressed_by_dcmtk(tmp_path, photometric(name), option="+e1")
    with pytest.raises(PrepareError, match="not decoded: 3 samples of"):
        coded(tmp_path, source, EXPLICIT_LE)


@pytest.mark.parametrize("syntax", [HTJ2K, HTJ2K_LOSSLESS_RPCL])
def test_the_other_forms_of_htj2k_are_decoded(tmp_path, syntax):
    dataset = image(**MATRIX["16 signed"])
    pixels = np.frombuffer(dataset.PixelData, "<i2").reshape(dataset.Rows, dataset.Columns)
    dataset.PixelData = encapsulate([imagecodecs.htj2k_encode(pixels, reversible=True)])
    dataset["PixelData"].VR = "OB"
    source = saved(tmp_path, dataset, UID(syntax))
    made = pydicom.dcmread(coded(tmp_path, source, EXPLICIT_LE))
    assert made.PixelData == pixels.tobytes()
    assert made.get("LossyImageCompression") == ("01" if syntax == HTJ2K else None)


def test_offset_tables_do_not_stay_behind(tmp_path):
    source = compressed_by_dcmtk(tmp_path, kind="30 frames", option="+e1")
    dataset = pydicom.dcmread(source)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=30))
    dataset.PixelData, dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = encapsulate_extended(frames)
    dataset.save_as(source)
    made = pydicom.dcmread(coded(tmp_path, source, EXPLICIT_LE))
    assert "ExtendedOffsetTable" not in made and "ExtendedOffsetTableLengths" not in made
    assert by_pixel(made) == by_pixel(image(**MATRIX["30 frames"]))


def test_a_frame_in_several_fragments_is_put_together(tmp_path):
    source = compressed_by_dcmtk(tmp_path, kind="16 bit", option="+e1")
    dataset = pydicom.dcmread(source)
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([frame], fragments_per_frame=4, has_bot=False)
    dataset.save_as(source)
    assert by_pixel(pydicom.dcmread(coded(tmp_path, source, EXPLICIT_LE))) == by_pixel(image())


def test_frames_that_cannot_be_told_apart_are_passed_on(tmp_path):
    source = compressed_by_dcmtk(tmp_path, lambda d: setattr(d, "NumberOfFrames", 29), kind="30 frames", option="+e1")
    with pytest.raises(PrepareError, match="told apart"):
        coded(tmp_path, source, EXPLICIT_LE)


def test_without_the_extra_jpeg_names_it(tmp_path, monkeypatch):
    source = compressed_by_dcmtk(tmp_path)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(PrepareError, match=r"pip install 'dicom-edge-gateway\[jpeg\]'"):
        coded(tmp_path, source, EXPLICIT_LE)


MPEG2, MPEG4, HEVC = "1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.107"


@pytest.mark.parametrize("accepted", [{EXPLICIT_LE, IMPLICIT_LE}, {IMPLICIT_LE}])
def test_who_may_be_decoded(accepted):
    peer = frozenset(accepted)
    native = EXPLICIT_LE if EXPLICIT_LE in accepted else IMPLICIT_LE
    for syntax in LOSSLESS:
        assert target_syntax(syntax, peer) == native
    for syntax in (*LOSSY_METHODS, "1.2.840.10008.1.2.4.93", "1.2.3.4"):
        assert target_syntax(syntax, peer) is None
    for syntax in LOSSY_METHODS:
        assert target_syntax(syntax, peer, allow_decompress=True) == native
        assert target_syntax(syntax, frozenset({JPEG_LS_LOSSLESS}), allow_decompress=True) is None
    for video in (MPEG2, MPEG4, HEVC):
        assert target_syntax(video, peer, allow_decompress=True) is None
    assert JPEG_BASELINE in LOSSY_METHODS and not LOSSLESS & LOSSY_METHODS.keys()
