"""Synthetic CT studies: complete CT Image Storage instances (PS3.3 A.3) from a seed, of a phantom nobody is."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

SIDE = 512
MIDDLE = (SIDE - 1) / 2


def uid(*parts: object) -> str:
    """Return a UID derived from `parts` (PS3.5 B.2): the same seed gives the same study."""
    digest = sha256("/".join(map(str, parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:15], 'big')}"


def _ellipse(x: float, y: float, a: float, b: float) -> np.ndarray:
    rows, columns = np.ogrid[:SIDE, :SIDE]
    inside = ((columns - MIDDLE - x) / a) ** 2 + ((rows - MIDDLE - y) / b) ** 2 <= 1
    return np.asarray(inside)


class Phantom:
    """A body with lungs, spine and noise, in Hounsfield units; slices differ smoothly."""

    def __init__(self, seed: int) -> None:
        self._luck = np.random.default_rng(seed)
        self._noise = self._luck.normal(0, 12, (SIDE * 2, SIDE * 2)).astype(np.int16)
        self._body = _ellipse(0, 10, 210, 160)
        self._spine = _ellipse(0, 115, 28, 26)

    def slice(self, place: float) -> np.ndarray:
        """Return a 512 x 512 int16 slice; `place` runs from 0 to 1."""
        image = np.full((SIDE, SIDE), -1000, np.int16)
        image[self._body] = 40
        lung = 40 + 55 * np.sin(np.pi * place)
        for side in (-1, 1):
            image[_ellipse(side * 85, -5, lung, lung * 1.3)] = -820
        image[_ellipse(25, -20, 42, 46)] = 55
        image[self._spine] = 420
        row, column = self._luck.integers(0, SIDE, 2)
        return np.asarray(image + self._noise[row : row + SIDE, column : column + SIDE], np.int16)


def ct_study(seed: int, images: int) -> Iterator[Dataset]:
    """Yield the instances of one CT study, in order of the table."""
    phantom = Phantom(seed)
    for number in range(1, images + 1):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        _patient_and_study(dataset, seed)
        _series(dataset, seed, number)
        _image(dataset, phantom.slice(number / images), number)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        yield dataset


def _patient_and_study(dataset: Dataset, seed: int) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = f"EMULATED^CT^{seed}"
    dataset.PatientID = f"EMU{seed:06d}"
    dataset.PatientBirthDate = "19700101"
    dataset.PatientSex = "O"
    dataset.StudyInstanceUID = uid(seed, "study")
    dataset.StudyID = str(seed % 65536)
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = "20260101"
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = "120000"
    dataset.AccessionNumber = f"A{seed % 10**8:08d}"
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "Emulated chest"


def _series(dataset: Dataset, seed: int, number: int) -> None:
    dataset.Modality = "CT"
    dataset.SeriesInstanceUID = uid(seed, "series")
    dataset.SeriesNumber = 1
    dataset.FrameOfReferenceUID = uid(seed, "frame")
    dataset.PositionReferenceIndicator = ""
    dataset.Manufacturer = "Emulated"
    dataset.PatientPosition = "HFS"
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = uid(seed, "image", number)


def _image(dataset: Dataset, pixels: np.ndarray, number: int) -> None:
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.InstanceNumber = number
    dataset.AcquisitionNumber = 1
    dataset.ImagePositionPatient = [-180, -180, -1.25 * number]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [0.703125, 0.703125]
    dataset.SliceThickness = 1.25
    dataset.KVP = 120
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = 16
    dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 1
    dataset.RescaleIntercept = 0
    dataset.RescaleSlope = 1
    dataset.RescaleType = "HU"
    dataset.WindowCenter, dataset.WindowWidth = 40, 400
    dataset.add_new(0x7FE00010, "OW", pixels.astype("<i2").tobytes())
