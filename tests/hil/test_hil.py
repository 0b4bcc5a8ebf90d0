"""A gateway process passes the suite, and the report tells it."""

from __future__ import annotations

import json

import pytest

from tests.hil import report
from tests.hil.day import days
from tests.hil.suite import cases, play
from tests.hil.target import ProcessTarget
from tests.hil.verdict import Outcome

NOT_OF_A_PROCESS = {"quirk-Q25", "quirk-Q28", "power-cut"}
"""The gateway offers neither worklist nor MPPS, and a process has no plug."""


def passes(folder, chosen, *, seed: int, short: bool):
    target = ProcessTarget(folder / "target", short=short)
    protocol = play(target, chosen, folder / "run", seed=seed, short=short)
    report.write(protocol, folder)
    failed = [one for one in protocol.results if one.outcome is Outcome.FAILED]
    assert [f"{one.name}: {one.reason}; see {one.kept}" for one in failed] == [] and protocol.passed
    assert {one.name for one in protocol.results if one.outcome is Outcome.NOT_APPLICABLE} <= NOT_OF_A_PROCESS
    return protocol


@pytest.mark.timeout(600)
def test_a_process_passes_the_short_form(tmp_path):
    protocol = passes(tmp_path, [one for one in cases().values() if one.short], seed=1, short=True)
    assert len(protocol.pictures) == sum(one.group == "Scanners" for one in protocol.results)
    text, data = (tmp_path / "report.html").read_text(), json.loads((tmp_path / "report.json").read_text())
    assert {one["name"] for one in data["cases"]} == {one.name for one in protocol.results}
    assert all(f"{one.name}<" in text for one in protocol.results)
    assert data["identity"]["gateway_version"] in text and text.count("<svg") >= 4


@pytest.mark.long
@pytest.mark.timeout(2 * 3600)
def test_a_process_passes_the_full_form(tmp_path):
    passes(tmp_path, [one for one in cases().values() if one.group != "Days"], seed=2, short=False)


@pytest.mark.long
@pytest.mark.timeout(2 * 3600)
@pytest.mark.parametrize("name", [one.name for one in days()])
def test_a_process_passes(name, tmp_path):
    passes(tmp_path, [cases()[name]], seed=2, short=False)
