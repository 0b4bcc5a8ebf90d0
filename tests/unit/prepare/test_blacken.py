"""Rectangles become black and nothing else changes. Judges: DCMTK's renderer for what is black, numpy for the rest."""

from __future__ import annotations

import re
import subprocess
import tracemalloc
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from gateway.config.deidentify import Blacken
from gateway.dicom.part10 import read_meta
from gateway.model.errors import PrepareError
from gateway.prepare.blacken import areas, blacken
from tests.images import MATRIX, image, saved

AREA = (5, 3, 20, 10)
KINDS = [kind for kind in MATRIX if kind != "500 frames"]


def cleaned(tmp_path: Path, dataset: Dataset, *rectangles) -> tuple[pydicom.Dataset, pydicom.Dataset]:
    """Write the data set as a file, blacken it, and read both again."""
    path, out = saved(tmp_path, dataset), tmp_path / "black.dcm"
    with open(path, "rb") as source, open(out, "wb") as target:
        offset = read_meta(source).dataset_offset
        source.seek(0)
        target.write(source.read(offset))
        blacken(source, target, rectangles)
    return pydicom.dcmread(path), pydicom.dcmread(out)


def samples(dataset: Dataset) -> np.ndarray:
    """frames, rows, columns, samples as they lie in memory, without anybody's decoder."""
    frames, count = int(dataset.get("NumberOfFrames", 1)), dataset.SamplesPerPixel
    rows, columns = dataset.Rows, dataset.Columns
    length = frames * count * rows * columns * dataset.BitsAllocated // 8
    flat = np.frombuffer(dataset.PixelData[:length], f"<u{dataset.BitsAllocated // 8}")
    if dataset.get("PlanarConfiguration", 0) == 1:
        return flat.reshape(frames, count, rows, columns).transpose(0, 2, 3, 1)
    return flat.reshape(frames, rows, columns, count)


def inside(dataset: Dataset, *rectangles) -> np.ndarray:
    mask = np.zeros((dataset.Rows, dataset.Columns), bool)
    for x, y, width, height in rectangles:
        mask[y : y + height, x : x + width] = True
    return mask


def rendered(path: Path) -> np.ndarray:
    """The first frame as DCMTK shows it, windowed from darkest to brightest; of a colour its brightest part."""
    made = subprocess.run(["dcm2pnm", "+Wm", str(path)], capture_output=True, check=True).stdout
    head = re.match(rb"(P[56])\n(?:#[^\n]*\n)*(\d+) (\d+)\n255\n", made)
    width, height, depth = int(head[2]), int(head[3]), 3 if head[1] == b"P6" else 1
    flat = np.frombuffer(made[-width * height * depth :], np.uint8)
    return flat.reshape(height, width, depth).max(axis=2)


def others_equal(before: Dataset, after: Dataset) -> bool:
    del before.PixelData, after.PixelData
    return before == after


@pytest.mark.parametrize("kind", KINDS)
def test_the_area_is_black_for_another_decoder_and_the_rest_is_as_it_was(tmp_path, kind):
    dataset = image(**MATRIX[kind])
    if kind == "palette":
        for number in (1, 2, 3):  # the darkest is neither the first nor the last
            colours = np.roll(np.arange(256, dtype="<u2"), 99) * 256
            dataset[0x00281200 + number].value = colours.tobytes()
    before, after = cleaned(tmp_path, dataset, AREA)
    mask = inside(before, AREA)
    one, two = samples(before), samples(after)
    assert np.array_equal(one[:, ~mask], two[:, ~mask])
    assert len(np.unique(two[:, mask].reshape(-1, before.SamplesPerPixel), axis=0)) == 1
    assert not np.array_equal(one, two)
    assert set(rendered(tmp_path / "black.dcm")[mask]) == {0}
    if kind in ("dirty high bits", "embedded overlay"):
        assert not (two[:, mask] >> before.BitsStored).any()
    assert others_equal(before, after)


