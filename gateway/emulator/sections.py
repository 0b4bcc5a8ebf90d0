"""Sections through bodies that nobody has: CT, MR, PET and dose. `place` runs from 0 to 1 along the body."""

from __future__ import annotations

import numpy as np

from gateway.emulator.canvas import Canvas, Image, grain


def _hu(value: float) -> float:
    """A CT number as part of the 4096 that twelve bits hold, from -1024."""
    return (value + 1024) / 4095


def _vessels(canvas: Canvas, luck: np.random.Generator, x: float, y: float, reach: float, value: float) -> None:
    """Branches from a hilum outwards."""
    for _ in range(26):
        angle, length = luck.uniform(0, 2 * np.pi), reach * luck.uniform(0.4, 1.0)
        middle = (x + 0.55 * length * np.cos(angle), y + 0.7 * length * np.sin(angle))
        turned = angle + luck.uniform(-0.6, 0.6)
        end = (middle[0] + 0.4 * length * np.cos(turned), middle[1] + 0.5 * length * np.sin(turned))
        canvas.stroke((x, y), middle, 0.012, value, end_radius=0.007)
        canvas.stroke(middle, end, 0.007, value, end_radius=0.003)


def thorax(rows: int, columns: int, place: float, seed: int) -> Image:
    """An axial CT of the chest: lungs with vessels, heart and aorta, ribs, spine, the table below."""
    luck = np.random.default_rng((seed, int(place * 1000)))
    wide = float(np.sin(np.pi * (0.12 + 0.76 * place)))
    canvas = Canvas(rows, columns, _hu(-1000))
    canvas.stroke((-0.55, 0.83), (0.55, 0.83), 0.03, _hu(-150))
    canvas.stroke((-0.5, 0.83), (0.5, 0.83), 0.018, _hu(-800))
    canvas.ellipse(0, 0.04, 0.86, 0.62, _hu(60), edge=0.01)
    canvas.ellipse(0, 0.04, 0.85, 0.61, _hu(-105), edge=0.01)
    canvas.ellipse(0, 0.04, 0.77, 0.54, _hu(48), edge=0.04)
    for side in (-1, 1):
        lung = Canvas(rows, columns)
        lung.ellipse(side * 0.40, -0.01, 0.30 * wide + 0.02, 0.42 * wide + 0.02, 1.0, turn=side * 0.12)
        inside = lung.image > 0.5
        air = Canvas(rows, columns, _hu(-860))
        air.mottle(seed + 3, 0.02, 0.006)
        _vessels(air, luck, side * 0.17, 0.04, 0.62 * wide, _hu(20))
        canvas.image = np.where(inside, air.image, canvas.image)
        for angle in np.linspace(-2.3, 2.3, 7) + 0.5 * place:
            x, y = side * 0.41 + side * 0.33 * np.cos(angle), 0.02 + 0.47 * np.sin(angle)
            lean = float(np.arctan2(0.47 * np.cos(angle), -0.33 * side * np.sin(angle)))
            if side * x > 0.12:
                canvas.ellipse(float(x), float(y), 0.058, 0.021, _hu(620), turn=lean)
                canvas.ellipse(float(x), float(y), 0.042, 0.010, _hu(240), turn=lean)
    heart = float(np.clip(1.6 * np.sin(np.pi * (place - 0.2)), 0.02, 1.15))
    if heart > 0.1:
        canvas.ellipse(0.10, -0.13, 0.27 * heart, 0.23 * heart, _hu(52), turn=0.5)
        canvas.ellipse(0.16, -0.10, 0.12 * heart, 0.09 * heart, _hu(160), turn=0.6, edge=0.3)
        canvas.ellipse(-0.02, -0.16, 0.10 * heart, 0.12 * heart, _hu(150), edge=0.3)
    else:
        canvas.ellipse(0, -0.12, 0.16, 0.20, _hu(10), edge=0.2)
    canvas.ellipse(-0.03, 0.03, 0.038, 0.042, _hu(-990))
    canvas.ellipse(0.10, 0.22, 0.062, 0.062, _hu(175))
    canvas.ellipse(0.015, 0.16, 0.035, 0.026, _hu(45))
    _vertebra(canvas, 0.0, 0.33)
    for side in (-1, 1):
        canvas.stroke((side * 0.30, 0.50), (side * 0.58, 0.40), 0.022, _hu(500), end_radius=0.014)
        canvas.ellipse(side * 0.16, 0.47, 0.13, 0.075, _hu(62), turn=side * 0.25)
    canvas.stroke((-0.05, -0.49), (0.05, -0.49), 0.022, _hu(420))
    return canvas.image


