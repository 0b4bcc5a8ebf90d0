"""A gateway process passes the suite; the report that it ends in is complete, needs nothing else and can be printed."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess

import pytest

from tests.hil import report
from tests.hil.suite import cases, play
from tests.hil.target import ProcessTarget
from tests.hil.verdict import Outcome

NOT_OF_A_PROCESS = {"quirk-Q25", "quirk-Q28", "power-cut"}
"""The gateway offers neither worklist nor MPPS, and a process has no plug."""


def failures(protocol) -> list[str]:
    return [f"{one.name}: {one.reason}; see {one.kept}" for one in protocol.results if one.outcome is Outcome.FAILED]


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """The short form, and the folder of its report."""
    folder = tmp_path_factory.mktemp("hil")
    chosen = [one for one in cases().values() if one.short]
    protocol = play(ProcessTarget(folder / "target", short=True), chosen, folder / "run", seed=1, short=True)
    report.write(protocol, folder)
    return protocol, folder


@pytest.mark.timeout(600)
def test_a_process_passes_the_short_form(short):
    protocol, _ = short
    assert failures(protocol) == [] and protocol.passed
    assert {one.name for one in protocol.results if one.outcome is Outcome.NOT_APPLICABLE} <= NOT_OF_A_PROCESS
    assert len(protocol.pictures) == sum(one.group == "Scanners" for one in protocol.results)


def test_the_report_tells_every_case_and_needs_nothing_else(short):
    protocol, folder = short
    text, data = (folder / "report.html").read_text(), (folder / "report.json").read_bytes()
    assert hashlib.sha256(data).hexdigest() in text
    assert {one["name"] for one in json.loads(data)["cases"]} == {one.name for one in protocol.results}
    assert all(f"{one.name}<" in text for one in protocol.results)
    assert re.findall(r"(?:src|href)=\"(?!data:)|url\(|<script|@import", text) == []
    assert text.count("<svg") >= 2 and text.count("data:image/png") > 10


PRINTS = all(map(shutil.which, ("chromium", "pdftotext")))


@pytest.mark.skipif(not PRINTS, reason="needs Debian's chromium and poppler-utils: `make peers`")
def test_the_report_can_be_printed_and_signed(short):
    _, folder = short
    pdf = report.print_pdf(folder / "report.html")
    text = subprocess.run(["pdftotext", "-layout", str(pdf), "-"], capture_output=True, text=True, check=True).stdout
    for words in ("Acceptance report", "PASSED", "Accepted by", "page 1 of", "profile-ct"):
        assert words in text


@pytest.mark.long
@pytest.mark.timeout(3 * 3600)
def test_a_process_passes_the_full_form(tmp_path):
    chosen = list(cases().values())
    protocol = play(ProcessTarget(tmp_path / "target", short=False), chosen, tmp_path / "run", seed=2, short=False)
    report.write(protocol, tmp_path)
    assert failures(protocol) == []
    assert {one.name for one in protocol.results if one.outcome is Outcome.NOT_APPLICABLE} <= NOT_OF_A_PROCESS
