"""Where an object goes is what its attributes say, told beforehand, and told again when the configuration changes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pydicom
import pytest

from tests import wire

SECRET = "Wiśniewska^Żaneta"
TO_PACS = '[[route]]\nto = ["pacs"]\nwhen = { tag = [{ tag = "PatientSex", equals = "F" }] }\n'
TO_RESEARCH = (
    '[[route]]\nto = ["research"]\npriority = "bulk"\n[route.when]\nbody_part = ["CHEST"]\n'
    '[[route.when.tag]]\ntag = "PatientName"\nmatches = "^Wiś"\n'
)


@pytest.fixture(scope="module")
def people(tmp_path_factory, ct_files):
    """A file for each of three people, by what is known of them."""
    folder, files = tmp_path_factory.mktemp("people"), {}
    for name, sex, patient, part in (
        ("woman", "F", "Doe^Jane", "HEAD"),
        ("chest", "M", SECRET, "CHEST"),
        ("nobody", "O", "Roe^Max", "HEAD"),
    ):
        dataset = pydicom.dcmread(ct_files[len(files)])
        dataset.SpecificCharacterSet = "ISO_IR 192"
        dataset.PatientSex, dataset.PatientName, dataset.BodyPartExamined = sex, patient, part
        files[name] = folder / f"{name}.dcm"
        dataset.save_as(files[name])
    return files


def scan(box, *files):
    command = ["storescu", "127.0.0.1", str(box.port), *map(str, files)]
    assert subprocess.run(command, env={**os.environ, "TCP_NODELAY": "1"}).returncode == 0


def dicom_gateway(box, *arguments):
    command = [sys.executable, "-m", "gateway", "--config", str(box.config), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_attributes_decide_where_an_object_goes_and_a_reload_decides_again(
    make_box, make_archive, dimse, people, digest_of, wait_until
):
    pacs, research = make_archive().start(), make_archive().start()
    box = make_box(dimse(pacs.port) + TO_PACS).start()
    scan(box, *people.values())
    assert wait_until(lambda: box.ask("status")["released"] == 1)
    assert box.ask("status")["unrouted"] == 2
    assert pacs.digests() == {digest_of(people["woman"])}

    box.config.write_text(box.config.read_text() + dimse(research.port, "research") + TO_RESEARCH)
    box.process.send_signal(signal.SIGHUP)
    assert wait_until(lambda: box.ask("status")["released"] == 2), box.log()
    assert box.ask("status")["unrouted"] == 1
    assert research.digests() == {digest_of(people["chest"])}
    assert pacs.digests() == {digest_of(people["woman"])}
    for secret in (SECRET, "Doe^Jane", "CHEST"):
        assert secret not in box.log()


def test_an_object_that_waited_for_a_route_through_a_restart_is_routed_by_its_file(
    make_box, make_archive, dimse, people, digest_of, wait_until
):
    pacs = make_archive().start()
    box = make_box(dimse(pacs.port) + TO_PACS.replace('"F"', '"nobody"')).start()
    scan(box, *people.values())
    assert box.ask("status")["unrouted"] == 3
    assert box.stop() == 0
    box.config.write_text(box.config.read_text().replace('"nobody"', '"F"'))
    box.start()
    assert wait_until(lambda: box.ask("status")["released"] == 1)
    assert pacs.digests() == {digest_of(people["woman"])}


def test_what_waits_for_an_archive_that_was_replaced_goes_to_its_successor(
    make_box, make_archive, dimse, ct_files, digest_of, wait_until
):
    gone, successor = make_archive(), make_archive().start()
    box = make_box(dimse(gone.port, "old")).start()
    scan(box, *ct_files[:3])
    assert "is configured" in dicom_gateway(box, "queue", "move", "old", "old").stderr
    box.config.write_text(box.config.read_text().replace('"old"', '"new"').replace(str(gone.port), str(successor.port)))
    box.process.send_signal(signal.SIGHUP)
    assert wait_until(lambda: "new" in box.ask("status")["destinations"]), box.log()
    assert "NOT CONFIGURED" in dicom_gateway(box, "status").stdout
    assert "known: new" in dicom_gateway(box, "queue", "move", "old", "nowhere").stderr
    moved = dicom_gateway(box, "queue", "move", "old", "new")
    assert (moved.returncode, moved.stdout) == (0, "3 deliveries moved from old to new\n"), moved.stderr
    assert wait_until(lambda: box.ask("status")["released"] == 3), box.log()
    assert successor.digests() == {digest_of(path) for path in ct_files[:3]}
    assert box.ask("status")["sums_agree"]
    assert "NOT CONFIGURED" not in dicom_gateway(box, "status").stdout
    assert dicom_gateway(box, "queue", "move", "old", "new").returncode == 1


def test_what_explain_says_is_what_happens(make_box, make_archive, dimse, people, wait_until):
    pacs, research = make_archive().start(), make_archive().start()
    hours = '[[route]]\nto = ["pacs"]\npriority = "stat"\nwhen = { calling_ae_title = ["NIGHT"], '
    hours += 'address = ["192.0.2.0/24"], time_of_day = "18:00-06:00" }\n'
    box = make_box(dimse(pacs.port) + dimse(research.port, "research") + TO_PACS + TO_RESEARCH + hours)

    told = dicom_gateway(box, "route", "explain", "--json", people["woman"], people["chest"], people["nobody"])
    assert told.returncode == 0, told.stderr
    answers = [json.loads(line) for line in told.stdout.splitlines()]
    assert [answer["destinations"] for answer in answers] == [{"pacs": "normal"}, {"research": "bulk"}, {}]
    failed = [condition for condition in answers[2]["routes"][0]["conditions"] if not condition["holds"]]
    assert failed == [{"condition": "PatientSex is F", "seen": "O", "holds": False}]

    as_if = ("--calling-ae-title", "NIGHT", "--address", "192.0.2.7", "--at", "23:30")
    told = dicom_gateway(box, "route", "explain", people["nobody"], *as_if)
    assert "goes to pacs (stat)" in told.stdout, told.stdout
    assert "custody, unrouted" in dicom_gateway(box, "route", "explain", people["nobody"]).stdout

    box.start()
    scan(box, *people.values())
    assert wait_until(lambda: box.ask("status")["released"] == 2)
    assert (len(pacs.digests()), len(research.digests()), box.ask("status")["unrouted"]) == (1, 1, 1)


def test_explain_says_1_for_what_is_no_object_and_goes_on(make_box, people):
    box = make_box('[[destination]]\nname = "out"\nkind = "folder"\npath = "out"\n')
    told = dicom_gateway(box, "route", "explain", box.config, people["woman"])
    assert told.returncode == 1
    assert "not a DICOM file" in told.stderr
    assert "goes to out (normal)" in told.stdout
    assert dicom_gateway(box, "route", "list").stdout == "no route: everything goes to out (normal)\n"


def test_the_order_of_delivery_is_the_senders_where_a_route_says_so(make_box):
    nobody = '[[destination]]\nname = "pacs"\nkind = "dimse"\nhost = "127.0.0.1"\nport = 1\nae_title = "ANY"\n'
    box = make_box(nobody + '[[route]]\nto = ["pacs"]\npriority = "sender"\n').start()
    with wire.Wire(box.port) as scanner:
        scanner.associate()
        for message_id, said in enumerate((2, 0, 1), 1):  # LOW, MEDIUM, HIGH (PS3.7 table 9.3-1)
            body = wire.data_set(f"1.2.9.{said}")
            command = wire.store_command(f"1.2.9.{said}", message_id, priority=said)
            scanner.send(
                wire.p_data(wire.pdv(1, wire.COMMAND | wire.LAST, command)), wire.p_data(wire.pdv(1, wire.LAST, body))
            )
            assert scanner.status() == 0
    rows = box.ask("queue_list", states=[])
    assert [row["priority"] for row in rows] == [2, 1, 0]
    assert box.ask("queue_show", object=rows[0]["object_id"])["dimse_priority"] == 2
