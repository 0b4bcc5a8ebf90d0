"""What the codecs save and cost beside DCMTK's on the same files, and what `auto` makes of a line."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import pydicom
from material import make_ct, warm
from peers import Gateway, dcmtk, push
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from gateway.dicom.part10 import meta_bytes, read_meta
from gateway.emulator.line import Line
from gateway.emulator.wan import Wan
from gateway.model.errors import PrepareError
from gateway.model.transfer_syntax import COMPRESSION, JPEG_LS_LOSSLESS
from gateway.prepare.transcode import transcode

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
CODECS = ("jpeg-ls", "jpeg-2000", "rle")
DCMTK = {"dcmcjpls": [], "dcmcjpeg": ["+e1"], "dcmcrle": []}


def _phantom(rows: int, columns: int, top: int, noise: float, seed: int) -> np.ndarray:
    """Tissue-like: smooth ellipses of different density in air, with the noise of a detector."""
    luck = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    density = np.zeros((rows, columns))
    for number in range(12):
        a, b, u, v = luck.uniform(0.1, 0.8, 2).tolist() + luck.uniform(-0.4, 0.4, 2).tolist()
        inside = ((x - u) / a) ** 2 + ((y - v) / b) ** 2 < 1
        density += inside * (1 - number / 14) * (0.8 + 0.2 * np.cos(3 * x * (number + 1)))
    density = density / density.max() * top
    return np.clip(density + (density > 0) * luck.normal(0, noise, density.shape), 0, None)


def _saved(folder: Path, name: str, pixels: np.ndarray, bits: int, stored: int) -> Path:
    dataset = pydicom.dcmread(TEST_FILES / "CT_small.dcm")
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = (
        bits,
        stored,
        stored - 1,
        0,
    )
    if pixels.ndim == 3:
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.PixelData = pixels.astype(f"<u{bits // 8}").tobytes()
    dataset["PixelData"].VR = "OW" if bits == 16 else "OB"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    path = folder / f"{name}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def _images(folder: Path) -> dict[str, Path]:
    gray = _phantom(512, 512, 220, 3, 5)
    images = {
        "CT 512": make_ct(folder / "ct", 1, 3) / "0.dcm",
        "MR 256": _saved(folder, "mr", _phantom(256, 256, 900, 12, 1), 16, 12),
        "CR 2140x1760": _saved(folder, "cr", _phantom(2140, 1760, 3500, 8, 2), 16, 12),
        "MG 3328x2560": _saved(folder, "mg", _phantom(3328, 2560, 14000, 40, 3), 16, 14),
        "US colour": _saved(folder, "us", np.stack([gray, gray, np.clip(gray + 20, 0, 255)], -1).clip(0, 255), 8, 8),
    }
    for name in ("CT_small", "MR_small", "examples_rgb_color", "examples_palette", "US1_UNCR"):
        path = TEST_FILES / f"{name}.dcm"
        if path.exists() and pydicom.dcmread(path).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian:
            images[name] = path
    return images


def _pixel_bytes(path: Path) -> int:
    return len(pydicom.dcmread(path).PixelData)


def codecs(work: Path, quick: bool) -> None:
    """Ratio of native to coded pixel data, ours and DCMTK's."""
    print(f"{'ratio':20}" + "".join(f"{name:>11}" for name in (*CODECS, *DCMTK)))
    worst = 0.0
    for name, path in _images(work).items():
        native, row = _pixel_bytes(path), []
        sizes: dict[str, int] = {}
        for codec in CODECS:
            sizes[codec] = _coded_bytes(work, path, codec) or native
            row.append(native / sizes[codec])
        for program, options in DCMTK.items():
            out = work / "dcmtk.dcm"
            done = subprocess.run([program, *options, str(path), str(out)], capture_output=True)
            sizes[program] = _pixel_bytes(out) if done.returncode == 0 else 0
            row.append(native / sizes[program] if sizes[program] else float("nan"))
        if sizes["dcmcjpls"]:
            worst = max(worst, sizes["jpeg-ls"] / sizes["dcmcjpls"])
        print(f"{name:20}" + "".join(f"{ratio:11.2f}" for ratio in row), flush=True)
    print(f"JPEG-LS, ours to dcmcjpls, largest size ratio: {worst:.4f} (target <= 1.01)")
    _speed(work, quick)


