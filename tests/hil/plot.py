"""The course of a run as SVG: objects a second in and out, and what waited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.fleet.markup import Html, h
from tests.hil.timeline import Point

WIDE, NARROW = 900.0, 440.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 8.0, 16.0, 20.0
BINS = 90


@dataclass(frozen=True, slots=True)
class Band:
    """A stretch of time with a name."""

    name: str
    begin_s: float
    end_s: float


def rates(points: Sequence[Point], what: int) -> list[tuple[float, float]]:
    """Return (moment, change a second) of a column of points, in at most BINS steps."""
    if len(points) < 2:
        return []
    begin, end = points[0].at_s, points[-1].at_s
    step_s = max((end - begin) / BINS, 0.25)
    found, last = [], points[0]
    for point in points[1:]:
        if point.at_s - last.at_s >= step_s or point is points[-1]:
            span_s = max(point.at_s - last.at_s, 1e-3)
            found.append(((last.at_s + point.at_s) / 2, (point[what] - last[what]) / span_s))
            last = point
    return found


def throughput(points: Sequence[Point], bands: Sequence[Band], width: float = WIDE) -> Html:
    """Objects a second that the box acknowledged and that reached the archive."""
    lines = [("one", rates(points, 1)), ("two", rates(points, 2))]
    return _picture(points, lines, bands, (width, 170.0), "Objects a second: acknowledged, and arrived at the archive")


def backlog(points: Sequence[Point], bands: Sequence[Band], width: float = WIDE) -> Html:
    """Objects acknowledged that had not reached the archive."""
    waiting = [(point.at_s, float(max(0, point.acknowledged - point.archived))) for point in points]
    return _picture(points, [("one", waiting)], bands, (width, 130.0), "Objects that waited in the box")


def _picture(
    points: Sequence[Point],
    lines: Sequence[tuple[str, Sequence[tuple[float, float]]]],
    bands: Sequence[Band],
    size: tuple[float, float],
    label: str,
) -> Html:
    width, height = size
    begin, end = points[0].at_s, max(points[-1].at_s, points[0].at_s + 0.1)
    top = _round_up(max((value for _, line in lines for _, value in line), default=1.0))

    def x(at_s: float) -> float:
        return LEFT + (min(max(at_s, begin), end) - begin) / (end - begin) * (width - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (top - value) / top * (height - TOP - BOTTOM)

    shapes = []
    for band in bands:
        left, right = x(band.begin_s), x(band.end_s)
        wide, tall = f"{max(right - left - 1, 1):.1f}", height - TOP - BOTTOM
        shapes.append(h("rect", h("title", band.name), x=f"{left:.1f}", y=TOP, width=wide, height=tall, class_="band"))
        if right - left > 6 * len(band.name):
            shapes.append(h("text", band.name, x=f"{left:.1f}", y=TOP - 4, class_="named"))
    for value in (0.0, top / 2, top):
        shapes.append(h("line", x1=LEFT, x2=width - RIGHT, y1=f"{y(value):.1f}", y2=f"{y(value):.1f}", class_="grid"))
        shapes.append(h("text", f"{value:g}", x=LEFT - 6, y=f"{y(value) + 4:.1f}", class_="end"))
    for kind, line in lines:
        spelled = " ".join(f"{x(at_s):.1f},{y(value):.1f}" for at_s, value in line)
        shapes.append(h("polyline", points=spelled, class_=kind))
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        at_s = begin + share * (end - begin)
        place = "end" if share == 1.0 else "middle" if share else None
        shapes.append(h("text", _clock(at_s), x=f"{x(at_s):.1f}", y=height - 5, class_=place))
    return h("svg", *shapes, viewBox=f"0 0 {width:.0f} {height:.0f}", role="img", aria_label=label)


def _round_up(value: float) -> float:
    """The next of 1, 2, 3, 4, 5, 6, 8, 10, 20, 30 and so on."""
    size = 1.0
    while size * 10 <= value:
        size *= 10
    return next(size * step for step in (1, 2, 3, 4, 5, 6, 8, 10) if size * step >= value) if value > 1 else 1.0


def _clock(at_s: float) -> str:
    return f"{at_s:.1f} s" if at_s < 100 else f"{at_s // 60:.0f}:{at_s % 60:02.0f} min"
