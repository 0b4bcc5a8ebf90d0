"""Full disks, rotten files, refused instances: each is told, none blocks the rest, nothing is dropped."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pydicom
from pynetdicom import AE, _config, evt


def scan(box, *files):
    return subprocess.run(
        ["storescu", "-v", "127.0.0.1", str(box.port), *map(str, files)],
        capture_output=True,
        text=True,
        env={**os.environ, "TCP_NODELAY": "1"},
    )


def cli(box, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "gateway", "--config", str(box.config), *arguments], capture_output=True, text=True
    )


def test_a_disk_below_its_reserve_refuses_and_goes_on_sending(make_box, make_archive, dimse, ct_files, wait_until):
    archive = make_archive()
    box = make_box(dimse(archive.port)).start()
    assert scan(box, ct_files[0]).returncode == 0
    assert box.stop() == 0
    text = box.config.read_text()
    box.config.write_text(text.replace("reserve_bytes = 0", f"reserve_bytes = {1 << 60}"))
    box.start()
    refused = scan(box, ct_files[1])
    assert refused.returncode != 0
    assert "Rejected" in refused.stdout + refused.stderr
    assert cli(box, "import", str(ct_files[1])).returncode == 1
    archive.start()
    assert wait_until(box.delivered_all)
    assert box.stop() == 0
    box.config.write_text(text)
    box.start()
    assert scan(box, ct_files[1]).returncode == 0


def test_one_rotten_object_goes_to_quarantine_and_the_rest_goes_on(
    make_box, make_archive, dimse, ct_files, digest_of, wait_until
):
    archive = make_archive()
    box = make_box(dimse(archive.port)).start()
    assert scan(box, *ct_files[:4]).returncode == 0
    rotten = box.shelf()[digest_of(ct_files[0])]
    content = bytearray(rotten.read_bytes())
    content[-100] ^= 1
    rotten.write_bytes(content)
    archive.start()
    assert wait_until(box.delivered_all)
    status = box.ask("status")
    assert (status["quarantined"], status["released"]) == (1, 3)
    assert status["sums_agree"]
    assert rotten.exists(), "what is in quarantine is never deleted"
    assert archive.digests() == {digest_of(path) for path in ct_files[1:4]}


def test_a_refused_instance_waits_alone_until_a_person_releases_it(make_box, dimse, ct_files, wait_until, port):
    _config.UNRESTRICTED_STORAGE_SERVICE = True
    poison = str(pydicom.dcmread(ct_files[0], stop_before_pixels=True).SOPInstanceUID)
    mood = {"strict": True}

    def store(event):
        return 0xA900 if mood["strict"] and event.request.AffectedSOPInstanceUID == poison else 0x0000

    entity = AE("PACS")
    place = port()
    entity.start_server(("127.0.0.1", place), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        box = make_box(dimse(place)).start()
        assert scan(box, *ct_files).returncode == 0
        assert wait_until(lambda: box.ask("status")["released"] == len(ct_files) - 1)
        held = wait_until(lambda: box.ask("queue_list", states=["held"]))
        assert [row["code"] for row in held] == [0xA900]
        mood["strict"] = False
        assert cli(box, "queue", "retry", "--all").returncode == 0
        assert wait_until(box.delivered_all)
    finally:
        entity.shutdown()


def test_senders_who_are_not_known_are_turned_away(make_box, ct_files):
    box = make_box(
        more='[admit]\nunknown_senders = "reject"\n[[modality]]\nname = "ct"\nae_title = "CT1"\naddress = "127.0.0.1"'
    ).start()
    assert scan(box, ct_files[0]).returncode != 0
    known = subprocess.run(["storescu", "-aet", "CT1", "127.0.0.1", str(box.port), str(ct_files[0])])
    assert known.returncode == 0


def test_routes_send_to_some_and_what_matches_none_is_kept(
    make_box, make_archive, dimse, ct_files, test_files, wait_until
):
    archive = make_archive().start()
    route = '[[route]]\nwhen = { modality = ["MR"] }\nto = ["pacs"]\n'
    box = make_box(dimse(archive.port) + route).start()
    mr = next(path for path in test_files if path.name == "MR_small.dcm")
    assert scan(box, ct_files[0], mr).returncode == 0
    assert wait_until(lambda: box.ask("status")["released"] == 1)
    assert (box.ask("status")["held"], box.ask("status")["unrouted"]) == (1, 1)


def test_logs_and_status_hold_no_patient_data(make_box, make_archive, dimse, ct_files, wait_until):
    archive = make_archive().start()
    box = make_box(dimse(archive.port)).start()
    assert scan(box, *ct_files[:3]).returncode == 0
    assert wait_until(box.delivered_all)
    dataset = pydicom.dcmread(ct_files[0], stop_before_pixels=True)
    told = box.log() + json.dumps(box.ask("status")) + json.dumps(box.ask("queue_list"))
    for secret in (dataset.PatientName, dataset.PatientID, dataset.AccessionNumber, dataset.SOPInstanceUID):
        assert str(secret) not in told


def test_retention_gives_up_released_files_and_the_sums_still_agree(
    make_box, make_archive, dimse, ct_files, wait_until
):
    archive = make_archive().start()
    box = make_box(dimse(archive.port), more="retention_days = 0").start()
    assert scan(box, *ct_files[:3]).returncode == 0
    assert wait_until(lambda: box.ask("status")["retired"] == 3)
    assert box.ask("status")["sums_agree"]
    assert box.shelf() == {}