def _vertebra(canvas: Canvas, x: float, y: float) -> None:
    canvas.ellipse(x, y, 0.115, 0.092, _hu(640), edge=0.05)
    canvas.ellipse(x, y, 0.098, 0.076, _hu(260), edge=0.2)
    canvas.stroke((x - 0.09, y + 0.11), (x - 0.19, y + 0.15), 0.024, _hu(480))
    canvas.stroke((x + 0.09, y + 0.11), (x + 0.19, y + 0.15), 0.024, _hu(480))
    canvas.ellipse(x, y + 0.13, 0.085, 0.07, _hu(560), edge=0.05)
    canvas.ellipse(x, y + 0.125, 0.056, 0.046, _hu(25), edge=0.1)
    canvas.stroke((x, y + 0.19), (x, y + 0.27), 0.020, _hu(500))


SCALP, SKULL, FLUID, GREY, WHITE = range(5)
CONTRAST = {
    "t1": (0.80, 0.05, 0.10, 0.42, 0.58),
    "t2": (0.42, 0.04, 0.95, 0.56, 0.38),
    "flair": (0.40, 0.04, 0.06, 0.58, 0.42),
    "ct": (_hu(20), _hu(950), _hu(6), _hu(42), _hu(30)),
}
"""Signal of each tissue, in the order of the names above."""


def _head(rows: int, columns: int, place: float, seed: int, contrast: str) -> Image:
    signal = CONTRAST[contrast]
    size = float(0.55 + 0.45 * np.sin(np.pi * (0.12 + 0.70 * place)))
    canvas = Canvas(rows, columns, _hu(-1000) if contrast == "ct" else 0.01)
    a, b = 0.68 * size, 0.84 * size
    canvas.ellipse(0, 0, a, b, signal[SCALP], edge=0.02)
    canvas.ellipse(0, 0, a - 0.045, b - 0.045, signal[SKULL], edge=0.02)
    canvas.ellipse(0, 0, a - 0.095, b - 0.095, signal[FLUID], edge=0.02)
    # The cortex: where a wavy field folds the distance from the rim, grey and white matter alternate.
    depth = 1 - np.sqrt((canvas.x / (a - 0.115)) ** 2 + (canvas.y / (b - 0.115)) ** 2)
    folds = grain(seed, rows, columns, 0.05) + 0.8 * grain(seed + 1, rows, columns, 0.11)
    slow = grain(seed + int(8 * place), rows, columns, 0.05)
    ribbon = depth + 0.075 * folds + 0.03 * slow
    brain = np.where(ribbon > 0.16, signal[WHITE], signal[GREY])
    sulcus = (depth < 0.30) & (np.abs(folds + 0.4 * slow) < 0.9 * np.clip(0.30 - depth, 0, 1))
    brain = np.where(sulcus, 0.3 * signal[GREY] + 0.7 * signal[FLUID], brain)
    canvas.image = np.where(depth > 0, brain, canvas.image).astype(np.float32)
    canvas.stroke((0, -b + 0.13), (0, -0.30 * size), 0.010, signal[FLUID])
    canvas.stroke((0, 0.36 * size), (0, b - 0.13), 0.010, signal[FLUID])
    deep = float(np.clip(1 - abs(place - 0.5) / 0.28, 0, 1))
    for side in (-1, 1):
        if deep > 0.05:
            canvas.ellipse(side * 0.17 * size, -0.02, 0.085 * deep, 0.17 * deep, signal[GREY], turn=side * -0.35)
            canvas.ellipse(side * 0.085 * size, -0.17 * size, 0.050 * deep, 0.15 * deep, signal[FLUID], turn=side * 0.3)
            canvas.ellipse(side * 0.14 * size, 0.22 * size, 0.045 * deep, 0.14 * deep, signal[FLUID], turn=side * -0.4)
        if place < 0.28:  # orbits
            canvas.ellipse(side * 0.24 * size, -0.66 * size, 0.14 * size, 0.15 * size, signal[SCALP], edge=0.1)
            canvas.ellipse(side * 0.24 * size, -0.68 * size, 0.11 * size, 0.11 * size, signal[FLUID], edge=0.08)
    if place < 0.35:  # cerebellum and brain stem
        canvas.ellipse(0, 0.50 * size, 0.36 * size, 0.20 * size, 0.5 * (signal[GREY] + signal[WHITE]), edge=0.1)
        canvas.ellipse(0, 0.16 * size, 0.12 * size, 0.13 * size, signal[WHITE], edge=0.1)
        canvas.ellipse(0, 0.31 * size, 0.06 * size, 0.04 * size, signal[FLUID], edge=0.1)
    if contrast != "ct":  # a receive coil sees what is near it better
        canvas.image *= 1 + 0.12 * (canvas.x**2 + canvas.y**2) + 0.06 * canvas.x
    return canvas.image


