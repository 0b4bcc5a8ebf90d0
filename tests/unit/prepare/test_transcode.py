"""Lossless means: another implementation than ours decodes exactly the samples that came (DCMTK, GDCM, OpenJPEG)."""

from __future__ import annotations

import subprocess
import tracemalloc
from pathlib import Path

import imagecodecs
import numpy as np
import openjpeg
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from gateway.dicom.part10 import read_meta
from gateway.model.errors import PrepareError
from gateway.model.transfer_syntax import (
    COMPRESSION,
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    JPEG_LS_LOSSLESS,
    RLE_LOSSLESS,
)
from gateway.prepare import transcode as room
from tests.images import MATRIX, by_pixel, coded, image, saved

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def by_command(*command: str):
    def decoded(coded: Path, plain: Path) -> pydicom.Dataset:
        made = subprocess.run([*command, str(coded), str(plain)], capture_output=True, text=True)
        assert made.returncode == 0, made.stderr
        return pydicom.dcmread(plain)

    return decoded


def by_two_libraries(coded: Path, plain: Path) -> pydicom.Dataset:
    """HTJ2K: no tool of Debian's knows its Transfer Syntax, so pydicom takes the frames out, and OpenJPEG and OpenJPH
    must agree about them."""
    dataset = pydicom.dcmread(coded)
    frames = []
    for stream in generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames", 1))):
        openjph = imagecodecs.htj2k_decode(stream, planar=False)
        frame = bytes(openjpeg.decode_pixel_data(stream, version=2))
        assert openjph.tobytes() == frame
        frames.append(frame)
    dataset.PixelData = b"".join(frames)
    return dataset


FOREIGN = {
    "jpeg-ls": by_command("dcmdjpls"),
    "rle": by_command("dcmdrle"),
    "jpeg-2000": by_command("gdcmconv", "--raw"),
    "htj2k": by_two_libraries,
}


@pytest.mark.parametrize("codec", FOREIGN)
@pytest.mark.parametrize("kind", MATRIX)
def test_a_foreign_decoder_gets_the_same_samples(tmp_path, kind, codec):
    dataset = image(**MATRIX[kind])
    source = saved(tmp_path, dataset)
    try:
        made = coded(tmp_path, source, COMPRESSION[codec])
    except PrepareError as error:
        assert "no shorter" in error.detail and codec == "rle"
        return
    plain = tmp_path / "plain.dcm"
    assert by_pixel(FOREIGN[codec](made, plain)) == by_pixel(dataset)
    assert pydicom.dcmread(made)[0x7FE11001].value == "behind the pixels"


@pytest.mark.parametrize("codec", FOREIGN)
def test_only_the_pixels_and_what_their_syntax_obliges_change(tmp_path, codec):
    dataset = image(bits=8, samples=3, planar=1, rows=200, columns=200)
    source = saved(tmp_path, dataset)
    made = coded(tmp_path, source, COMPRESSION[codec])
    before, after = source.read_bytes(), made.read_bytes()
    start = before.index(b"\x08\x00\x16\x00UI")
    until = before.index(b"\xe0\x7f\x10\x00OB")
    again = after.index(b"\x08\x00\x16\x00UI")
    head = bytearray(before[start:until])
    planar = head.index(b"\x28\x00\x06\x00US\x02\x00") + 8
    head[planar : planar + 2] = b"\0\0"
    assert after[again : again + len(head)] == bytes(head)
    tail = before[before.index(b"\xe1\x7f\x10\x00LO") :]
    assert after.endswith(tail)


@pytest.mark.parametrize("codec", FOREIGN)
def test_what_a_lossless_syntax_encapsulates_comes_back_native(tmp_path, codec):
    dataset = image(bits=8, samples=3, planar=1, frames=3, rows=120, columns=101)
    made = coded(tmp_path, saved(tmp_path, dataset), COMPRESSION[codec])
    second = tmp_path / "second"
    second.mkdir()
    native = pydicom.dcmread(coded(second, made, EXPLICIT_LE))
    assert by_pixel(native) == by_pixel(dataset)
    assert native.PlanarConfiguration == 0
    assert native[0x7FE11001].value == "behind the pixels"


REAL = [path for path in sorted(TEST_FILES.glob("*.dcm")) if "DICOMDIR" not in path.name]
NATIVE = (IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE, DEFLATED_LE)


