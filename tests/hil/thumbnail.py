"""A small picture of what a scanner sent, as a PNG in a data URI."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Set
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from gateway.emulator.encoding import encode
from gateway.emulator.exam import Act
from gateway.emulator.objects import JPEG_BASELINE, study
from gateway.emulator.orders import order
from gateway.emulator.profile import load
from tests.hil.verdict import Object

SIDE = 144


@dataclass(frozen=True, slots=True)
class Picture:
    """What a profile's first object shows; without pixels `uri` is empty."""

    profile: str
    about: str
    kind: str
    """Modality, size and number of frames."""
    sop_instance_uid: str
    sha256: str
    uri: str


def first_picture(name: str, act: Act, sent: Set[Object]) -> Picture | None:
    """Return the picture of the first study of a scanner that worked as `act` says; None unless `sent` has that very
    object, byte for byte."""
    profile = load(name)
    modality, data = profile.series[0].modality, profile.data
    comes = order(act.seed, modality, profile.exam.description, letters=data.names, station=profile.network.ae_title)
    one = next(study(profile, comes, act.seed, act.limits)).dataset
    own = str(one.file_meta.TransferSyntaxUID)
    syntax = own if own == JPEG_BASELINE else profile.network.syntaxes[0]
    uid, digest = str(one.SOPInstanceUID), encode(one, syntax, data).sha256
    if (uid, digest) not in sent:
        return None
    has_pixels = "PixelData" in one
    kind = f"{one.Modality} {one.Columns}x{one.Rows}" if has_pixels else f"{one.Modality}"
    frames = int(one.get("NumberOfFrames", 1) or 1) if has_pixels else 1
    kind += f", {frames} frames" if frames > 1 else ""
    return Picture(name, profile.about, kind, uid, digest, _uri(one) if has_pixels else "")


def _uri(dataset: Dataset) -> str:
    return "data:image/png;base64," + base64.b64encode(png(_small(_frame(dataset)))).decode()


def _frame(dataset: Dataset) -> np.ndarray[Any, Any]:
    """The middle frame, as stored values."""
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    rows, columns, samples = dataset.Rows, dataset.Columns, dataset.SamplesPerPixel
    if str(dataset.file_meta.TransferSyntaxUID) == JPEG_BASELINE:
        return np.asarray(imagecodecs.jpeg8_decode(list(generate_frames(dataset.PixelData))[frames // 2]))
    kind = {8: "u1", 16: "<u2", 32: "<u4"}[dataset.BitsAllocated]
    kind = kind.replace("u", "i") if dataset.PixelRepresentation else kind
    count = rows * columns * samples
    values = np.frombuffer(dataset.PixelData, kind, count, frames // 2 * count * np.dtype(kind).itemsize)
    if samples == 1:
        return values.reshape(rows, columns)
    if dataset.PlanarConfiguration:
        return values.reshape(samples, rows, columns).transpose(1, 2, 0)
    return values.reshape(rows, columns, samples)


def _small(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """No longer than SIDE, and as grey levels that show something."""
    step = max(1, -(-max(values.shape[:2]) // SIDE))
    values = values[::step, ::step].astype(np.float64)
    if values.ndim == 3:
        return values.astype(np.uint8)
    low, high = np.percentile(values, (1, 99.5))
    return (np.clip((values - low) / max(high - low, 1e-9), 0, 1) * 255).astype(np.uint8)


def png(image: np.ndarray[Any, Any]) -> bytes:
    """Return a PNG (RFC 2083) of an 8 bit image, grey or RGB."""
    rows, columns = image.shape[:2]
    lines = b"".join(b"\0" + line.tobytes() for line in image)
    head = struct.pack(">IIBBBBB", columns, rows, 8, 2 if image.ndim == 3 else 0, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b"")]
    chunks = (struct.pack(">I", len(body)) + k + body + struct.pack(">I", zlib.crc32(k + body)) for k, body in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