def _coded_bytes(work: Path, path: Path, codec: str) -> int | None:
    with open(path, "rb") as file:
        meta = read_meta(file)
    out = work / "coded"
    try:
        transcode(path, meta.dataset_offset, meta.transfer_syntax_uid, COMPRESSION[codec], out)
    except PrepareError:
        return None
    file = work / "coded.dcm"
    file.write_bytes(meta_bytes(meta.sop_class_uid, meta.sop_instance_uid, COMPRESSION[codec]) + out.read_bytes())
    return _pixel_bytes(file)


def _one(path: Path, out: Path) -> None:
    with open(path, "rb") as file:
        meta = read_meta(file)
    transcode(path, meta.dataset_offset, meta.transfer_syntax_uid, JPEG_LS_LOSSLESS, out)


def _speed(work: Path, quick: bool) -> None:
    count = 60 if quick else 200
    paths = sorted(make_ct(work / "speed", count, 9).iterdir())
    rates = {}
    for workers in (1, 2):
        with ProcessPoolExecutor(workers) as pool:
            for job in [pool.submit(_one, paths[0], work / f"w{number}") for number in range(4)]:
                job.result()  # the workers are there and have loaded their codecs
            started = time.perf_counter()
            jobs = [pool.submit(_one, path, work / f"o{number}") for number, path in enumerate(paths)]
            for job in jobs:
                job.result()
            rates[workers] = sum(_pixel_bytes(p) for p in paths) / 1e6 / (time.perf_counter() - started)
    print(
        f"JPEG-LS compress and verify, CT: 1 worker {rates[1]:.0f} MB/s, 2 workers {rates[2]:.0f} MB/s, "
        f"ratio {rates[2] / rates[1]:.2f} (target >= 1.6)",
        flush=True,
    )


def _through(work: Path, folder: Path, line: Line, more: str, *options: str) -> tuple[float, dict]:
    """Return the seconds from the first image sent to the last confirmation, over a line, and the lane's report."""
    archive = dcmtk(work / "archive", "--fork", *options)
    with Wan(line, to=("127.0.0.1", archive.port)) as wan:
        gateway = Gateway(work / "gw", archive=wan.port, more=more)
        count = sum(1 for _ in folder.iterdir())
        started = time.perf_counter()
        push(gateway.port, [folder])
        while gateway.status()["released"] < count:
            time.sleep(0.01)
        seconds = time.perf_counter() - started
        report = gateway.status()["destinations"]["p"]["compression"]
        gateway.stop()
    archive.stop()
    return seconds, report


def lines(work: Path, quick: bool) -> None:
    """`auto` beside `off` on a slow line and on one without limits, and how full a long line gets."""
    folder = make_ct(work / "study", 60 if quick else 300, 21)
    for name, line, target, rounds in (
        ("20 Mbit/s, 40 ms", Line(rate_mbit_s=20, round_trip_ms=40), 0.45, 1),
        ("no limit", Line(), 1.05, 5),
    ):
        took: dict[str, list[float]] = {"off": [], "auto": []}
        for attempt in range(rounds):
            for mode, seconds in took.items():
                place = work / f"{target}{mode}{attempt}"
                place.mkdir()
                warm(place)
                second, report = _through(place, folder, line, f'compression = "{mode}"\n', "+xa")
                seconds.append(second)
        ratio = median(a / b for a, b in zip(took["auto"], took["off"], strict=True))
        print(
            f"CT study over {name}: auto {median(took['auto']):.2f} s, off {median(took['off']):.2f} s, "
            f"ratio {ratio:.2f} (target <= {target}); {report['choice']}: {report['why']}",
            flush=True,
        )
    place = work / "long"
    place.mkdir()
    seconds, _ = _through(place, folder, Line(rate_mbit_s=50, round_trip_ms=80), 'compression = "off"\n')
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(
        f"50 Mbit/s, 80 ms, uncompressed: {100 * size * 8 / seconds / 50e6:.0f} % of the line (target >= 90)",
        flush=True,
    )