@pytest.mark.parametrize(("signed", "black"), [(0, 0x0FFF), (1, 0x07FF)])
def test_black_is_the_highest_value_of_monochrome1(tmp_path, signed, black):
    dataset = image(stored=12, signed=signed, photometric="MONOCHROME1")
    before, after = cleaned(tmp_path, dataset, AREA)
    mask = inside(before, AREA)
    assert set(samples(after)[0][mask].ravel()) == {black}
    assert set(rendered(tmp_path / "black.dcm")[mask]) == {0}


def test_black_is_the_lowest_value_of_signed_samples(tmp_path):
    before, after = cleaned(tmp_path, image(stored=12, signed=1), AREA)
    assert set(samples(after)[0][inside(before, AREA)].ravel()) == {0xF800}
    assert after.pixel_array[inside(before, AREA)].max() == -2048


@pytest.mark.parametrize(("signed", "photometric", "black"), [(1, "MONOCHROME2", 0x8000), (0, "MONOCHROME1", 0xFFF0)])
def test_samples_that_lie_high_in_their_words_become_black_there(tmp_path, signed, photometric, black):
    dataset = image(stored=12, signed=signed, photometric=photometric)
    dataset.HighBit = 15
    before, after = cleaned(tmp_path, dataset, AREA)
    assert set(samples(after)[0][inside(before, AREA)].ravel()) == {black}


def test_chrominance_without_colour_is_in_the_middle(tmp_path):
    before, after = cleaned(tmp_path, image(bits=8, samples=3, photometric="YBR_FULL"), AREA)
    assert {tuple(pixel) for pixel in samples(after)[0][inside(before, AREA)]} == {(0, 128, 128)}


