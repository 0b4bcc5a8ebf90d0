"""The box tells the truth about itself by MQTT, without a byte of patient data, whatever the broker does."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pydicom
import pytest

from gateway.model.payloads import NAMES, faults
from tests.guard import least, resident_kb
from tests.ports import hang_up

SCHEMA_OF = {"health": "health", "session": "session", "birth": "birth"}
"""Last part of a topic -> schema; else the part after the box's name."""


def schema_of(topic: str) -> str:
    parts = topic.split("/")[4:]
    return SCHEMA_OF.get(parts[0], parts[0])


def broken(lines: list[dict]) -> list[str]:
    found = []
    for line in lines:
        if line["topic"].startswith("gw/") and "/cmd/" not in line["topic"] and line["payload"]:
            name = schema_of(line["topic"])
            assert name in NAMES, line["topic"]
            found += [f"{line['topic']}: {fault}" for fault in faults(name, json.loads(line["payload"]))]
    return found


def send(files, port: int) -> None:
    subprocess.run(["storescu", "127.0.0.1", str(port), *map(str, files)], check=True, timeout=60)


MODALITY = '[[modality]]\nname = "ct1"\nae_title = "STORESCU"\n'


def test_a_box_says_who_it_is_and_how_it_is(make_box, broker, wait_until):
    heard = broker.record()
    box = make_box(more=broker.table() + MODALITY).start()
    assert wait_until(lambda: heard.last("mod/ct1/health"))
    assert heard.lines()[0]["topic"] == "gw/v1/default/gateway/session"
    assert heard.last("/session")["state"] == "online"
    assert heard.last("/birth")["modalities"] == ["ct1"]
    assert heard.last("gateway/health")["status"] in ("ok", "degraded", "critical")
    assert wait_until(lambda: heard.of("e/boot"))
    assert box.stop() == 0
    assert wait_until(lambda: heard.last("/session")["state"] == "offline")
    assert heard.last("/session")["reason"] == "shutdown"
    assert broken(heard.lines()) == []
    numbered = [(line["qos"], json.loads(line["payload"])["seq"]) for line in heard.lines() if line["payload"]]
    acknowledged = [number for qos, number in numbered if qos == 1]
    assert acknowledged == sorted(acknowledged)
    # The broker lets counters overtake when the subscriber is slow: MQTT 5 keeps the order within one QoS (4.6).
    assert sorted(number for _, number in numbered) == list(range(len(numbered)))


def test_after_a_hard_cut_the_broker_says_that_we_are_gone(make_box, broker, wait_until):
    heard = broker.record()
    box = make_box(more=broker.table())
    bound_s = 1 + 2  # will delay + 2 s

    def until_told() -> float:
        box.start()
        assert wait_until(lambda: (heard.last("/session") or {}).get("state") == "online")
        box.kill()
        cut_at = time.monotonic()
        assert wait_until(lambda: heard.last("/session")["state"] == "offline")
        assert heard.last("/session")["reason"] == "will"
        return time.monotonic() - cut_at

    assert least(until_told, bound_s) < bound_s


def test_after_a_restart_of_the_broker_everything_is_told_again(make_box, broker, wait_until):
    box = make_box(more=broker.table() + MODALITY).start()
    first = broker.record()
    assert wait_until(lambda: first.last("gateway/health"))
    session = first.last("/session")["session"]
    broker.kill()
    broker.start()
    heard = broker.record()
    assert wait_until(lambda: heard.last("mod/ct1/health"), 30)
    for end in ("/session", "/birth", "gateway/health", "svc/receiver/health"):
        assert heard.last(end), end
    assert heard.last("/session")["state"] == "online"
    assert heard.last("/session")["session"] != session
    assert broken(heard.lines()) == []
    box.kill()


