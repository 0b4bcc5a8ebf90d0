"""Images of every form that pixels come in, made by numpy and pydicom; what several tests of renditions share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset

from gateway.dicom.part10 import meta_bytes, read_meta
from gateway.model.transfer_syntax import EXPLICIT_LE, IMPLICIT_LE
from gateway.prepare.transcode import transcode

MATRIX = {
    "8 bit": {"bits": 8},
    "16 bit": {},
    "12 in 16": {"stored": 12},
    "12 in 16 signed": {"stored": 12, "signed": 1},
    "16 signed": {"signed": 1},
    "dirty high bits": {"stored": 12, "dirty": True},
    "embedded overlay": {"stored": 12, "dirty": True, "overlay": True},
    "8 in 16": {"stored": 8},
    "odd size": {"rows": 51, "columns": 33},
    "odd size 8 bit": {"bits": 8, "rows": 51, "columns": 33},
    "RGB": {"bits": 8, "samples": 3},
    "RGB by plane": {"bits": 8, "samples": 3, "planar": 1},
    "RGB 16 bit": {"samples": 3},
    "YBR_FULL": {"bits": 8, "samples": 3, "photometric": "YBR_FULL"},
    "palette": {"bits": 8, "photometric": "PALETTE COLOR"},
    "30 frames": {"frames": 30},
    "30 frames RGB by plane": {"bits": 8, "samples": 3, "planar": 1, "frames": 30, "rows": 51, "columns": 33},
    "500 frames": {"frames": 500, "rows": 40, "columns": 40},
}


def image(
    bits=16,
    stored=None,
    signed=0,
    samples=1,
    planar=0,
    rows=64,
    columns=48,
    frames=1,
    photometric=None,
    dirty=False,
    overlay=False,
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
    if overlay:  # PS3.3 C.9.2, retired: in the highest bit of each sample
        for element, vr, value in (
            (0x10, "US", rows),
            (0x11, "US", columns),
            (0x40, "CS", "G"),
            (0x50, "SS", [1, 1]),
            (0x100, "US", bits),
            (0x102, "US", bits - 1),
        ):
            dataset.add_new(0x60000000 + element, vr, value)
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
