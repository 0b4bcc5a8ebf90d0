"""What leaves de-identified says nothing of the patient, is always the same, and is confirmed under its new name."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pydicom
import pytest

from tests.conftest import dataset_bytes

EXPLICIT = "1.2.840.10008.1.2.1"
PIXELS = 'options = ["clean-pixel-data"]\nblacken = [{ modality = "CT", rectangles = [[0, 0, 64, 16]] }]\n'


def table(folder, more="") -> str:
    key = folder / "key"
    if not key.exists():
        key.write_bytes(os.urandom(32))
        key.chmod(0o600)
    return f'[[deidentify]]\nname = "research"\nkey_file = "{key}"\n{more}'


def to(name: str, when: str = "") -> str:
    return f'[[route]]\nto = ["{name}"]\ndeidentify = "research"\n{when}\n'


def scan(box, *files, options=()):
    subprocess.run(["storescu", *options, "127.0.0.1", str(box.port), *map(str, files)], check=True)


def identifying(path) -> list[bytes]:
    """Every value of four letters or more that names the patient, the study or the place."""
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    keywords = (
        *("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
        *("FrameOfReferenceUID", "StudyDate", "StudyTime", "AccessionNumber", "InstitutionName", "StationName"),
        *("ReferringPhysicianName", "StudyID", "SeriesDate", "ContentDate", "AcquisitionDate", "InstanceCreationDate"),
    )
    values = (str(dataset.get(keyword, "")).encode() for keyword in keywords)
    found = [value for value in values if len(value) >= 4]
    assert len(found) >= 5
    return found


def test_nothing_of_the_patient_leaves_and_the_same_comes_out_again(
    make_box, make_archive, dimse, ct_files, digest_of, tmp_path, wait_until
):
    archive = make_archive().start()
    box = make_box(dimse(archive.port) + to("pacs") + table(tmp_path)).start()
    scan(box, *ct_files)
    assert wait_until(box.delivered_all), box.log()
    arrived = {path.name: dataset_bytes(path) for path in archive.folder.iterdir()}
    assert len(arrived) == len(ct_files)
    for path in ct_files:
        for value in identifying(path):
            assert not any(value in content for content in arrived.values()), value[:2]
    datasets = [pydicom.dcmread(path) for path in archive.folder.iterdir()]
    assert len({dataset.StudyInstanceUID for dataset in datasets}) == 1
    assert len({dataset.PatientID for dataset in datasets}) == 1
    assert {dataset.PatientIdentityRemoved for dataset in datasets} == {"YES"}
    assert all(dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID for dataset in datasets)
    assert set(box.shelf()) == {digest_of(path) for path in ct_files}
    again = make_archive().start()
    second = make_box(dimse(again.port) + to("pacs") + table(tmp_path), name="second").start()
    scan(second, *ct_files)
    assert wait_until(second.delivered_all), second.log()
    assert {dataset_bytes(path) for path in again.folder.iterdir()} == set(arrived.values())


def test_what_is_moved_by_hand_does_not_tell_the_patient_to_who_must_not_know(
    make_box, make_archive, dimse, ct_files, tmp_path, wait_until
):
    gone, research = make_archive(), make_archive().start()
    box = make_box(dimse(gone.port, "old") + to("old") + table(tmp_path)).start()
    scan(box, ct_files[0])
    before = box.config.read_text()
    box.stop()
    box.config.write_text(before.replace(to("old"), ""))
    box.start()
    scan(box, ct_files[1])  # waits for the same destination, as it came
    box.stop()
    box.config.write_text(before.replace('"old"', '"study"').replace(str(gone.port), str(research.port)))
    box.start()
    move = [sys.executable, "-m", "gateway", "--config", str(box.config), "queue", "move", "old", "study"]
    moved = subprocess.run(move, capture_output=True, text=True)
    assert moved.stdout == "1 deliveries moved from old to study\n", moved.stderr
    assert wait_until(lambda: box.ask("status")["released"] == 1), box.log()
    (arrived,) = research.folder.iterdir()
    assert pydicom.dcmread(arrived).PatientIdentityRemoved == "YES"
    refused = subprocess.run(move, capture_output=True, text=True)
    assert refused.returncode == 1 and "de-identified" in refused.stderr, refused.stderr
    assert box.ask("status")["destinations"]["old"]["queued"] == 1


def test_an_archive_confirms_what_it_knows_by_its_new_uid(
    make_box, make_orthanc, dimse, ct_files, tmp_path, wait_until
):
    archive = make_orthanc(DicomAlwaysAllowFind=True)
    more = 'confirm = "query"\nconfirm_after_s = 0.3\ncompression = "off"'
    box = make_box(dimse(archive.dicom_port, more=more) + to("pacs") + table(tmp_path)).start()
    scan(box, *ct_files[:4])
    assert wait_until(box.delivered_all), (box.log(), box.ask("status"))
    (study,) = json.loads(archive.get("/studies"))
    originals = {str(pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID) for path in ct_files[:4]}
    assert json.loads(archive.get(f"/studies/{study}"))["MainDicomTags"]["StudyInstanceUID"] not in originals


@pytest.mark.parametrize("coded", [False, True])
def test_burned_in_text_is_black_and_the_rest_of_the_image_is_not_touched(
    make_box, make_archive, dimse, ct_files, tmp_path, wait_until, coded
):
    archive = make_archive("+xa").start()
    sent = ct_files[0]
    if coded:
        sent = tmp_path / "coded.dcm"
        subprocess.run(["dcmcjpls", str(ct_files[0]), str(sent)], check=True)
    box = make_box(dimse(archive.port, more='compression = "off"') + to("pacs") + table(tmp_path, PIXELS)).start()
    scan(box, sent, options=("-xt",) if coded else ())
    assert wait_until(box.delivered_all), box.log()
    (path,) = archive.folder.iterdir()
    arrived, original = pydicom.dcmread(path), pydicom.dcmread(ct_files[0])
    assert arrived.file_meta.TransferSyntaxUID == EXPLICIT
    shape = (original.Rows, original.Columns)
    before = np.frombuffer(original.PixelData, "<u2").reshape(shape)
    after = np.frombuffer(arrived.PixelData, "<u2").reshape(shape)
    assert (before[:16, :64] != after[:16, :64]).any()
    assert len(np.unique(after[:16, :64])) == 1
    outside = np.ones(shape, bool)
    outside[:16, :64] = False
    assert (before[outside] == after[outside]).all()


def test_what_may_show_the_patient_is_held_and_the_rest_goes_on(
    make_box, make_archive, dimse, ct_files, tmp_path, wait_until
):
    archive = make_archive().start()
    box = make_box(dimse(archive.port) + to("pacs") + table(tmp_path)).start()
    shown = pydicom.dcmread(ct_files[0])
    shown.BurnedInAnnotation = "YES"
    shown.save_as(tmp_path / "shown.dcm", enforce_file_format=True)
    scan(box, tmp_path / "shown.dcm", ct_files[1])
    pacs = lambda: box.ask("status")["destinations"]["pacs"]  # noqa: E731
    assert wait_until(lambda: (pacs()["held"], pacs()["confirmed"]) == (1, 1)), box.log()
    (row,) = box.ask("queue_list", states=["held"])
    assert "clean-pixel-data" in row["reason"]
    assert len(list(archive.folder.iterdir())) == 1


def test_without_its_key_nothing_goes_until_the_key_is_back(
    make_box, make_archive, dimse, ct_files, tmp_path, wait_until
):
    archive = make_archive().start()
    box = make_box(dimse(archive.port) + to("pacs") + table(tmp_path)).start()
    key = tmp_path / "key"
    key.rename(tmp_path / "away")
    scan(box, ct_files[0])
    assert wait_until(lambda: any("key" in row["reason"] for row in box.ask("queue_list"))), box.log()
    assert list(archive.folder.iterdir()) == []
    (tmp_path / "away").rename(key)
    assert wait_until(box.delivered_all), box.log()


def test_a_dry_run_shows_what_would_leave(make_box, dimse, ct_files, tmp_path):
    box = make_box(dimse(1) + to("pacs") + table(tmp_path))
    command = [
        sys.executable,
        "-m",
        "gateway",
        "--config",
        str(box.config),
        "route",
        "explain",
        "--diff",
        "--json",
        str(ct_files[0]),
    ]
    told = subprocess.run(command, capture_output=True, check=True, text=True, env=os.environ)
    changes = {change["name"]: change for change in json.loads(told.stdout)["changes"]["pacs"]}
    assert changes["PatientIdentityRemoved"]["after"] == "YES"
    assert changes["PatientID"]["after"].startswith("ANON-")