def head_t1(rows: int, columns: int, place: float, seed: int) -> Image:
    """An axial T1-weighted head."""
    return _head(rows, columns, place, seed, "t1")


def head_t2(rows: int, columns: int, place: float, seed: int) -> Image:
    """An axial T2-weighted head."""
    return _head(rows, columns, place, seed, "t2")


def head_flair(rows: int, columns: int, place: float, seed: int) -> Image:
    """An axial FLAIR of a head."""
    return _head(rows, columns, place, seed, "flair")


def head_ct(rows: int, columns: int, place: float, seed: int) -> Image:
    """An axial CT of a head."""
    return _head(rows, columns, place, seed, "ct")


def uptake(rows: int, columns: int, place: float, seed: int) -> Image:
    """A PET section: brain at the top, heart, liver, kidneys and bladder below, and two lesions."""
    luck = np.random.default_rng(seed)
    canvas = Canvas(rows, columns, 0.004)
    width = 0.26 if place < 0.16 else 0.60
    canvas.ellipse(0, 0, width, width * 0.72, 0.055, edge=0.2)
    hot: tuple[tuple[float, float, float, float, float, float, float], ...] = (
        (0.06, 0.10, 0, 0, 0.20, 0.15, 0.75),  # brain
        (0.36, 0.05, 0.13, -0.12, 0.14, 0.11, 0.70),  # heart
        (0.52, 0.10, -0.22, -0.02, 0.30, 0.25, 0.20),  # liver
        (0.62, 0.06, -0.26, 0.16, 0.07, 0.09, 0.45),  # kidneys
        (0.62, 0.06, 0.26, 0.16, 0.07, 0.09, 0.45),
        (0.95, 0.06, 0, -0.06, 0.13, 0.11, 1.0),  # bladder
        (0.30 + luck.uniform(0, 0.1), 0.04, luck.uniform(-0.4, -0.2), 0.02, 0.045, 0.045, 0.8),
        (0.72 + luck.uniform(0, 0.1), 0.04, luck.uniform(0.1, 0.3), 0.10, 0.04, 0.04, 0.7),
    )
    if place > 0.2 and place < 0.45:
        for side in (-1, 1):
            canvas.ellipse(side * 0.28, -0.02, 0.2, 0.28, 0.02, edge=0.4)
    for centre, thick, x, y, a, b, value in hot:
        near = float(np.exp(-(((place - centre) / thick) ** 2)))
        if near > 0.05:
            canvas.ellipse(x, y, a, b, value * near, edge=0.7, add=True)
            if centre < 0.1 or value == 0.70:  # rind of the brain, wall of the heart
                canvas.ellipse(x, y, a * 0.55, b * 0.5, -0.45 * value * near, edge=0.8, add=True)
    canvas.mottle(seed + 5, 0.02, 0.006)
    return np.clip(canvas.image, 0, None)


def dose(rows: int, columns: int, place: float, seed: int) -> Image:
    """A plan's dose: a target that four beams cross."""
    canvas = Canvas(rows, columns)
    near = float(np.exp(-(((place - 0.5) / 0.22) ** 4)))
    for angle in (0.3, 1.2, 2.0, 2.8):
        c, s = float(np.cos(angle)), float(np.sin(angle))
        canvas.stroke((-0.9 * c, -0.9 * s), (0.9 * c, 0.9 * s), 0.19, 0.2 * near, edge=0.25, add=True)
    canvas.ellipse(0, 0, 0.24, 0.20, 0.14 * near, edge=0.4, add=True)
    canvas.ellipse(0, 0.04, 0.86, 0.62, 0.005, edge=0.05, add=True)
    return np.clip(canvas.image, 0, 1)
