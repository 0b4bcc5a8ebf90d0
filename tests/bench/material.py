"""What is sent: CT of 0.5 MB, MR of 27 KB, one large multi-frame."""

from __future__ import annotations

import os
from pathlib import Path

from pydicom.uid import generate_uid

from gateway.emulator.study import ct_study

WARM_BYTES = 1 << 30


def make_ct(folder: Path, count: int, seed: int) -> Path:
    folder.mkdir(parents=True)
    for number, dataset in enumerate(ct_study(seed, count)):
        dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


def make_mr(folder: Path, count: int, seed: int) -> Path:
    folder.mkdir(parents=True)
    dataset = next(ct_study(seed, 1))
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    dataset.Modality, dataset.Rows, dataset.Columns = "MR", 116, 116
    pixels = dataset.PixelData[: 116 * 116 * 2]
    for number in range(count):
        dataset.PixelData = pixels
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


def make_big(folder: Path, size: int) -> Path:
    """One multi-frame CT of about `size` bytes, alone in a folder."""
    folder.mkdir(parents=True)
    dataset = next(ct_study(5, 1))
    frame = dataset.PixelData
    frames = size // len(frame)
    dataset.NumberOfFrames = frames
    dataset.PixelData = b""
    path = folder / "big.dcm"
    dataset.save_as(path, enforce_file_format=True)
    content = path.read_bytes()[:-12]
    with open(path, "wb") as file:
        file.write(content + b"\xe0\x7f\x10\x00OW\0\0" + (frames * len(frame)).to_bytes(4, "little"))
        for _ in range(frames):
            file.write(frame)
    return folder


def warm(folder: Path) -> None:
    """Give every measurement memory that the machine has touched: a virtual one pays 10 us for each new page, which
    would drown what is measured. The same for all peers."""
    path = folder / "warm"
    block = bytes(1 << 20)
    with open(path, "wb") as file:
        for _ in range(WARM_BYTES // len(block)):
            file.write(block)
        os.fsync(file.fileno())
    path.unlink()
