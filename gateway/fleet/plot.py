"""A line of a box's history as SVG: drawn here, so that the page needs no script for it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from gateway.fleet.markup import Html, h, join
from gateway.fleet.words import duration, stamp

WIDTH, HEIGHT = 640.0, 140.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 8.0, 10.0, 22.0
GAPS = 4
"""A pause longer than so many usual steps is a gap, not a line."""

Point = tuple[float, float]
"""Moment and value."""


def plot(title: str, unit: str, points: Sequence[Point], limit: float | None = None, floor: float | None = 0.0) -> Html:
    """Return a figure with a caption that says in words what it shows; `limit` is drawn as a dashed line."""
    if not points:
        return h("figure", h("figcaption", h("b", title), ": nothing is known in this time"), class_="plot")
    values = [value for _, value in points]
    low, high = min(values), max(values)
    bottom = low if floor is None else min(floor, low)
    top = max(high, limit or high) if limit is not None and high > 0.4 * limit else high
    if top <= bottom:
        margin = max(1.0, abs(low) * 1e-6)
        bottom, top = bottom if floor is not None else bottom - margin, bottom + margin
    begin, end = points[0][0], points[-1][0]
    span_s = max(end - begin, 1.0)

    def x(at: float) -> float:
        return LEFT + (at - begin) / span_s * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (top - value) / (top - bottom) * (HEIGHT - TOP - BOTTOM)

    shapes: list[Html] = [_grid(y(value), _short(value), "grid") for value in (bottom, top)]
    if limit is not None and bottom < limit <= top:
        shapes.append(_grid(y(limit), "", "limit"))
    for run in _runs(points):
        spelled = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in run)
        if len(run) == 1:
            shapes.append(h("circle", cx=f"{x(run[0][0]):.1f}", cy=f"{y(run[0][1]):.1f}", r="2.5", class_="dot"))
        else:
            shapes.append(h("polyline", points=spelled, class_="line"))
    shapes.append(h("text", stamp(begin)[5:16], x=LEFT, y=HEIGHT - 6, class_="tick"))
    shapes.append(h("text", stamp(end)[5:16], x=WIDTH - RIGHT, y=HEIGHT - 6, class_="tick end"))
    words = f"{_short(values[-1])} {unit} now, {_short(low)} to {_short(high)} {unit} over {duration(end - begin)}"
    picture = h("svg", *shapes, viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}", role="img", aria_label=f"{title}: {words}")
    return h("figure", h("figcaption", h("b", title), ": ", words), picture, class_="plot")


def _grid(at: float, label: str, kind: str) -> Html:
    line = h("line", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{at:.1f}", y2=f"{at:.1f}", class_=kind)
    return join(line, h("text", label, x=LEFT - 6, y=f"{at + 4:.1f}", class_="tick end")) if label else line


def _runs(points: Sequence[Point]) -> list[list[Point]]:
    steps = sorted(later[0] - earlier[0] for earlier, later in pairwise(points))
    usual_s = steps[len(steps) // 2] if steps else 0.0
    runs = [[points[0]]]
    for earlier, later in pairwise(points):
        if later[0] - earlier[0] > GAPS * usual_s:
            runs.append([])
        runs[-1].append(later)
    return runs


def _short(value: float) -> str:
    for least, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= least:
            return f"{value / (1e3 if unit == 'k' else least):.3g}{unit}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