def test_two_pixels_that_share_their_chrominance_become_black_together(tmp_path):
    path = Path(pydicom.__file__).parent / "data/test_files/SC_ybr_full_422_uncompressed.dcm"
    before, after = cleaned(tmp_path, pydicom.dcmread(path), (5, 3, 20, 10))
    units = [np.frombuffer(d.PixelData, np.uint8).reshape(before.Rows, before.Columns // 2, 4) for d in (before, after)]
    mask = inside(before, (4, 3, 22, 10))[:, ::2]
    assert np.array_equal(units[0][~mask], units[1][~mask])
    assert {tuple(unit) for unit in units[1][mask]} == {(0, 0, 128, 128)}
    assert set(rendered(tmp_path / "black.dcm")[inside(before, (6, 4, 18, 8))]) == {0}


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("rows", "columns", "frames"), [(16, 16, 1), (5, 7, 1), (5, 7, 19), (3, 8, 4)])
def test_single_bits_are_found_where_frames_begin_inside_a_byte(tmp_path, photometric, rows, columns, frames):
    dataset = image(bits=8, rows=rows, columns=columns, frames=frames, photometric=photometric)
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = 0
    bits = np.random.default_rng(3).integers(0, 2, (frames, rows, columns)).astype(np.uint8)
    packed = np.packbits(bits, bitorder="little").tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    before, after = cleaned(tmp_path, dataset, (1, 1, 4, 2))
    mask = inside(before, (1, 1, 4, 2))
    one, two = (d.pixel_array.reshape(frames, rows, columns) for d in (before, after))
    assert np.array_equal(one[:, ~mask], two[:, ~mask])
    assert (two[:, mask] == (photometric == "MONOCHROME1")).all()


def test_32_bits(tmp_path):
    dataset = image(bits=32)
    before, after = cleaned(tmp_path, dataset, AREA)
    mask = inside(before, AREA)
    assert not samples(after)[0][mask].any()
    assert np.array_equal(samples(before)[0][~mask], samples(after)[0][~mask])


def test_rectangles_are_cut_to_the_image_and_may_overlap(tmp_path):
    rectangles = [(40, 60, 1000, 1000), (45, 0, 3, 65535), (44, 10, 2, 2), (500, 500, 9, 9)]
    before, after = cleaned(tmp_path, image(), *rectangles)
    mask = inside(before, *rectangles)
    assert mask.any() and not mask.all()
    assert not samples(after)[0][mask].any()
    assert np.array_equal(samples(before)[0][~mask], samples(after)[0][~mask])


def test_no_rectangle_changes_nothing(tmp_path):
    path = saved(tmp_path, image())
    before, after = cleaned(tmp_path, image())
    assert before == after
    assert path.read_bytes() == (tmp_path / "black.dcm").read_bytes()


def refused(tmp_path, dataset, sentence):
    with pytest.raises(PrepareError, match=sentence):
        cleaned(tmp_path, dataset, AREA)


def test_what_black_is_must_be_certain(tmp_path):
    refused(tmp_path, image(bits=8, samples=3, photometric="CMYK"), "3 samples of CMYK")
    dataset = image(bits=8, photometric="PALETTE COLOR")
    del dataset[0x00281203]
    refused(tmp_path, dataset, "no palette")
    dataset = image()
    dataset.HighBit = 20
    refused(tmp_path, dataset, "Bits Stored and High Bit")
    dataset = image()
    dataset.PixelData += b"\0\0"
    refused(tmp_path, dataset, "not as long")
    dataset = image()
    dataset.PixelData = dataset.PixelData[:-2]
    refused(tmp_path, dataset, "not as long")
    dataset = image()
    del dataset.PixelData
    refused(tmp_path, dataset, "no Pixel Data")


def test_compressed_pixels_are_refused(tmp_path):
    path = Path(pydicom.__file__).parent / "data/test_files/JPEG2000.dcm"
    with open(path, "rb") as source:
        source.seek(read_meta(source).dataset_offset)
        with pytest.raises(PrepareError, match="compressed"):
            blacken(source, BytesIO(), [AREA])


def test_memory_is_bounded_by_a_row(tmp_path):
    dataset = image(rows=2000, columns=2000, frames=10)
    path = saved(tmp_path, dataset)
    del dataset
    with open(path, "rb") as source, open(tmp_path / "out", "wb") as target:
        source.seek(read_meta(source).dataset_offset)
        tracemalloc.start()
        blacken(source, target, [(0, 0, 2000, 100)])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert path.stat().st_size > 80_000_000
    assert peak < 8_000_000


def us(**more) -> Dataset:
    dataset = Dataset()
    dataset.Modality, dataset.Manufacturer, dataset.ManufacturerModelName = "US", "ACME", "Sono 3"
    dataset.StationName, dataset.Rows, dataset.Columns = "US1", 600, 800
    for name, value in more.items():
        setattr(dataset, name, value)
    return dataset


def test_the_rules_that_match_add_up():
    rules = [
        Blacken(modality="US", rectangles=[(0, 0, 800, 50)]),
        Blacken(modality="US", model="Sono 3", size=(800, 600), rectangles=[(0, 550, 800, 50), (0, 0, 800, 50)]),
        Blacken(modality="US", station="US2", rectangles=[(1, 1, 1, 1)]),
        Blacken(modality="CT", rectangles=[(2, 2, 2, 2)]),
    ]
    assert areas(us(), rules) == ((0, 0, 800, 50), (0, 550, 800, 50))
    assert areas(us(Rows=601), rules) == ((0, 0, 800, 50),)
    assert areas(us(StationName="US2"), rules)[-1] == (1, 1, 1, 1)


def test_an_image_that_no_rule_knows_is_held():
    with pytest.raises(PrepareError, match="no blacken rule"):
        areas(us(Modality="OT"), [Blacken(modality="US", rectangles=[])])
    with pytest.raises(PrepareError, match="no blacken rule"):
        areas(us(), [Blacken(modality="US", manufacturer="Other", rectangles=[(0, 0, 1, 1)])])


def test_a_rule_without_areas_vouches_for_images_unless_they_contradict():
    rules = [Blacken(modality="US", rectangles=[])]
    assert areas(us(), rules) == ()
    with pytest.raises(PrepareError, match="says where"):
        areas(us(BurnedInAnnotation="YES"), rules)


def test_what_is_no_image_needs_no_rule():
    report = Dataset()
    report.Modality = "SR"
    assert areas(report, [Blacken(modality="US", rectangles=[])]) == ()
