"""Pictures by projection, echo or decay: radiographs, mammograms, angiograms, ultrasound, scintigrams."""

from __future__ import annotations

import numpy as np

from gateway.emulator.canvas import Canvas, Image, grain


def chest(rows: int, columns: int, place: float, seed: int) -> Image:
    """A chest radiograph from behind: bright is what absorbs."""
    luck = np.random.default_rng((seed, 11))
    canvas = Canvas(rows, columns, 0.03)
    canvas.ellipse(0, 0.42, 0.80, 1.25, 0.48, edge=0.08)
    for side in (-1, 1):
        canvas.stroke((side * 0.52, -0.52), (side * 0.92, 0.1), 0.19, 0.50, edge=0.35)  # shoulders and arms
        canvas.ellipse(side * 0.34, 0.02, 0.255, 0.56, 0.16, turn=side * -0.09, edge=0.11)
        canvas.ellipse(side * 0.36, 0.68, 0.34, 0.20 if side < 0 else 0.17, 0.56, edge=0.16)  # diaphragm
    canvas.stroke((0, -1.0), (0, 1.0), 0.085, 0.16, edge=0.35, add=True)  # spine
    for level in np.linspace(-0.9, 0.9, 15):
        canvas.ellipse(0, float(level), 0.075, 0.045, 0.05, edge=0.3, add=True)
    canvas.ellipse(0.13, 0.26, 0.24, 0.27, 0.60, turn=0.5, edge=0.20)  # heart
    canvas.ellipse(0.0, -0.08, 0.115, 0.33, 0.54, edge=0.35)
    canvas.ellipse(0.10, -0.22, 0.07, 0.07, 0.58, edge=0.3)  # aortic knob
    canvas.stroke((0, -0.75), (0, -0.15), 0.032, -0.12, add=True)  # trachea
    for side in (-1, 1):
        for number in range(9):
            y = -0.52 + 0.125 * number
            reach = 0.34 + 0.016 * number
            canvas.rib(side * 0.10, y + 0.03, reach + 0.10, 0.13, *_span(side, -1.45, 0.55), 0.018, 0.055)
            if number < 6:
                canvas.rib(side * 0.12, y + 0.15, reach + 0.06, 0.17, *_span(side, 0.25, 1.2), 0.016, 0.035)
        canvas.path([(side * 0.04, -0.52), (side * 0.25, -0.60), (side * 0.52, -0.64)], 0.024, 0.13, add=True)
        for _ in range(34):  # vessels leave the hilum
            angle, length = luck.uniform(-1.4, 1.4), luck.uniform(0.1, 0.33)
            start = (side * 0.10, 0.02 + luck.uniform(-0.06, 0.10))
            end = (start[0] + side * length * float(np.cos(angle)), start[1] + length * 1.3 * float(np.sin(angle)))
            canvas.stroke(start, end, 0.012, 0.04, end_radius=0.004, edge=0.9, add=True)
    canvas.mottle(seed + 1, 0.012, 0.006)
    return canvas.image


def _span(side: int, first: float, last: float) -> tuple[float, float]:
    """The same arc, on either side of the body."""
    return (first, last) if side > 0 else (np.pi - first, np.pi - last)


FINGERS = (
    (-0.36, 0.24, -0.66, -0.10, 2),
    (-0.20, -0.06, -0.30, -0.76, 3),
    (-0.04, -0.10, -0.05, -0.90, 3),
    (0.12, -0.07, 0.19, -0.78, 3),
    (0.26, 0.02, 0.44, -0.54, 3),
)
"""Where a finger begins and ends, and how many bones it has."""


