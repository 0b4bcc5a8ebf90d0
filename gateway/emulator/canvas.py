"""Soft shapes on a grey image: what phantoms are painted with. Coordinates run from -1 to 1 along the longer side."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]


@lru_cache(maxsize=32)
def grain(seed: int, rows: int, columns: int, size: float) -> Image:
    """Return smooth noise of zero mean and about unit deviation whose spots are `size` times the longer side wide."""
    luck = np.random.default_rng(seed)
    spot = max(1.0, size * max(rows, columns))
    coarse = luck.normal(0, 1, (int(rows / spot) + 3, int(columns / spot) + 3)).astype(np.float32)
    made = coarse
    for axis, count in enumerate((rows, columns)):
        at = np.arange(count, dtype=np.float32) / spot
        low = at.astype(int)
        part = np.float32(3) * (at - low) ** 2 - np.float32(2) * (at - low) ** 3
        part = part.reshape((-1, 1) if axis == 0 else (1, -1))
        made = np.take(made, low, axis) * (1 - part) + np.take(made, low + 1, axis) * part
    return np.asarray(made, np.float32)


class Canvas:
    """One image under the brush; values are meant to lie between 0 and 1."""

    def __init__(self, rows: int, columns: int, fill: float = 0.0) -> None:
        self.rows, self.columns = rows, columns
        half = max(rows, columns) / 2
        self.x: Image = ((np.arange(columns, dtype=np.float32) - (columns - 1) / 2) / half)[None, :]
        self.y: Image = ((np.arange(rows, dtype=np.float32) - (rows - 1) / 2) / half)[:, None]
        self.image: Image = np.full((rows, columns), fill, np.float32)

    def _window(self, left: float, right: float, top: float, bottom: float) -> tuple[slice, slice]:
        columns = np.searchsorted(self.x[0], [left, right])
        rows = np.searchsorted(self.y[:, 0], [top, bottom])
        return slice(int(rows[0]), int(rows[1])), slice(int(columns[0]), int(columns[1]))

    def _lay(self, window: tuple[slice, slice], mask: Image, value: float, *, add: bool) -> None:
        part = self.image[window]
        part += mask * (value if add else value - part)

    def ellipse(
        self,
        x: float,
        y: float,
        a: float,
        b: float,
        value: float,
        *,
        turn: float = 0.0,
        edge: float = 0.06,
        add: bool = False,
    ) -> None:
        """Paint an ellipse with half axes `a` and `b`, turned by so many radians; `edge` is the soft part of its
        radius."""
        reach = max(a, b) * (1 + edge)
        window = self._window(x - reach, x + reach, y - reach, y + reach)
        across, down = self.x[:, window[1]] - x, self.y[window[0]] - y
        c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        distance = np.sqrt(((across * c + down * s) / a) ** 2 + ((down * c - across * s) / b) ** 2)
        self._lay(window, np.clip((1 - distance) / edge + 0.5, 0, 1), value, add=add)

    def stroke(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        radius: float,
        value: float,
        *,
        end_radius: float | None = None,
        edge: float = 0.5,
        add: bool = False,
    ) -> None:
        """Paint a line with round ends, as bones and vessels are; `edge` is its soft part of the radius."""
        last = radius if end_radius is None else end_radius
        reach = max(radius, last) * (1 + edge)
        (x0, y0), (x1, y1) = start, end
        window = self._window(min(x0, x1) - reach, max(x0, x1) + reach, min(y0, y1) - reach, max(y0, y1) + reach)
        across, down = self.x[:, window[1]] - x0, self.y[window[0]] - y0
        dx, dy = x1 - x0, y1 - y0
        along = np.clip((across * dx + down * dy) / (dx * dx + dy * dy + 1e-9), 0, 1)
        distance = np.sqrt((across - along * dx) ** 2 + (down - along * dy) ** 2) / (radius + along * (last - radius))
        self._lay(window, np.clip((1 - distance) / edge + 0.5, 0, 1), value, add=add)

    def path(self, points: list[tuple[float, float]], radius: float, value: float, *, add: bool = False) -> None:
        """Paint a line through all points."""
        for start, end in pairwise(points):
            self.stroke(start, end, radius, value, add=add)

    def rib(
        self, x: float, y: float, a: float, b: float, first: float, last: float, radius: float, value: float
    ) -> None:
        """Add an arc of an ellipse from one angle to another (radians), as ribs are seen in projection."""
        angles = np.linspace(first, last, 14)
        mask = Canvas(self.rows, self.columns)
        points = [(float(x + a * np.cos(t)), float(y + b * np.sin(t))) for t in angles]
        mask.path(points, radius, 1.0)
        self.image += mask.image * value

    def mottle(self, seed: int, size: float, amount: float) -> None:
        """Add smooth noise."""
        self.image += amount * grain(seed, self.rows, self.columns, size)
