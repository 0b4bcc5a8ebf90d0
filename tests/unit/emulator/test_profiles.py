"""Every profile makes what its SOP classes demand, from a seed; dciodvfy of dicom3tools is the judge."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from itertools import islice

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.datadict import keyword_dict

from gateway.emulator import profile
from gateway.emulator.objects import Limits, study
from gateway.emulator.orders import LETTERS, order, unscheduled
from gateway.emulator.pixels import PHANTOMS
from gateway.emulator.profile import load, names, quirks
from gateway.emulator.shipped import ProfileError

SMALL = Limits(images=2, frames=3, side=96)
KINDS = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "enhanced CT",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.4.1": "enhanced MR",
    "1.2.840.10008.5.1.4.1.1.6.1": "US",
    "1.2.840.10008.5.1.4.1.1.3.1": "US cine",
    "1.2.840.10008.5.1.4.1.1.1": "CR",
    "1.2.840.10008.5.1.4.1.1.1.1": "DX for presentation",
    "1.2.840.10008.5.1.4.1.1.1.1.1": "DX for processing",
    "1.2.840.10008.5.1.4.1.1.1.2": "MG for presentation",
    "1.2.840.10008.5.1.4.1.1.1.2.1": "MG for processing",
    "1.2.840.10008.5.1.4.1.1.13.1.3": "breast tomosynthesis",
    "1.2.840.10008.5.1.4.1.1.12.1": "XA",
    "1.2.840.10008.5.1.4.1.1.12.2": "RF",
    "1.2.840.10008.5.1.4.1.1.20": "NM",
    "1.2.840.10008.5.1.4.1.1.128": "PET",
    "1.2.840.10008.5.1.4.1.1.481.3": "RT structures",
    "1.2.840.10008.5.1.4.1.1.481.5": "RT plan",
    "1.2.840.10008.5.1.4.1.1.481.2": "RT dose",
    "1.2.840.10008.5.1.4.1.1.7": "SC",
    "1.2.840.10008.5.1.4.1.1.88.33": "SR",
    "1.2.840.10008.5.1.4.1.1.88.67": "dose report",
    "1.2.840.10008.5.1.4.1.1.104.1": "PDF",
}


def made(name: str, seed: int = 5, limits: Limits = SMALL, **quirk):
    chosen = load(name, quirk)
    comes = order(seed, chosen.series[0].modality, chosen.exam.description, letters=chosen.data.names)
    return study(chosen, comes, seed, limits)


def complaints(path) -> list[str]:
    told = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, timeout=60)
    assert told.returncode >= 0, f"dciodvfy ended with signal {-told.returncode}"
    return [line for line in (told.stdout + told.stderr).splitlines() if line.startswith("Error")]


@pytest.fixture
def judge():
    if not shutil.which("dciodvfy"):
        pytest.skip("dicom3tools is not installed: .ci/setup peers")
    return complaints


@pytest.mark.parametrize("name", names())
def test_dciodvfy_finds_no_error_in_any_series_of_a_profile(name, tmp_path, judge):
    judged = set()
    for one in made(name):
        path = tmp_path / f"{one.series}.dcm"
        one.dataset.save_as(path, enforce_file_format=True)
        if one.series not in judged:
            assert judge(path) == [], f"series {one.series + 1}"
        judged.add(one.series)
    assert judged == set(range(len(load(name).series)))


def test_an_emergency_without_order_is_valid_too(tmp_path, judge):
    chosen = load("ct")
    comes = unscheduled(3, "CT", "Trauma", emergency=True)
    one = next(study(chosen, comes, 3, SMALL))
    one.dataset.save_as(tmp_path / "one.dcm", enforce_file_format=True)
    assert judge(tmp_path / "one.dcm") == []
    assert one.stat and one.dataset.AccessionNumber == "" and "RequestAttributesSequence" not in one.dataset


def test_every_kind_of_object_that_a_clinic_has_is_made_by_a_profile():
    there = {series.sop_class for name in names() for series in load(name).series}
    assert {KINDS[uid] for uid in there} == set(KINDS.values())


@pytest.mark.parametrize("name", ["ct", "rf", "sc", "nm"])
def test_names_are_in_the_letters_that_are_declared(name, tmp_path):
    """As DCMTK reads them; the Japanese ones, which its Debian build cannot convert, as Python does."""
    path = tmp_path / "one.dcm"
    next(made(name)).dataset.save_as(path, enforce_file_format=True)
    if name == "nm":
        told = path.read_bytes().split(b"\x10\0\x10\0PN")[1][2:60].decode("iso2022_jp", "ignore")
    else:
        told = subprocess.run(["dcmdump", "+U8", "+P", "PatientName", path], capture_output=True).stdout.decode()
    families, _ = LETTERS[load(name).data.names]
    assert any(family.split("=")[-1] in told for family in families)


def digests(name: str, **told) -> list[str]:
    return [hashlib.sha256(one.dataset.to_json().encode()).hexdigest() for one in islice(made(name, **told), 6)]


@pytest.mark.parametrize("name", ["ct", "us", "rt"])
def test_the_same_seed_makes_the_same_study_and_another_another(name):
    assert digests(name) == digests(name)
    assert not set(digests(name)) & set(digests(name, seed=6))


def test_two_images_of_a_series_never_have_the_same_pixels():
    for name in names():
        seen = [
            one.dataset.PixelData
            for one in made(name, limits=Limits(images=3, frames=2, side=48))
            if "PixelData" in one.dataset
        ]
        assert len(set(seen)) == len(seen), name


@pytest.mark.parametrize("phantom", PHANTOMS)
def test_a_phantom_has_structure_and_differs_between_bodies(phantom):
    one, other = (np.clip(PHANTOMS[phantom](128, 96, 0.4, seed), 0, 1) for seed in (1, 2))
    assert one.shape == (128, 96) and one.std() > 0.01
    # The trunk of these is the same in everybody; what differs is speckle, lesions and trees.
    assert phantom == "dose" or np.abs(one - other).max() > 0.001


def test_clips_are_jpeg_baseline_and_planes_are_what_they_say(tmp_path):
    by_series = {one.series: one.dataset for one in made("us")}
    assert [by_series[n].PlanarConfiguration for n in range(5)] == [0, 1, 0, 1, 0]
    assert by_series[4].file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.50"
    by_series[4].save_as(tmp_path / "clip.dcm", enforce_file_format=True)
    told = subprocess.run(["dcmdjpeg", str(tmp_path / "clip.dcm"), str(tmp_path / "plain.dcm")], timeout=60)
    assert told.returncode == 0
    plain = dcmread(tmp_path / "plain.dcm")
    assert len(plain.PixelData) == 3 * plain.Rows * plain.Columns * 3


def test_thousands_of_frames_are_realistic():
    assert load("mr-enhanced").series[1].pixels.frames > 2000


def test_every_quirk_is_described_and_changes_a_setting_that_there_is():
    assert [f"Q{n}" for n in range(1, 31)] == [name for name in quirks() if name.startswith("Q")]
    for name, quirk in quirks().items():
        assert quirk.title and quirk.evidence and quirk.sets
        changed = load("ct", {name: True})
        for table, settings in quirk.sets.items():
            assert {key: getattr(getattr(changed, table), key) for key in settings} == settings


def test_a_quirk_takes_parameters_and_leaves_the_others_alone():
    changed = load("ct", {"Q13": {"piece": 77}})
    assert (changed.network.piece, changed.network.max_pdu) == (77, 0)


@pytest.mark.parametrize(
    ("name", "told", "said"),
    [
        ("nosuch", {}, "no profile 'nosuch'"),
        ("ct", {"Q99": True}, "no quirk 'Q99'"),
        ("ct", {"Q13": {"nosuch": 1}}, "quirk Q13 has no parameter 'nosuch'"),
        ("ct", {"Q13": {"max_pdu": -1}}, "network.max_pdu"),
    ],
)
def test_what_is_not_there_is_said(name, told, said):
    with pytest.raises(ProfileError, match=said):
        load(name, told)


def test_a_profile_of_ones_own_is_a_file(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text((profile._folder() / "profiles" / "cr.toml").read_text() + "\n[quirks]\nQ1 = true\n")
    assert load(str(path)).network.ae_title == ""
    path.write_text(path.read_text().replace("KVP", "NoKeyword"))
    assert "NoKeyword" not in keyword_dict
    with pytest.raises(ProfileError, match="NoKeyword"):
        list(made(str(path)))