def hand(rows: int, columns: int, place: float, seed: int) -> Image:
    """A radiograph of a hand."""
    canvas = Canvas(rows, columns, 0.04)
    for soft in (0.075, 0.06):
        canvas.stroke((0, 0.66), (0.02, 1.2), soft * 3.2, 0.20, edge=0.12)
        canvas.ellipse(-0.02, 0.30, 0.36, 0.40, 0.22, edge=0.10)
        for x0, y0, x1, y1, _ in FINGERS:
            canvas.stroke((x0, y0), (x1, y1), soft * 1.5, 0.19, end_radius=soft * 1.05, edge=0.2)
    for x0, y0, x1, y1, bones in FINGERS:
        palm = (-0.02 + 0.5 * x0, 0.52 - 0.15 * abs(x0))
        _bone(canvas, palm, (x0, y0), 0.040)
        joints = np.linspace(0, 1, bones + 1) ** 0.85
        for number in range(bones):
            start, end = (
                (float(x0 + (x1 - x0) * at), float(y0 + (y1 - y0) * at)) for at in joints[number : number + 2]
            )
            _bone(canvas, start, end, 0.038 - 0.007 * number)
    for number in range(8):  # the wrist
        x, y = -0.17 + 0.11 * (number % 4), 0.575 + 0.105 * (number // 4)
        canvas.ellipse(x, y, 0.062, 0.055, 0.66, turn=number, edge=0.12)
        canvas.ellipse(x, y, 0.045, 0.040, 0.52, turn=number, edge=0.3)
    _bone(canvas, (-0.10, 0.77), (-0.09, 1.3), 0.085)
    _bone(canvas, (0.13, 0.79), (0.15, 1.3), 0.055)
    canvas.mottle(seed, 0.008, 0.012)
    return canvas.image


def _bone(canvas: Canvas, start: tuple[float, float], end: tuple[float, float], radius: float) -> None:
    """A long bone: dense rind, thin middle, knobs at its ends."""
    (x0, y0), (x1, y1) = start, end
    length = float(np.hypot(x1 - x0, y1 - y0)) or 1.0
    gap = 0.016 / length
    start = (x0 + gap * (x1 - x0), y0 + gap * (y1 - y0))
    end = (x1 - gap * (x1 - x0), y1 - gap * (y1 - y0))
    canvas.stroke(start, end, radius * 0.80, 0.74, edge=0.25)
    canvas.stroke(start, end, radius * 0.48, 0.52, edge=0.5)
    for x, y in (start, end):
        canvas.ellipse(x, y, radius, radius * 0.8, 0.62, edge=0.2)


def breast(rows: int, columns: int, place: float, seed: int) -> Image:
    """A mammogram whose chest wall is at the left edge; `place` is the depth of a tomosynthesis slice, 0 to 1."""
    canvas = Canvas(rows, columns, 0.015)
    left = float(canvas.x[0, 0])
    width = 1.25 * abs(left) + 0.12
    skin = Canvas(rows, columns)
    skin.ellipse(left, 0.04, width, 0.72, 1.0, edge=0.03)
    inside = np.clip(1 - ((canvas.x - left) / width) ** 2 - ((canvas.y - 0.04) / 0.72) ** 2, 0, 1)
    depth = int(place * 12)
    fine = grain(seed + 7 * depth, rows, columns, 0.014) + grain(seed + 7 * depth + 3, rows, columns, 0.028)
    coarse = grain(seed + 1 + depth // 3, rows, columns, 0.11)
    gland = np.exp(-(((canvas.x - left - 0.55 * width) / (0.42 * width)) ** 2) - ((canvas.y - 0.02) / 0.40) ** 2)
    tissue = 0.25 + 0.20 * np.sqrt(inside) + gland * np.clip(0.22 + 0.10 * coarse + 0.055 * fine, 0, None)
    canvas.image = np.where(skin.image > 0.5, tissue, canvas.image).astype(np.float32)
    rim = Canvas(rows, columns)
    rim.ellipse(left, 0.04, width, 0.72, 1.0, edge=0.01)
    rim.ellipse(left, 0.04, width - 0.014, 0.706, 0.0, edge=0.01)
    canvas.image += 0.10 * rim.image
    nipple = (left + width, 0.04)
    luck = np.random.default_rng((seed, 5, depth))
    for _ in range(30):  # ducts and strands run to the nipple
        back = luck.uniform(0.25, 0.95) * width
        start = (nipple[0] - back, nipple[1] + luck.uniform(-0.5, 0.5) * back * 1.1)
        end = (nipple[0] - 0.06, nipple[1] + luck.uniform(-0.02, 0.02))
        canvas.stroke(start, end, 0.004, 0.05, end_radius=0.007, edge=1.2, add=True)
    canvas.ellipse(*nipple, 0.035, 0.035, 0.5, edge=0.4)
    canvas.stroke((left - 0.05, -1.15), (left + 0.02, -0.10), 0.30, 0.18, end_radius=0.02, edge=0.12, add=True)
    if abs(place - 0.5) < 0.35:
        canvas.ellipse(left + 0.45 * width, -0.10, 0.05, 0.045, 0.16, edge=0.7, add=True)
        for _ in range(9):
            spot = (left + 0.47 * width + luck.normal(0, 0.025), 0.2 + luck.normal(0, 0.025))
            canvas.ellipse(float(spot[0]), float(spot[1]), 0.0035, 0.0035, 0.35, edge=0.8, add=True)
    return np.clip(canvas.image, 0, 1) * (skin.image > 0.02) + 0.015


def coronary(rows: int, columns: int, place: float, seed: int) -> Image:
    """An angiogram: contrast runs down a tree of vessels that the heart moves; dark is what absorbs."""
    luck = np.random.default_rng((seed, 21))
    beat = 0.035 * float(np.sin(2 * np.pi * 4 * place))
    canvas = Canvas(rows, columns, 0.74)
    canvas.ellipse(0.15, 0.15, 0.85, 0.75, 0.60, edge=0.5)
    canvas.stroke((-0.75, -1.1), (-0.62, 1.1), 0.15, -0.10, edge=0.5, add=True)
    for level in np.linspace(-1, 1, 7):
        canvas.ellipse(-0.68, float(level), 0.14, 0.11, -0.05, edge=0.3, add=True)
        canvas.rib(-0.7, float(level) + 0.2, 1.5, 0.6, -1.3, 0.2, 0.04, -0.035)
    canvas.ellipse(0.35, 1.05, 0.95, 0.42, -0.12, edge=0.3, add=True)  # diaphragm
    canvas.path([(-0.55, -1.1), (-0.50, -0.75), (-0.38, -0.56), (-0.30, -0.50)], 0.014, 0.36)  # catheter
    filled = float(np.clip(place / 0.35, 0, 1))
    washed = float(np.clip((place - 0.7) / 0.3, 0, 1))
    tree = Canvas(rows, columns)
    for angle, radius in ((0.25, 0.036), (0.95, 0.032)):
        _branch(tree, luck, (-0.30, -0.50), angle, radius, filled * 1.7, beat, 0)
    canvas.image -= (0.42 * (1 - washed)) * np.clip(tree.image, 0, 1)
    blush = Canvas(rows, columns)
    blush.ellipse(0.2, 0.1, 0.5, 0.5, 0.06, edge=0.9)
    canvas.image -= blush.image * washed
    return canvas.image


def _branch(
    tree: Canvas,
    luck: np.random.Generator,
    start: tuple[float, float],
    angle: float,
    radius: float,
    left: float,
    beat: float,
    depth: int,
) -> None:
    """One vessel in short winding pieces, with side branches; `left` is how far the contrast still runs."""
    for piece in range(9 - depth):
        step, turn = luck.uniform(0.09, 0.14), luck.normal(0.03, 0.24)
        forks, side = luck.random() < 0.42, luck.choice((-1, 1)) * luck.uniform(0.5, 1.0)
        if left <= 0:
            continue  # the luck is drawn all the same, so that the tree is the same in every frame
        angle += turn
        bend = beat * (1 + start[0])
        end = (start[0] + step * float(np.cos(angle)) + bend * 0.2, start[1] + step * float(np.sin(angle)) - bend * 0.2)
        narrow = 0.45 if depth == 0 and piece == 4 else 1.0  # a stenosis
        tree.stroke(start, end, radius * narrow, 1.0, end_radius=radius * 0.93, edge=0.35)
        start, radius, left = end, radius * 0.93, left - step
        if forks and depth < 3:
            branch_luck = np.random.default_rng(int(1e6 * (piece + 10 * depth + radius)))
            _branch(tree, branch_luck, start, angle + side, radius * 0.66, left, beat, depth + 1)


def barium(rows: int, columns: int, place: float, seed: int) -> Image:
    """A swallow under fluoroscopy: barium passes the gullet into the stomach; dark is what absorbs."""
    canvas = Canvas(rows, columns, 0.72)
    canvas.ellipse(0, 0.2, 0.85, 1.2, 0.55, edge=0.3)
    for side in (-1, 1):
        canvas.ellipse(side * 0.5, -0.25, 0.32, 0.62, 0.76, edge=0.25)
    canvas.stroke((0, -1.1), (0, 1.1), 0.12, -0.13, edge=0.4, add=True)
    for level in np.linspace(-1, 1, 9):
        canvas.ellipse(0, float(level), 0.11, 0.085, -0.05, edge=0.3, add=True)
        for side in (-1, 1):
            canvas.rib(side * 0.1, float(level), 0.75, 0.35, *_span(side, -1.3, 0.4), 0.022, -0.03)
    canvas.ellipse(0.1, 0.75, 0.95, 0.45, -0.10, edge=0.4, add=True)
    down = [(0.02 + 0.03 * np.sin(4 * t), -1.0 + 1.45 * t) for t in np.linspace(0, 1, 20)]
    head = int(np.clip(place * 1.8, 0, 1) * 19)
    for number in range(max(0, head - 9), head):
        wide = 0.05 + 0.02 * float(np.sin(number * 1.3 + 9 * place))
        canvas.stroke(down[number], down[number + 1], wide, 0.10, edge=0.3)
    full = float(np.clip((place - 0.35) / 0.4, 0, 1))
    if full > 0.05:
        for t in np.linspace(0, full, 12):
            angle = 0.2 + 2.3 * float(t)
            x, y = 0.18 + 0.26 * float(np.cos(angle)) - 0.05, 0.52 + 0.24 * float(np.sin(angle))
            canvas.ellipse(x, y, 0.14 - 0.05 * float(t), 0.13 - 0.04 * float(t), 0.12, edge=0.15)
    canvas.mottle(seed, 0.01, 0.01)
    return canvas.image


def _sector(canvas: Canvas, echo: Image, top: float, opening: float, reach: float) -> Image:
    """What lies inside the fan of a curved probe."""
    across, down = canvas.x, canvas.y - top
    radius, angle = np.sqrt(across**2 + down**2), np.arctan2(across, down)
    inside = (np.abs(angle) < opening) & (radius > 0.22) & (radius < reach)
    return np.where(inside, echo, 0.0).astype(np.float32)


def _speckle(canvas: Canvas, seed: int, moved: int) -> Image:
    """Multiplicative speckle, as echoes have it; it moves with the tissue."""
    real = grain(seed, canvas.rows, canvas.columns, 0.009)
    other = grain(seed + 1, canvas.rows, canvas.columns, 0.009)
    return np.roll(np.sqrt(real**2 + other**2), moved, axis=0)


def liver(rows: int, columns: int, place: float, seed: int) -> Image:
    """Abdominal ultrasound: liver with vessels, gall bladder with its shadow, diaphragm, kidney."""
    canvas = Canvas(rows, columns, 0.30)
    canvas.mottle(seed + 9, 0.05, 0.03)
    canvas.ellipse(0, -0.62, 1.1, 0.14, 0.50, edge=0.4)
    for y in (-0.62, -0.56, -0.51):
        canvas.stroke((-0.6, y), (0.6, y), 0.008, 0.72, edge=0.9)
    canvas.ellipse(0.33, 0.12, 0.22, 0.34, 0.20, turn=-0.5, edge=0.12)  # kidney
    canvas.ellipse(0.33, 0.12, 0.09, 0.20, 0.60, turn=-0.5, edge=0.8)
    shift = 0.03 * float(np.sin(2 * np.pi * place))
    for x, y, a, b, turn in (
        (-0.25, -0.15, 0.24, 0.022, 0.5),
        (-0.05, 0.02, 0.20, 0.028, -0.4),
        (-0.4, 0.2, 0.15, 0.02, 0.9),
    ):
        canvas.ellipse(x, y + shift, a, b + 0.012, 0.42, turn=turn, edge=0.4)
        canvas.ellipse(x, y + shift, a, b, 0.04, turn=turn, edge=0.3)
    canvas.ellipse(0.02, -0.22 + shift, 0.16, 0.085, 0.48, turn=0.7, edge=0.2)
    canvas.ellipse(0.02, -0.22 + shift, 0.15, 0.075, 0.015, turn=0.7, edge=0.15)
    canvas.ellipse(0.08, -0.15 + shift, 0.03, 0.022, 0.95, edge=0.3)  # a stone and its shadow
    canvas.stroke((0.085, -0.11 + shift), (0.16, 0.75), 0.028, 0.05, end_radius=0.07, edge=0.4)
    canvas.rib(0, -0.35, 0.75, 0.98, 0.55, 2.6, 0.014, 0.55)  # diaphragm
    depth = np.clip(1.12 - 0.42 * (canvas.y + 0.6), 0.2, 1.2)
    echo = canvas.image * (0.35 + 0.55 * _speckle(canvas, seed, 0)) * depth
    return _sector(canvas, echo, -0.95, 0.62, 1.75)


def beating_heart(rows: int, columns: int, place: float, seed: int) -> Image:
    """A four-chamber echocardiogram; `place` runs through three beats."""
    squeeze = 1 - 0.22 * float(np.clip(np.sin(2 * np.pi * 3 * place), 0, 1))
    canvas = Canvas(rows, columns, 0.10)
    canvas.mottle(seed + 9, 0.06, 0.03)
    canvas.ellipse(0, 0.08, 0.52, 0.74, 0.52, edge=0.06)
    for x, y, a, b in ((0.20, -0.16, 0.20, 0.36), (-0.21, -0.12, 0.15, 0.30)):
        canvas.ellipse(x, y, a * squeeze, b * (0.5 + 0.5 * squeeze), 0.02, turn=-0.2 * np.sign(x), edge=0.12)
    for x, y in ((0.19, 0.47), (-0.19, 0.45)):
        canvas.ellipse(x, y, 0.19 * (1.9 - squeeze) * 0.9, 0.19, 0.02, edge=0.12)
    swing = 0.12 * (1 - squeeze) / 0.22
    for side in (-1, 1):  # valves open and close
        canvas.stroke((side * 0.04, 0.25), (side * 0.15, 0.20 - swing), 0.012, 0.8, edge=0.8)
        canvas.stroke((side * 0.36, 0.25), (side * 0.25, 0.20 - swing), 0.012, 0.8, edge=0.8)
    canvas.rib(0, 0.08, 0.53, 0.75, 0, 6.3, 0.012, 0.35)
    depth = np.clip(1.1 - 0.3 * (canvas.y + 0.6), 0.2, 1.2)
    echo = canvas.image * (0.3 + 0.6 * _speckle(canvas, seed, int(10 * squeeze))) * depth
    return _sector(canvas, echo, -1.0, 0.68, 1.85)


SKELETON: tuple[tuple[tuple[float, float], tuple[float, float], float], ...] = (
    ((0, -0.72), (0, 0.02), 0.022),
    ((-0.10, 0.06), (0.10, 0.06), 0.045),
    ((-0.17, -0.67), (0.17, -0.67), 0.012),
    ((-0.19, -0.66), (-0.27, -0.30), 0.012),
    ((0.19, -0.66), (0.27, -0.30), 0.012),
    ((-0.27, -0.28), (-0.30, 0.06), 0.010),
    ((0.27, -0.28), (0.30, 0.06), 0.010),
    ((-0.10, 0.10), (-0.11, 0.50), 0.017),
    ((0.10, 0.10), (0.11, 0.50), 0.017),
    ((-0.11, 0.53), (-0.10, 0.90), 0.014),
    ((0.11, 0.53), (0.10, 0.90), 0.014),
)
JOINTS = ((-0.19, -0.66), (0.19, -0.66), (-0.10, 0.10), (0.10, 0.10), (-0.11, 0.52), (0.11, 0.52), (0, 0.06))


def skeleton(rows: int, columns: int, place: float, seed: int) -> Image:
    """A whole-body bone scan; from the front at 0, from the back at 1."""
    luck = np.random.default_rng(seed)
    canvas = Canvas(rows, columns, 0.004)
    soft = 0.045
    canvas.ellipse(0, -0.84, 0.075, 0.10, 0.12, edge=0.4)
    canvas.ellipse(0, -0.35, 0.20, 0.38, soft, edge=0.3)
    for start, end, radius in SKELETON:
        canvas.stroke(start, end, radius * 3, soft, edge=0.5)
    for start, end, radius in SKELETON:
        canvas.stroke(start, end, radius, 0.16 if place < 0.5 else 0.21, edge=0.9, add=True)
    for x, y in JOINTS:
        canvas.ellipse(x, y, 0.028, 0.028, 0.16, edge=0.8, add=True)
    for side in (-1, 1):
        for number in range(8):
            canvas.rib(0, -0.60 + 0.055 * number, 0.155, 0.07, *_span(side, -1.4, 1.2), 0.008, 0.07)
        if place > 0.5:
            canvas.ellipse(side * 0.085, -0.16, 0.032, 0.048, 0.16, edge=0.6, add=True)  # kidneys
    canvas.ellipse(0, 0.10, 0.045, 0.04, 0.5, edge=0.6, add=True)  # bladder
    for _ in range(4):  # lesions
        canvas.ellipse(luck.uniform(-0.12, 0.12), luck.uniform(-0.6, 0.05), 0.014, 0.014, 0.6, edge=0.9, add=True)
    return np.clip(canvas.image, 0, 1)


def film(rows: int, columns: int, place: float, seed: int) -> Image:
    """A chest film as a digitizer sees it: clear borders, a label, scratches."""
    canvas = Canvas(rows, columns)
    canvas.image = chest(rows, columns, place, seed) * 0.92
    high = float(-canvas.y[0, 0])
    wide = float(-canvas.x[0, 0])
    canvas.stroke((wide - 0.42, -high + 0.09), (wide - 0.08, -high + 0.09), 0.055, 0.95, edge=0.02)
    luck = np.random.default_rng(seed)
    for row in range(3):  # writing nobody can read
        for column in range(16):
            x, y = wide - 0.43 + 0.0235 * column, -high + 0.062 + 0.024 * row
            if luck.random() < 0.7:
                canvas.stroke((x, y), (x + luck.uniform(-0.006, 0.006), y + 0.013), 0.003, 0.1)
    for _ in range(5):
        x, y = luck.uniform(-wide, wide), luck.uniform(-high, high)
        canvas.stroke((x, y), (x + luck.uniform(-0.2, 0.2), y + luck.uniform(-0.3, 0.3)), 0.0012, 0.12, add=True)
    border = (np.abs(canvas.x) > wide - 0.02) | (np.abs(canvas.y) > high - 0.02)
    canvas.image = np.where(border, 0.98, canvas.image).astype(np.float32)
    return canvas.image