@pytest.mark.parametrize("codec", FOREIGN)
def test_real_files_are_exact_or_passed_on(tmp_path, codec):
    exact = 0
    for path in REAL:
        try:
            with open(path, "rb") as file:
                meta = read_meta(file)
        except ValueError:
            continue
        if meta.transfer_syntax_uid not in NATIVE:
            continue
        folder = tmp_path / path.stem
        folder.mkdir()
        try:
            made = coded(folder, path, COMPRESSION[codec])
        except PrepareError:
            continue
        plain = folder / "plain.dcm"
        decoded = FOREIGN[codec](made, plain)
        original = pydicom.dcmread(path)
        if meta.transfer_syntax_uid == EXPLICIT_BE and original.BitsAllocated == 16:
            original.PixelData = np.frombuffer(original.PixelData, ">u2").astype("<u2").tobytes()
        assert by_pixel(decoded) == by_pixel(original), path.name
        exact += 1
    assert exact >= 10


def test_a_deflated_data_set_inflates_to_the_same_bytes(tmp_path):
    source = saved(tmp_path, image())
    made = coded(tmp_path, source, DEFLATED_LE)
    assert made.stat().st_size < source.stat().st_size
    plain = tmp_path / "plain.dcm"
    subprocess.run(["dcmconv", "+te", str(made), str(plain)], check=True)
    assert pydicom.dcmread(plain).PixelData == pydicom.dcmread(source).PixelData


@pytest.mark.parametrize("syntax", [IMPLICIT_LE, EXPLICIT_LE])
def test_either_native_form_is_a_source(tmp_path, syntax):
    dataset = image()
    made = coded(tmp_path, saved(tmp_path, dataset, syntax), JPEG_LS_LOSSLESS)
    plain = tmp_path / "plain.dcm"
    subprocess.run(["dcmdjpls", str(made), str(plain)], check=True)
    assert pydicom.dcmread(plain).PixelData == dataset.PixelData


def spoiled(name: str) -> Dataset:
    dataset = image()
    if name == "no pixels":
        del dataset.PixelData
    elif name == "too short":
        dataset.PixelData = dataset.PixelData[:-2]
    elif name == "1 bit":
        dataset.BitsAllocated = 1
    elif name == "32 bit":
        dataset.BitsAllocated, dataset.Rows = 32, dataset.Rows // 2
    elif name in ("float", "double float"):
        pixels, dataset.BitsAllocated = dataset.PixelData, 32 if name == "float" else 64
        del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
        setattr(dataset, "FloatPixelData" if name == "float" else "DoubleFloatPixelData", pixels * 4)
    elif name == "subsampled":
        dataset.PhotometricInterpretation, dataset.SamplesPerPixel = "YBR_FULL_422", 3
    elif name == "no rows":
        del dataset.Rows
    return dataset


@pytest.mark.parametrize("codec", FOREIGN)
@pytest.mark.parametrize(
    "name", ["no pixels", "too short", "1 bit", "32 bit", "float", "double float", "subsampled", "no rows"]
)
def test_what_cannot_be_exact_is_passed_on(tmp_path, name, codec):
    with pytest.raises(PrepareError):
        coded(tmp_path, saved(tmp_path, spoiled(name)), COMPRESSION[codec])


def test_noise_is_passed_on_since_it_would_grow(tmp_path):
    dataset = image(bits=8, rows=200, columns=200)
    dataset.PixelData = np.random.default_rng(1).bytes(200 * 200)
    with pytest.raises(PrepareError, match="no shorter"):
        coded(tmp_path, saved(tmp_path, dataset), RLE_LOSSLESS)


def test_a_codec_that_lies_is_found_out(tmp_path, monkeypatch):
    honest = room.CODECS[JPEG_LS_LOSSLESS]

    def wrong(frame, facts):
        return honest.encode(bytes([frame[0] ^ 1]) + frame[1:], facts)

    monkeypatch.setitem(room.CODECS, JPEG_LS_LOSSLESS, room.Codec(wrong, honest.decode))
    with pytest.raises(PrepareError, match="did not come back equal"):
        coded(tmp_path, saved(tmp_path, image()), JPEG_LS_LOSSLESS)


def test_memory_does_not_grow_with_the_number_of_frames(tmp_path):
    peaks = []
    for frames in (10, 200):
        folder = tmp_path / str(frames)
        folder.mkdir()
        source = saved(folder, image(frames=frames, rows=256, columns=256))
        tracemalloc.start()
        coded(folder, source, JPEG_LS_LOSSLESS)
        peaks.append(tracemalloc.get_traced_memory()[1] - (folder / "out").stat().st_size)
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 256 * 256 * 2 * 20
