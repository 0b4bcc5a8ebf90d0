"""Lossless means: another implementation than ours decodes exactly the samples that came. Judges: DCMTK and GDCM."""

from __future__ import annotations

import subprocess
import tracemalloc
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset

from gateway.dicom.part10 import meta_bytes, read_meta
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
from gateway.prepare.transcode import transcode

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
FOREIGN = {
    "jpeg-ls": lambda coded, plain: ["dcmdjpls", str(coded), str(plain)],
    "rle": lambda coded, plain: ["dcmdrle", str(coded), str(plain)],
    "jpeg-2000": lambda coded, plain: ["gdcmconv", "--raw", str(coded), str(plain)],
}
MATRIX = {
    "8 bit": {"bits": 8},
    "16 bit": {},
    "12 in 16": {"stored": 12},
    "12 in 16 signed": {"stored": 12, "signed": 1},
    "16 signed": {"signed": 1},
    "dirty high bits": {"stored": 12, "dirty": True},
    "8 in 16": {"stored": 8},
    "odd size": {"rows": 51, "columns": 33},
    "odd size 8 bit": {"bits": 8, "rows": 51, "columns": 33},
    "RGB": {"bits": 8, "samples": 3},
    "RGB by plane": {"bits": 8, "samples": 3, "planar": 1},
    "YBR_FULL": {"bits": 8, "samples": 3, "photometric": "YBR_FULL"},
    "palette": {"bits": 8, "photometric": "PALETTE COLOR"},
    "30 frames": {"frames": 30},
    "30 frames RGB by plane": {"bits": 8, "samples": 3, "planar": 1, "frames": 30, "rows": 51, "columns": 33},
    "500 frames": {"frames": 500, "rows": 40, "columns": 40},
}


def image(
    bits=16, stored=None, signed=0, samples=1, planar=0, rows=64, columns=48, frames=1, photometric=None, dirty=False
) -> Dataset:
    """A smooth image with large flat areas, so that every codec makes it shorter."""
    luck = np.random.default_rng(7)
    stored = stored or bits
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = EXPLICIT_LE
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3.4"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (
        samples,
        photometric or ("RGB" if samples == 3 else "MONOCHROME2"),
    )
    if samples == 3:
        dataset.PlanarConfiguration = planar
    if photometric == "PALETTE COLOR":
        for number in (1, 2, 3):
            dataset.add_new(0x00281100 + number, "US", [256, 0, 16])
            dataset.add_new(0x00281200 + number, "OW", bytes(512))
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, stored, stored - 1
    dataset.PixelRepresentation = signed
    shape = (frames, samples, rows, columns) if planar else (frames, rows, columns, samples)
    values = np.zeros(shape, np.int64)
    values[..., rows // 3 : rows // 2, :] = 90  # flat, in whichever axis that is
    values += (luck.random(shape) > 0.97) * luck.integers(0, 30, shape) - (50 if signed else 0)
    values &= (1 << bits) - 1 if signed else (1 << stored) - 1
    if dirty:
        values |= (np.arange(values.size).reshape(shape) // 400 % 2) << (bits - 1)
    pixels = values.astype(f"<u{bits // 8}").tobytes()
    dataset.PixelData = pixels + b"\0" * (len(pixels) % 2)
    dataset["PixelData"].VR = "OW" if bits == 16 else "OB"
    dataset.add_new(0x7FE10010, "LO", "VENDOR")
    dataset.add_new(0x7FE11001, "LO", "behind the pixels")
    return dataset


def by_pixel(dataset: Dataset) -> bytes:
    """Native samples, colour-by-pixel, without padding, by numpy alone."""
    size = dataset.BitsAllocated // 8
    samples, frames = dataset.SamplesPerPixel, int(dataset.get("NumberOfFrames", 1) or 1)
    count = dataset.Rows * dataset.Columns * samples * frames
    array = np.frombuffer(dataset.PixelData[: count * size], f"<u{size}")
    if dataset.get("PlanarConfiguration", 0) == 1:
        array = array.reshape(frames, samples, -1).transpose(0, 2, 1)
    return array.tobytes()


def coded(folder: Path, path: Path, target: str, source: str | None = None) -> Path:
    """Transcode a Part 10 file into another."""
    with open(path, "rb") as file:
        meta = read_meta(file)
    out = folder / "out"
    transcode(path, meta.dataset_offset, source or meta.transfer_syntax_uid, target, out)
    made = folder / "made.dcm"
    made.write_bytes(meta_bytes(meta.sop_class_uid, meta.sop_instance_uid, target) + out.read_bytes())
    return made


def saved(folder: Path, dataset: Dataset, syntax: str = EXPLICIT_LE) -> Path:
    path = folder / "source.dcm"
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, enforce_file_format=True, implicit_vr=syntax == IMPLICIT_LE, little_endian=True)
    return path


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
    decoded = subprocess.run(FOREIGN[codec](made, plain), capture_output=True, text=True)
    assert decoded.returncode == 0, decoded.stderr
    assert by_pixel(pydicom.dcmread(plain)) == by_pixel(dataset)
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
        decoded = subprocess.run(FOREIGN[codec](made, plain), capture_output=True, text=True)
        assert decoded.returncode == 0, (path.name, decoded.stderr)
        original = pydicom.dcmread(path)
        if meta.transfer_syntax_uid == EXPLICIT_BE and original.BitsAllocated == 16:
            original.PixelData = np.frombuffer(original.PixelData, ">u2").astype("<u2").tobytes()
        assert by_pixel(pydicom.dcmread(plain)) == by_pixel(original), path.name
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
    elif name == "subsampled":
        dataset.PhotometricInterpretation, dataset.SamplesPerPixel = "YBR_FULL_422", 3
    elif name == "no rows":
        del dataset.Rows
    return dataset


@pytest.mark.parametrize("name", ["no pixels", "too short", "1 bit", "32 bit", "subsampled", "no rows"])
def test_what_cannot_be_exact_is_passed_on(tmp_path, name):
    with pytest.raises(PrepareError):
        coded(tmp_path, saved(tmp_path, spoiled(name)), JPEG_LS_LOSSLESS)


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
