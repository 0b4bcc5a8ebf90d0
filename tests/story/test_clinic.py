"""A clinic around a gateway, outages included: what scanners were told is stored arrives; a lie is noticed."""

from __future__ import annotations

import json
import subprocess
import sys
from math import inf
from pathlib import Path

import pytest

from gateway.emulator.clinic import Clinic
from gateway.emulator.pacs import Pacs
from gateway.emulator.profile import load as load_profile
from gateway.emulator.scenario import load, names
from gateway.emulator.shipped import ProfileError

EMULATE = (sys.executable, "-m", "gateway", "emulate")
SHORT = """
about = "two scanners, a line and an archive that go away"
speed = 600
settle_s = 60
[line]
port = {port}
[ris]
[[outage]]
of = "archive"
from_min = 1
for_min = 5
[[outage]]
of = "line"
from_min = 8
for_min = 8
[[scanner]]
profile = "ct"
studies = 2
images = 4
side = 64
emergency = 0.5
[[scanner]]
profile = "dx"
number = 2
studies = 2
side = 64
retake = 0.5
[[scanner]]
profile = "cr"
studies = 2
side = 64
worklist = false
mpps = false
quirks = {{ Q1 = true, Q13 = true, Q19 = true, Q26 = true }}
"""


@pytest.fixture
def scene(make_box, dimse, port, tmp_path):
    """A box that delivers to a clinic's line, and the clinic's file."""

    number = port()
    box = make_box(dimse(number, more='compression = "off"')).start()
    file = tmp_path / "scenario.toml"
    file.write_text(SHORT.format(port=number))
    return box, str(file)


def test_everything_that_was_promised_arrives_though_line_and_archive_go_away(scene, tmp_path):
    box, file = scene
    told = subprocess.run(
        [*EMULATE, "clinic", file, "--to", f"127.0.0.1:{box.port}", "--json", "--log", str(tmp_path / "log")],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    ports, total = (json.loads(line) for line in told.stdout.splitlines())
    assert ports["ports"]["destination"] == ports["ports"]["line"]
    assert total["complete"] and total["missing"] == 0 and total["acknowledged"] >= 2 * 9 + 4
    assert total["delivery_s"]["stat"]["objects"] + total["delivery_s"]["routine"]["objects"] == total["acknowledged"]
    assert sum(row["from_worklist"] for row in total["scanners"]) >= 4
    events = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    acknowledged = {(one["uid"], one["sha256"]) for one in events if "acknowledged_at_s" in one}
    assert acknowledged == {(one["sop_instance_uid"], one["sha256"]) for one in events if "at_s" in one}


def test_an_archive_that_lies_is_noticed(tmp_path, port):
    """Without a box between: the scanners send to the archive itself."""
    number = port()
    lie = '[archive]\nport = {0}\nrules = [{{ on = "store", do = "lie", after = 3, count = 2 }}]\n'
    cast = '[[scanner]]\nprofile = "ct"\nimages = 4\nside = 64\n'
    text = 'about = "a liar"\nspeed = 6000\nsettle_s = 1\n[target]\nport = {0}\n'
    (tmp_path / "scenario.toml").write_text((text + lie).format(number) + cast)
    clinic = Clinic(load(str(tmp_path / "scenario.toml")))
    try:
        assert clinic.open().destination == number
        total = clinic.run()
    finally:
        clinic.close()
    assert not total["complete"] and total["missing"] == len(total["missing_uids"]) == 2


@pytest.mark.parametrize("name", names())
def test_each_shipped_scenario_is_one(name):
    assert load(name).scanner


def test_the_day_is_as_long_as_it_says():
    """400 studies, about 60,000 objects, in ten hours that pass in thirty minutes."""
    day = load("day")
    assert sum(one.studies * one.number for one in day.scanner) == 400
    per_study = {
        name: [sum(s.images) / 2 for s in load_profile(name).series] for name in {one.profile for one in day.scanner}
    }
    objects = sum(
        one.studies * one.number * sum(min(n, one.images or n) for n in per_study[one.profile]) for one in day.scanner
    )
    assert 55_000 < objects < 70_000
    assert day.speed == 20 and max(map(hours, day.scanner)) <= 10


def hours(one) -> float:
    """How long a scanner works, by the pauses of its profile."""
    profile = load_profile(one.profile)
    exam, images = profile.exam, sum(min(sum(s.images) / 2, one.images or inf) for s in profile.series)
    series = (len(profile.series) - 1) * exam.pause_series_s
    return one.studies * (images * exam.pause_image_s + series + exam.pause_study_s) / 3600


def test_what_is_no_scenario_is_said(tmp_path):
    with pytest.raises(ProfileError, match="no scenario 'nosuch'"):
        load("nosuch")
    (tmp_path / "wrong.toml").write_text('about = "x"\n[[scanner]]\nprofile = "ct"\nstudys = 1\n')
    with pytest.raises(ProfileError, match=r"scanner\.0\.studys"):
        load(str(tmp_path / "wrong.toml"))


def test_nobody_takes_the_place_of_an_archive_that_is_away():
    """A client's port could be the archive's; a line that calls it in vain could even reach itself."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    archive = Pacs()
    archive.start()
    archive.stop()
    assert archive.port < lowest
    archive.start()
    archive.stop()