def test_no_patient_data_leaves_by_mqtt_or_metrics(
    make_box, broker, make_archive, dimse, test_files, ct_files, wait_until, port
):
    archive = make_archive().start()
    heard = broker.record()
    destinations = dimse(archive.port) + dimse(1, "dead-end")
    metrics = port()
    box = make_box(destinations, more=broker.table() + MODALITY + f"[metrics]\nport = {metrics}\n")
    box.start(env={"TZ": f"NOON{time.gmtime().tm_hour - 12:+d}"})  # at midnight today's studies begin anew
    sent = [*ct_files, *test_files[:40]]
    for path in sent:
        subprocess.run(["storescu", "-aet", "STORESCU", "127.0.0.1", str(box.port), str(path)], timeout=60)
    assert wait_until(lambda: (heard.last("dst/pacs/health") or {}).get("confirmed"))
    assert wait_until(lambda: (heard.last("dst/dead-end/health") or {}).get("last_error") == "no_answer")
    status = box.ask("status")
    assert status["accepted"] >= len(ct_files)
    count = status["accepted"]
    assert wait_until(lambda: heard.last("gateway/health")["sums"]["accepted"] == count)
    studies = len(box.ask("studies", limit=1000))
    assert wait_until(lambda: heard.last("mod/ct1/health")["studies_today"] == studies)
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=5) as answer:
        shown = answer.read().decode()
    box.kill()
    assert broken(heard.lines()) == []
    assert len(heard.lines()) > 20
    text = heard.text() + shown
    assert "dicom_gateway_accepted_total" in shown
    for value in identifying(sent):
        assert value not in text, "an identifying value was published"


IDENTIFYING = (
    *("PatientName", "PatientID", "PatientBirthDate", "OtherPatientIDs", "PatientAddress", "AccessionNumber"),
    *("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "StudyDescription", "SeriesDescription", "StudyID"),
    *("InstitutionName", "InstitutionAddress", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName"),
    *("StationName", "DeviceSerialNumber", "RequestingPhysician", "AdmissionID", "ProtocolName"),
)


def identifying(files) -> set[str]:
    """Each value of the files that tells of a person, and its parts; too short ones say nothing by being found."""
    values = set()
    for path in files:
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
        except (pydicom.errors.InvalidDicomError, OSError, ValueError):
            continue
        for keyword in IDENTIFYING:
            text = str(dataset.get(keyword, "") or "")
            values.update(part for part in [text, *re.split(r"[\^\\=, \[\]']+", text)] if len(part) >= 5)
    values -= {"STORESCU"}
    assert len(values) > 100
    return values


def test_a_second_box_cannot_speak_for_this_one(make_box, broker, wait_until):
    heard = broker.record()
    box = make_box(more=broker.table()).start()
    assert wait_until(lambda: heard.last("gateway/health"))
    broker.publish("gw/v1/default/gateway/session", b'{"state":"offline"}', "-r", user="other-box")
    broker.publish("gw/v1/default/gateway/cmd/reboot/1", b"{}", user="gateway")
    time.sleep(0.5)
    assert heard.last("/session")["state"] == "online"
    assert heard.of("cmd/reboot/1") == []
    box.kill()


class Hostile:
    """A TCP server that does to each connection what `act` does."""

    def __init__(self, act) -> None:
        self._act = act
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.met = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            self.met += 1
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection) -> None:
        with connection:
            try:
                self._act(connection)
            except OSError:
                pass


CONNACK = b"\x20\x03\x00\x00\x00"


def hangs(connection) -> None:
    """In the middle of the TLS handshake."""
    time.sleep(60)


def welcomes_and_hangs(connection) -> None:
    connection.recv(4096)
    connection.sendall(CONNACK)
    time.sleep(60)


def talks_nonsense(connection) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)


def welcomes_and_talks_nonsense(connection) -> None:
    connection.recv(4096)
    connection.sendall(CONNACK + bytes(range(256)) * 20)
    time.sleep(1)


def welcomes_and_sends_a_giant(connection) -> None:
    connection.recv(4096)
    connection.sendall(CONNACK + b"\x30\xff\xff\xff\x7f\x00\x01a")
    while True:
        connection.sendall(bytes(65536))


def welcomes_and_floods(connection) -> None:
    connection.recv(4096)
    connection.sendall(CONNACK)
    while True:
        connection.sendall(b"\x30\x04\x00\x01a\x00" * 1000)


def acknowledges_what_was_never_sent(connection) -> None:
    connection.recv(4096)
    connection.sendall(CONNACK + b"".join(b"\x40\x02" + mid.to_bytes(2, "big") for mid in range(1, 300)))
    time.sleep(1)


