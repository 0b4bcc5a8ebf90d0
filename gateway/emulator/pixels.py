"""Phantoms become Pixel Data: stored values, noise, colour, both planar orders, JPEG Baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.emulator import projections, sections
from gateway.emulator.canvas import Image, grain
from gateway.emulator.profile import Pixels
from gateway.emulator.shipped import ProfileError

PHANTOMS: dict[str, Callable[[int, int, float, int], Image]] = {
    "thorax": sections.thorax,
    "head ct": sections.head_ct,
    "head t1": sections.head_t1,
    "head t2": sections.head_t2,
    "head flair": sections.head_flair,
    "uptake": sections.uptake,
    "dose": sections.dose,
    "chest": projections.chest,
    "hand": projections.hand,
    "breast": projections.breast,
    "coronary": projections.coronary,
    "barium": projections.barium,
    "liver": projections.liver,
    "heart": projections.beating_heart,
    "skeleton": projections.skeleton,
    "film": projections.film,
}
BODIES = 3
"""So many different bodies are painted; noise makes every image another."""
PLACES = 32
"""So many places along a body are painted."""


@lru_cache(maxsize=PLACES + 8)
def _painted(pixels: Pixels, place: int, body: int) -> npt.NDArray[Any]:
    """Stored values without noise, or, in colour, uint8 by pixel."""
    image = np.clip(PHANTOMS[pixels.phantom](pixels.rows, pixels.columns, place / PLACES, body), 0, 1)
    if pixels.colour:
        return _coloured(image, pixels, place, body)
    low, high = pixels.range
    return np.asarray(low + image * (high - low), np.uint16 if min(low, high) >= 0 else np.int32)


@lru_cache(maxsize=4)
def _noise(rows: int, columns: int, deviation: float) -> npt.NDArray[Any]:
    luck = np.random.default_rng(rows * 8192 + columns)
    return np.asarray(luck.normal(0, deviation, (rows, columns)), np.int32)


def _coloured(image: Image, pixels: Pixels, place: int, body: int) -> npt.NDArray[Any]:
    """Grey as RGB; with flow, what is dark inside the picture is red or blue."""
    grey = (image * 255).astype(np.uint8)
    colours = np.repeat(grey[..., None], 3, axis=2)
    if pixels.colour == "doppler":
        flow = grain(body + 50, pixels.rows, pixels.columns, 0.06) + np.sin(place * 2 * np.pi * 3 / PLACES)
        rows, columns = np.ogrid[: pixels.rows, : pixels.columns]
        box = (abs(rows - 0.5 * pixels.rows) < 0.22 * pixels.rows) & (
            abs(columns - 0.5 * pixels.columns) < 0.18 * pixels.columns
        )
        shown = box & (grey < 12) & (abs(flow) > 0.2)
        strength = np.clip(90 + 80 * abs(flow), 0, 255).astype(np.uint8)
        colours[shown] = 0
        colours[..., 0] = np.where(shown & (flow > 0), strength, colours[..., 0])
        colours[..., 2] = np.where(shown & (flow < 0), strength, colours[..., 2])
    return colours


def frame(pixels: Pixels, place: float, seed: int, number: int) -> npt.NDArray[Any]:
    """Return one frame: uint8, uint16 or int16 of shape (rows, columns), or uint8 (rows, columns, 3)."""
    if pixels.phantom not in PHANTOMS:
        raise ProfileError(f"no phantom {pixels.phantom!r}; there are {', '.join(PHANTOMS)}")
    painted = _painted(pixels, int(min(place, 0.999) * PLACES), seed % BODIES)
    luck = np.random.default_rng((seed, number))
    if pixels.colour:
        # One spot of each picture is its own, as a clock in the corner would be; speckle is there already.
        made = painted.copy()
        made[:8, : min(64, pixels.columns)] = luck.integers(0, 255, (8, min(64, pixels.columns), 3), np.uint8)
        return made
    if pixels.noise:
        shift = (int(luck.integers(pixels.rows)), int(luck.integers(pixels.columns)))
        painted = painted.astype(np.int32) + np.roll(_noise(pixels.rows, pixels.columns, pixels.noise), shift, (0, 1))
    low, high = (
        (-(1 << pixels.stored - 1), (1 << pixels.stored - 1) - 1) if pixels.signed else (0, (1 << pixels.stored) - 1)
    )
    kind = np.dtype(f"<{'i' if pixels.signed else 'u'}{pixels.allocated // 8}")
    return np.asarray(np.clip(painted, low, high).astype(kind))


def native(pixels: Pixels, places: Iterator[float], seed: int, number: int) -> bytes:
    """Return Pixel Data of all frames, as an uncompressed Transfer Syntax has it."""
    content = BytesIO()  # one copy: an object may have gigabytes
    for index, place in enumerate(places):
        made = frame(pixels, place, seed, number * 10007 + index)
        content.write((made.transpose(2, 0, 1) if pixels.colour and pixels.planar else made).tobytes())
    content.write(b"\0" * (content.tell() % 2))
    return content.getvalue()


def jpeg(pixels: Pixels, places: Iterator[float], seed: int, number: int) -> list[bytes]:
    """Return each frame as JPEG Baseline, YBR_FULL_422 where in colour. Needs the extra `jpeg`."""
    try:
        from imagecodecs import jpeg8_encode
    except ImportError as error:
        raise ProfileError('JPEG needs imagecodecs: pip install "dicom-edge-gateway[jpeg]"') from error
    made = []
    for index, place in enumerate(places):
        picture = frame(pixels, place, seed, number * 10007 + index)
        if pixels.colour:
            level = pixels.jpeg_quality
            content = jpeg8_encode(picture, level, colorspace="rgb", outcolorspace="ycbcr", subsampling="422")
        else:
            content = jpeg8_encode(picture, pixels.jpeg_quality)
        made.append(bytes(content))
    return made
