"""Mark-up that cannot be broken into, plots that cannot be broken, words for numbers."""

from __future__ import annotations

import math
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fleet.markup import Html, h
from gateway.fleet.plot import plot
from gateway.fleet.words import ago, count, duration, stamp

NASTY = "\"'><script>alert(1)</script>&amp;"


class Reader(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_whatever_is_said_is_text():
    read = Reader(h("p", NASTY, h("b", NASTY), title=NASTY))
    assert [tag for tag, _ in read.tags] == ["p", "b"]
    assert read.tags[0][1]["title"] == NASTY
    assert read.text == NASTY * 2


def test_attributes():
    assert h("input", class_="x", aria_label="y", required=True, checked=False, value=None) == (
        '<input class="x" aria-label="y" required>'
    )
    assert isinstance(h("p"), Html)


NUMBERS = st.floats(min_value=-1e17, max_value=1e17, allow_nan=False)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.floats(0, 1e10), NUMBERS), max_size=30), st.one_of(st.none(), NUMBERS))
def test_every_history_can_be_drawn(points, limit):
    drawn = plot("T", "u", sorted(points), limit)
    for tag, attributes in Reader(drawn).tags:
        for pair in attributes.get("points", "").split() if tag == "polyline" else ():
            assert all(math.isfinite(float(number)) for number in pair.split(","))


def test_a_pause_is_a_gap_not_a_line():
    steady = [(at * 60.0, 1.0) for at in range(10)]
    assert plot("T", "u", steady).count("<polyline") == 1
    assert plot("T", "u", steady + [(at + 3600.0, 2.0) for at, _ in steady]).count("<polyline") == 2


def test_a_plot_says_in_words_what_it_shows():
    assert "7 % now, 3 to 9 % over 2 min" in plot("Disk", "%", [(0, 3.0), (60, 9.0), (120, 7.0)])


@pytest.mark.parametrize(
    ("seconds", "words"), [(-5, "0 s"), (59, "59 s"), (150, "2 min"), (7200, "2 h"), (93_600, "26 h"), (172_800, "2 d")]
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_moments_and_counts():
    assert ago(10, 5) == "just now"
    assert stamp(1e30) == "at no time"
    assert stamp(0) == "1970-01-01 00:00:00 UTC"
    assert (count(1, "box", "boxes"), count(2000, "box", "boxes")) == ("1 box", "2,000 boxes")