@pytest.mark.parametrize(
    "act",
    [
        hangs,
        welcomes_and_hangs,
        talks_nonsense,
        welcomes_and_talks_nonsense,
        welcomes_and_sends_a_giant,
        welcomes_and_floods,
        acknowledges_what_was_never_sent,
    ],
    ids=lambda act: act.__name__,
)
def test_no_broker_can_keep_the_box_from_its_work(make_box, make_archive, dimse, ct_files, wait_until, act):
    hostile, archive = Hostile(act), make_archive().start()
    tls = "tls = {}\n" if act is hangs else ""
    more = f'[mqtt]\nhost = "127.0.0.1"\nport = {hostile.port}\ninterval_s = 1\n{tls}'
    box = make_box(dimse(archive.port), more=more).start()
    assert wait_until(lambda: hostile.met)
    before = resident_kb(box.process.pid)
    send(ct_files, box.port)
    assert wait_until(lambda: len(list(archive.folder.iterdir())) == len(ct_files))
    after = resident_kb(box.process.pid)
    assert after - before < 64 * 1024
    if act is welcomes_and_sends_a_giant:
        assert wait_until(lambda: "larger than we take" in box.log())
    began = time.monotonic()
    assert box.stop() == 0
    assert time.monotonic() - began < 20
    assert "room_broke" not in box.log()
    hang_up(hostile.server)


def test_home_assistant_finds_the_box_and_prometheus_reads_it(make_box, broker, wait_until, port):
    heard, metrics = broker.record(), port()
    more = broker.table(more="home_assistant = true") + f"[metrics]\nport = {metrics}\n"
    box = make_box(more=more).start()
    assert wait_until(lambda: heard.last("/config"))
    found = heard.last("/config")
    health = wait_until(lambda: heard.last("gateway/health"))
    assert found["state_topic"] == "gw/v1/default/gateway/health"
    for name, sensor in found["components"].items():
        path = re.search(r"value_json\.([a-z_]+)(?:\.([a-z0-9_]+))?", sensor["value_template"])
        value = health[path[1]]
        assert path[2] is None or path[2] in value, name
        assert sensor["unique_id"]
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=5) as answer:
        assert "dicom_gateway_sums_agree 1.0" in answer.read().decode()
    box.kill()


def cli(box, *words) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "gateway", "--config", str(box.config), *words], capture_output=True, text=True
    )
    return run.stdout + run.stderr


def doctor(box) -> dict[str, dict]:
    run = subprocess.run(
        [sys.executable, "-m", "gateway", "--config", str(box.config), "doctor", "--json"],
        capture_output=True,
        text=True,
    )
    return {finding["name"]: finding for finding in map(json.loads, run.stdout.splitlines())}


def test_doctor_looks_at_the_broker_whether_the_service_runs_or_not(make_box, broker, wait_until):
    heard = broker.record()
    box = make_box(more=broker.table())
    assert doctor(box)["mqtt"]["good"]
    box.start()
    assert wait_until(lambda: heard.last("/session"))
    assert doctor(box)["mqtt"]["good"]
    assert "mqtt connected" in cli(box, "status")
    box.kill()
    broker.kill()
    found = doctor(box)["mqtt"]
    assert not found["good"]
    assert found["fix"]


def test_a_box_notes_whether_it_is_watched(make_box, broker, wait_until):
    box = make_box(more=broker.table()).start()
    state = "gw/v1/default/host/state"

    def says(word: str):
        return wait_until(lambda: box.ask("status")["mqtt"]["monitor"] == word)

    def tell(word: str) -> None:
        said = {"v": 1, "ts": "2026-01-01T00:00:00Z", "session": "0" * 32, "seq": 0, "state": word, "reason": "connect"}
        broker.publish(state, json.dumps(said).encode(), "-r", user="fleet-monitor")

    assert wait_until(lambda: box.ask("status")["mqtt"]["connected"])
    assert "no fleet monitor" in cli(box, "status")
    tell("online")
    assert says("online")
    broker.publish(state, b'{"state": "offline"}', "-r", user="fleet-monitor")
    broker.publish(state, b"x" * 5000, "-r", user="fleet-monitor")
    tell("offline")
    assert says("offline")
    assert "UNMONITORED" in cli(box, "status")
    broker.kill()
    assert says("unknown")
    box.kill()


def test_an_operator_pauses_a_destination_at_the_box(make_box, make_archive, dimse, ct_files, wait_until):
    archive = make_archive().start()
    box = make_box(dimse(archive.port)).start()
    assert "nothing leaves" in cli(box, "queue", "pause", "pacs", "--for", "600")
    send(ct_files[:2], box.port)
    assert "PAUSED" in cli(box, "status")
    assert list(archive.folder.iterdir()) == []
    assert "goes on" in cli(box, "queue", "resume", "pacs")
    assert wait_until(lambda: len(list(archive.folder.iterdir())) == 2)
    assert "known: pacs" in cli(box, "queue", "pause", "nowhere")
    box.kill()
