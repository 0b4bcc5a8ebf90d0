"""What the box keeps, and for how long: retention, export, scrub, studies, receipts."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time

import pydicom

from gateway.spool.spool import Spool


def scan(box, *files):
    return subprocess.run(
        ["storescu", "127.0.0.1", str(box.port), *map(str, files)],
        capture_output=True,
        text=True,
        env={**os.environ, "TCP_NODELAY": "1"},
    )


def cli(box, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "gateway", "--config", str(box.config), *map(str, arguments)],
        capture_output=True,
        text=True,
    )


def test_a_full_disk_takes_confirmed_copies_before_their_days_and_nothing_else(
    make_box, make_archive, dimse, ct_files, digest_of, wait_until
):
    archive = make_archive().start()
    box = make_box(dimse(archive.port)).start()
    assert scan(box, *ct_files[:3]).returncode == 0
    assert wait_until(box.delivered_all)
    archive.stop()
    assert scan(box, *ct_files[3:6]).returncode == 0
    assert box.ask("status")["released"] == 3, "retention is seven days"
    assert box.stop() == 0
    box.config.write_text(box.config.read_text().replace("high_water_percent = 100", "high_water_percent = 0.001"))
    box.start()
    assert wait_until(lambda: box.ask("status")["retired"] == 3)
    status = box.ask("status")
    assert (status["held"], status["sums_agree"]) == (3, True)
    assert set(box.shelf()) == {digest_of(path) for path in ct_files[3:6]}
    assert "space_short" in box.log()


def test_a_delivery_that_vanished_from_the_ledger_is_an_alarm(make_box, dimse, port, ct_files, wait_until):
    box = make_box(dimse(port()) + dimse(port(), "second")).start()
    assert scan(box, *ct_files[:2]).returncode == 0
    rows = box.ask("status")["destinations"]
    assert [(rows[name]["accepted"], rows[name]["sums_agree"]) for name in ("pacs", "second")] == [(2, True)] * 2
    assert box.stop() == 0
    with sqlite3.connect(box.folder / "data" / "ledger.db") as db:
        db.execute("DELETE FROM delivery WHERE destination = 'second' AND seq = 1")
    box.start()
    status = box.ask("status")
    assert (status["sums_agree"], status["alarms"]["sums_disagree"]) == (False, 1)
    assert [status["destinations"][name]["sums_agree"] for name in ("pacs", "second")] == [True, False]
    assert "deliveries to second" in cli(box, "status").stdout
    assert wait_until(lambda: "sums_disagree what='destination second'" in box.log())


def test_what_waits_and_what_rots_can_be_carried_away_on_a_stick(make_box, dimse, port, ct_files, digest_of):
    box = make_box(dimse(port(), more='compression = "off"')).start()
    assert scan(box, *ct_files[:3]).returncode == 0
    rotten = box.shelf()[digest_of(ct_files[0])]
    rotten.write_bytes(rotten.read_bytes()[:-1] + b"!")
    first, second, third = (box.folder / name for name in ("first", "second", "third"))
    told = cli(box, "queue", "export", "--destination", "pacs", "--to", first, "--json")
    assert (told.returncode, json.loads(told.stdout)["exported"], json.loads(told.stdout)["rotten"]) == (1, 2, 1)
    assert {digest_of(path) for path in first.glob("*.dcm")} > {digest_of(path) for path in ct_files[1:3]}
    lines = [json.loads(line) for line in (first / "manifest.jsonl").read_text().splitlines()]
    assert [line["intact"] for line in lines] == [False, True, True]
    patient = pydicom.dcmread(ct_files[0], stop_before_pixels=True)
    for secret in (patient.PatientName, patient.PatientID):
        assert str(secret) not in (first / "manifest.jsonl").read_text()

    assert cli(box, "queue", "export", "--all", "--to", first).returncode == 1, "the folder is not empty"
    assert cli(box, "queue", "export", "--to", second).returncode == 2, "nothing is named"
    assert cli(box, "queue", "export", lines[1]["object_id"], "--to", second).returncode == 0
    assert [digest_of(path) for path in second.glob("*.dcm")] == [digest_of(ct_files[1])]
    assert cli(box, "queue", "export", "--study", "1.2.3.nowhere", "--to", third).returncode == 1
    assert box.stop() == 0
    assert cli(box, "queue", "export", "--study", patient.StudyInstanceUID, "--to", box.folder / "off").returncode == 1
    assert len(list((box.folder / "off").glob("*.dcm"))) == 3
    (box.folder / "data" / "quarantine" / "strange.dcm").write_bytes(b"no label at all")
    assert "1 files that a start set aside" in cli(box, "queue", "list", "--quarantined").stdout
    assert cli(box, "queue", "export", "--quarantined", "--to", third / "aside").returncode == 0
    assert (third / "aside" / "strange.dcm").read_bytes() == b"no label at all"


def test_rot_is_found_while_the_archive_is_away_and_never_sent(
    make_box, make_archive, dimse, ct_files, digest_of, wait_until
):
    archive = make_archive()
    box = make_box(dimse(archive.port), more="scrub_days = 0.00001").start()
    assert scan(box, *ct_files[:4]).returncode == 0
    rotten = box.shelf()[digest_of(ct_files[0])]
    content = bytearray(rotten.read_bytes())
    content[-1] ^= 1
    rotten.write_bytes(content)
    assert wait_until(lambda: box.ask("status")["alarms"].get("custody_rot") == 1)
    (row,) = box.ask("queue_list", quarantined=True)
    assert (row["state"], row["object_id"]) == ("held", rotten.stem)
    assert row["reason"] == "found by scrub: the bytes on disk are not those that were acknowledged"
    assert f"custody_rot object={rotten.stem}" in box.log()
    archive.start()
    assert wait_until(box.delivered_all)
    assert archive.digests() == {digest_of(path) for path in ct_files[1:4]}
    passed = wait_until(lambda: box.ask("status")["scrub"]["last_full_pass_at"])
    assert abs(passed - time.time()) < 60
    assert "everything read again and compared: 20" in cli(box, "status").stdout
    assert cli(box, "queue", "export", "--quarantined", "--to", box.folder / "out").returncode == 0
    assert "found by scrub" in (box.folder / "out" / "manifest.jsonl").read_text()
    assert rotten.exists()
    before = box.ask("status")["released"]
    assert scan(box, ct_files[0]).returncode == 0, "the scanner sends it again, and it is taken as new"
    assert wait_until(lambda: box.ask("status")["released"] == before + 1)
    assert digest_of(ct_files[0]) in archive.digests()
    assert box.ask("status")["sums_agree"]


def test_a_study_that_stays_short_is_an_alarm_until_the_rest_comes(make_box, make_archive, dimse, ct_files, wait_until):
    archive = make_archive().start()
    box = make_box(dimse(archive.port), more="study_short_alarm_s = 0.5").start()
    study = str(pydicom.dcmread(ct_files[0], stop_before_pixels=True).StudyInstanceUID)
    assert scan(box, *ct_files[:3]).returncode == 0
    assert wait_until(box.delivered_all)
    assert wait_until(lambda: "study_short" not in box.ask("status")["alarms"])
    assert box.stop() == 0
    spool = Spool(box.folder / "data", 0, 100)
    said = [str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in ct_files[:5]]
    spool.expect(said, "commitment CT1")
    spool.close()
    box.start()
    assert wait_until(lambda: box.ask("status")["alarms"].get("study_short") == 1)
    (row,) = json.loads(cli(box, "status", "studies", "--short", "--json").stdout)
    assert (row["study_uid"], row["expected"], row["received"], row["missing"]) == (study, 5, 3, 2)
    assert row["destinations"] == {"pacs": {"required": 3, "delivered": 3, "confirmed": 3}}
    assert study not in box.log()
    assert "SHORT since" in cli(box, "status", "studies", "--study", study).stdout
    assert cli(box, "status", "studies", "--study", "1.2.3.nowhere").returncode == 1

    assert scan(box, *ct_files[3:5]).returncode == 0
    assert wait_until(lambda: not box.ask("status")["alarms"])
    assert wait_until(box.delivered_all)
    table = cli(box, "status", "studies").stdout.splitlines()
    assert table[1].split() == [study, *table[1].split()[1:3], "5", "5", "0", "pacs", "5", "5", "complete"]
    assert cli(box, "queue", "settle", study).returncode == 1, "nothing of it is missed"
    assert box.stop() == 0
    assert cli(box, "status", "studies", "--page", "2").stdout == ""


def openssl_verifies(key, receipt):
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(key), "-rawin", "-in", str(receipt)]
    return subprocess.run([*command, "-sigfile", f"{receipt}.sig"], capture_output=True).returncode == 0


def test_a_receipt_can_be_verified_by_anybody_and_forged_by_nobody(
    make_box, make_archive, dimse, ct_files, digest_of, wait_until
):
    archive = make_archive()
    box = make_box(dimse(archive.port)).start()
    study = str(pydicom.dcmread(ct_files[0], stop_before_pixels=True).StudyInstanceUID)
    assert scan(box, *ct_files[:3]).returncode == 0
    early, full, key = (box.folder / name for name in ("early.json", "full.json", "key.pem"))
    assert cli(box, "status", "receipt", study, "--out", early).returncode == 1, "nothing is confirmed yet"
    archive.start()
    assert wait_until(box.delivered_all)
    assert cli(box, "status", "receipt", study, "--out", full).returncode == 0
    key.write_text(cli(box, "status", "receipt", "--public-key").stdout)
    assert openssl_verifies(key, early)
    assert openssl_verifies(key, full)
    said = json.loads(full.read_text())
    assert (said["complete"], said["destinations"]) == (True, {"pacs": {"required": 3, "delivered": 3, "confirmed": 3}})
    assert {row["sha256_as_received"] for row in said["instances"]} == {digest_of(path) for path in ct_files[:3]}
    full.write_text(full.read_text().replace('"confirmed":3', '"confirmed":4'))
    assert not openssl_verifies(key, full)
    assert cli(box, "status", "receipt", study, "--out", full).returncode == 1, "the file is there already"
    printed = json.loads(cli(box, "status", "receipt", study).stdout)
    assert (printed["receipt"]["received"], printed["public_key"]) == (3, key.read_text())
    assert cli(box, "status", "receipt", "1.2.3.nowhere").returncode == 1
    assert cli(box, "status", "receipt").returncode == 2
    assert box.stop() == 0
    assert cli(box, "status", "receipt", study).returncode == 69
    box.start()
    assert cli(box, "status", "receipt", "--public-key").stdout == key.read_text()
