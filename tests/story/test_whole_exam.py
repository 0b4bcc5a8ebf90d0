"""The whole act of a scanner against foreign peers: worklist, procedure step, images, commitment; and its mistakes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import FileMetaDataset

from gateway.emulator.exam import Act, Places, Scanner
from gateway.emulator.objects import Limits
from gateway.emulator.orders import order
from gateway.emulator.profile import EXPLICIT, load
from gateway.emulator.ris import Ris, scheduled
from gateway.emulator.services import Peer
from tests import wire
from tests.conftest import Box, Storescp, digest, until
from tests.orthanc import PLUGINS

SMALL = Limits(images=2, frames=2, side=48)
ORDERS = [order(number, "CT", "CT chest", station="CT1") for number in (1, 2)]


def act(**told) -> Act:
    return Act(**{"limits": SMALL, "pace": 0, "timeout_s": 10, "studies": 2, **told})


def studies(outcome) -> set[str]:
    return {sent.study_instance_uid for sent in outcome.sent.values()}


def write_worklist(folder: Path, orders=ORDERS) -> Path:
    """Worklist files of DCMTK, which Orthanc reads too."""
    folder.mkdir(parents=True)
    (folder / "lockfile").touch()
    for number, one in enumerate(orders):
        item = scheduled(one, "ISO_IR 192")
        item.file_meta = FileMetaDataset()
        item.file_meta.TransferSyntaxUID = EXPLICIT
        item.ScheduledProcedureStepSequence[0].ScheduledStationName = ""
        item.save_as(folder / f"{number}.wl")
    return folder


@pytest.fixture
def wlmscpfs(tmp_path, port):
    folder = tmp_path / "worklists"
    write_worklist(folder / "RIS")
    number = port()
    process = subprocess.Popen(["wlmscpfs", "-dfp", str(folder), str(number)], stdout=subprocess.DEVNULL)
    peer = Peer("127.0.0.1", number, "RIS")
    assert until(
        lambda: (
            subprocess.run(["echoscu", "-aec", "RIS", "127.0.0.1", str(number)], capture_output=True).returncode == 0
        )
    )
    yield peer
    process.kill()
    process.wait(10)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    archive = Storescp(tmp_path_factory.mktemp("store")).start()
    yield archive, Peer("127.0.0.1", archive.port, "ANY")
    archive.stop()


def test_patients_of_dcmtks_worklist_are_examined_under_their_names(wlmscpfs, store):
    archive, peer = store
    outcome = Scanner(load("ct"), Places(peer, worklist=wlmscpfs), act()).run()
    assert outcome.complete and outcome.worklist == 2
    assert studies(outcome) == {one.study_instance_uid for one in ORDERS}
    assert {archived for _, archived in outcome.sent} <= archive.digests()


def test_a_worklist_query_with_more_keys_and_group_lengths_is_answered_by_dcmtk(wlmscpfs, store):
    """Q25: cancelled after the first answer, which stays."""
    outcome = Scanner(load("ct", {"Q25": True}), Places(store[1], worklist=wlmscpfs), act(studies=1)).run()
    assert outcome.complete and outcome.worklist == 1


def test_without_an_answer_from_the_worklist_the_patient_is_examined_all_the_same(store, port):
    outcome = Scanner(load("ct"), Places(store[1], worklist=Peer("127.0.0.1", port(), "RIS")), act(studies=1)).run()
    assert outcome.acknowledged == len(outcome.sent) > 0 and outcome.worklist == 0
    assert not outcome.complete and outcome.troubles[0].startswith("worklist: no connection")


def test_orthanc_gives_the_worklist_keeps_the_images_and_commits_to_them(make_orthanc, tmp_path, port):
    listen = port()
    plugins = [str(path) for path in Path(PLUGINS).glob("libModalityWorklists*")]
    if not plugins:
        pytest.skip("this Orthanc has no worklist plugin")
    archive = make_orthanc(
        Plugins=plugins,
        Worklists={"Enable": True, "Database": str(write_worklist(tmp_path / "orthanc-worklists"))},
        DicomAlwaysAllowFindWorklist=True,
        DicomModalities={"ct": ["CT1", "127.0.0.1", listen]},
    )
    peer = Peer("127.0.0.1", archive.dicom_port, "ORTHANC")
    outcome = Scanner(load("ct"), Places(peer, worklist=peer, commitment=peer, listen=listen), act()).run()
    assert outcome.complete and outcome.worklist == 2, outcome.troubles
    assert {uid for uid, _ in outcome.sent} == outcome.commitments.kept
    assert {sent for _, sent in outcome.sent} == archive.digests()


def test_findscu_reads_our_worklist_with_keys_wildcards_and_ranges():
    ris = Ris([*ORDERS, replace(ORDERS[0], modality="MR", station_ae_title="MR1", date="20260102")])
    ris.start()
    try:

        def found(*keys: str) -> int:
            asked = [word for key in keys for word in ("-k", key)]
            told = subprocess.run(
                ["findscu", "-W", "-aec", "RIS", *asked, "127.0.0.1", str(ris.port)],
                capture_output=True, text=True, timeout=30, env={**os.environ, "TCP_NODELAY": "1"},
            )  # fmt: skip
            assert told.returncode == 0
            return (told.stdout + told.stderr).count("Find Response:")

        step = "ScheduledProcedureStepSequence[0]"
        assert found("PatientName", f"{step}.Modality") == 3
        assert found(f"{step}.Modality=CT") == 2
        assert found(f"{step}.ScheduledStationAETitle=MR1") == 1
        assert found(f"PatientID={ORDERS[1].patient_id}") == 1
        assert found("PatientName=*") == 3
        assert found(f"{step}.ScheduledProcedureStepStartDate=20260102-") == 1
        assert found("AccessionNumber=NOSUCH") == 0
    finally:
        ris.stop()


@pytest.fixture
def dcmjs(port):
    node, folder = shutil.which("node"), Path(__file__).parent
    if node is None or not (folder.parent / "node_modules" / "dcmjs-dimse").exists():
        pytest.skip("node and tests/node_modules are not there: .ci/setup peers")
    number = port()
    process = subprocess.Popen(
        [node, str(folder / "dcmjs_mpps.js"), str(number)], stdout=subprocess.PIPE, text=True, cwd=folder.parent
    )
    assert process.stdout.readline().strip() == "listening"

    def told() -> list[dict]:
        process.kill()
        return [json.loads(line) for line in process.stdout.read().splitlines()]

    yield Peer("127.0.0.1", number, "DCMJS"), told
    process.kill()
    process.wait(10)


@pytest.mark.parametrize(("discontinue", "last"), [(0.0, "COMPLETED"), (1.0, "DISCONTINUED")])
def test_dcmjs_hears_what_a_scanner_does(dcmjs, store, discontinue, last):
    peer, told = dcmjs
    outcome = Scanner(load("mg"), Places(store[1], mpps=peer), act(studies=1, discontinue=discontinue)).run()
    assert outcome.complete and list(outcome.steps.values()) == [last]
    begun, ended = told()
    assert (begun["kind"], begun["status"], ended["kind"], ended["status"]) == ("create", "IN PROGRESS", "set", last)
    assert begun["uid"] == ended["uid"] and begun["patient"].startswith("EMU")
    assert sum(ended["images"]) == len(outcome.sent)


@pytest.fixture
def ris():
    ris = Ris(ORDERS)
    ris.start()
    yield ris
    ris.stop()


def test_our_ris_gives_patients_and_hears_of_their_steps(ris, store):
    peer = Peer("127.0.0.1", ris.port, "RIS")
    outcome = Scanner(load("ct"), Places(store[1], worklist=peer, mpps=peer), act()).run()
    assert outcome.complete and outcome.worklist == 2
    assert [ris.status_of(one.study_instance_uid) for one in ORDERS] == [["COMPLETED"], ["COMPLETED"]]


def test_a_step_without_a_name_is_named_by_our_ris(ris, store):
    """Q28: and its end is told under that name."""
    peer = Peer("127.0.0.1", ris.port, "RIS")
    outcome = Scanner(load("ct", {"Q28": True}), Places(store[1], worklist=peer, mpps=peer), act()).run()
    assert outcome.complete and set(outcome.steps) == set(ris.steps)


def test_a_worklist_query_that_is_cancelled_keeps_our_ris_well(ris, store):
    peer = Peer("127.0.0.1", ris.port, "RIS")
    assert Scanner(load("ct", {"Q25": True}), Places(store[1], worklist=peer), act()).run().worklist == 2


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exam")
    (folder / "inbox").mkdir()
    box = Box(folder, more='[commitment]\nanswer = "local"\n[[folder]]\npath = "inbox"\nsettle_s = 4')
    yield box.start()
    box.stop()


@pytest.mark.parametrize("quirk", ["Q20", "Q21"])
def test_the_gateway_reports_on_the_association_of_the_request(box, quirk):
    """Q20, and Q21: whatever the scanner calls itself."""
    peer = Peer("127.0.0.1", box.port, "EDGEGW")
    told = {"Q20": True, quirk: True}
    outcome = Scanner(load("ct", told), Places(peer, commitment=peer), act(seed=int(quirk[1:]))).run()
    assert outcome.complete and outcome.commitments.kept == {uid for uid, _ in outcome.sent}


def test_the_gateway_reports_on_a_later_association_of_the_scanner(box):
    peer = Peer("127.0.0.1", box.port, "EDGEGW")
    profile = load("ct", {"Q20": {"wait": "later"}})
    assert Scanner(profile, Places(peer, commitment=peer), act(seed=300)).run().complete


def test_files_without_preamble_that_grow_beside_a_dicomdir_are_taken_whole(box):
    """Q29."""
    profile = load("ct", {"Q29": {"grow_s": 30}})
    outcome = Scanner(profile, Places(folder=box.folder / "inbox"), act(seed=400, studies=1, pace=0.01)).run()
    assert outcome.files == len(outcome.sent) > 0
    sent = {one for _, one in outcome.sent}
    assert until(lambda: sent <= set(wire.shelves(box.folder / "data"))), "not all files are in custody"


def test_files_as_they_should_be_are_part_10(tmp_path):
    outcome = Scanner(load("us"), Places(folder=tmp_path), act(seed=401, studies=1)).run()
    assert {digest(path) for path in tmp_path.iterdir()} == {one for _, one in outcome.sent}


def test_the_same_patient_comes_again_with_another_study(store):
    outcome = Scanner(load("cr"), Places(store[1]), act(studies=3, again=1.0)).run()
    assert outcome.complete and len(studies(outcome)) == 3
