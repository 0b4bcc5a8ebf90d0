"""The acceptance report needs nothing else, tells what went wrong, and can be printed and signed."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from html.parser import HTMLParser

import imagecodecs
import numpy as np
import pytest

from gateway.emulator.urgent import Urgent
from tests.hil import plot, report
from tests.hil.suite import Protocol
from tests.hil.thumbnail import Picture, png
from tests.hil.timeline import Point
from tests.hil.verdict import Outcome, Result, Sums

LOST = ("2.25.4711", "c0ffee")


@pytest.fixture
def protocol() -> Protocol:
    """One case of each outcome, by a rig with a name that is no HTML."""
    made = Protocol("box", 'bench <3> & "co"', "192.0.2.20:11112", 4711, "full", 1.79e9, 120.0, "suite 0.1.0")
    made.results = [
        Result("profile-ct", "CT of the chest", "Scanners", Outcome.PASSED, sums=Sums(40, 40, 40), plotted=True,
               seconds=1954.4, figures={"answer_p50_s": 0.012, "answer_p95_s": 2.5, "objects_per_s": 31.5}),
        Result("kill", "Killed", "Trouble", Outcome.FAILED, "1 lost, such as 2.25.4711", sums=Sums(3, 3, 2, (LOST,))),
        Result("power-cut", "The plug", "Trouble", Outcome.NOT_APPLICABLE, "the rig has no [power]"),
    ]  # fmt: skip
    made.results[0].marks = [("no line", 20.0, 30.0)]
    made.results[0].urgent = [Urgent(366, 12_300_000, 7.5, 20.0, 5.0, 16.0, 3.0)]
    made.points = [Point(at / 2, at, max(0, at - 3), at * 1000) for at in range(240)]
    uri = "data:image/png;base64,iVBORw0KGgo="
    made.pictures = [Picture("ct", "CT of the chest", "CT 512x512", "2.25.1", "ab" * 32, uri)]
    return made


class Balance(HTMLParser):
    """Knows whether every element that was begun is ended."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def test_the_page_needs_nothing_else_and_is_well_formed(protocol, tmp_path):
    text = report.write(protocol, tmp_path).read_text()
    assert re.findall(r"(?:src|href)=\"(?!data:)|url\(|<script|@import", text) == []
    balance = Balance()
    balance.feed(text)
    assert balance.open == balance.wrong == []
    assert "bench &lt;3&gt; &amp;" in text and "<3>" not in text


def test_page_and_data_are_tied_together(protocol, tmp_path):
    page = report.write(protocol, tmp_path)
    assert hashlib.sha256((tmp_path / "report.json").read_bytes()).hexdigest() in page.read_text()


def test_what_failed_and_what_could_not_be_is_told_with_its_reason(protocol, tmp_path):
    text = report.write(protocol, tmp_path).read_text()
    for words in (
        "1 FAILED",
        "2.25.4711",
        "the rig has no [power]",
        "1 lost",
        "12 ms / 2.5 s",
        "objects a second 31.5",
        "shaded: no line",
        ">33 min<",
        "profile-ct: studies of emergencies",
        ">1.50<",
        ">1.25<",
    ):
        assert words in text


PRINTS = all(map(shutil.which, ("chromium", "pdftotext")))


@pytest.mark.skipif(not PRINTS, reason="needs Debian's chromium and poppler-utils: `make peers`")
def test_it_can_be_printed_and_signed(protocol, tmp_path):
    pdf = report.print_pdf(report.write(protocol, tmp_path))
    text = subprocess.run(["pdftotext", "-layout", str(pdf), "-"], capture_output=True, text=True, check=True).stdout
    for words in ("Acceptance report", "1 FAILED", "Accepted by", "page 1 of", "profile-ct", "seed 4711"):
        assert words in text


def test_rates_are_the_slope_of_the_sums():
    points = [Point(float(at), 10 * at, 5 * at, 0) for at in range(11)]
    assert {round(rate) for _, rate in plot.rates(points, 1)} == {10}
    assert {round(rate) for _, rate in plot.rates(points, 2)} == {5}
    assert plot.rates(points[:1], 1) == []


@pytest.mark.parametrize("shape", [(5, 7), (4, 6, 3)])
def test_another_decoder_reads_our_png(shape):
    image = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    assert (imagecodecs.png_decode(png(image)) == image).all()
