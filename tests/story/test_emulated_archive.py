"""The emulated archive keeps what DCMTK sends and misbehaves as told; the gateway delivers to it all the same."""

from __future__ import annotations

import socketserver
import subprocess
import threading

import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.presentation import build_role
from pynetdicom.sop_class import StorageCommitmentPushModel

from gateway.emulator.exam import Act, Places, Scanner
from gateway.emulator.hl7 import MllpSender, message, send_orders
from gateway.emulator.objects import Limits
from gateway.emulator.orders import order
from gateway.emulator.pacs import Commits, Pacs
from gateway.emulator.profile import load
from gateway.emulator.rules import parse
from gateway.emulator.services import Peer
from gateway.emulator.stow import Stow
from tests.conftest import digest, until

EXPLICIT = "1.2.840.10008.1.2.1"


@pytest.fixture
def make_pacs():
    running = []

    def make(*rules: str, **told) -> Pacs:
        archive = Pacs(rules=[parse(text) for text in rules], **told)
        archive.start()
        running.append(archive)
        return archive

    yield make
    for archive in running:
        archive.stop()


def storescu(archive, *files, options=()) -> subprocess.CompletedProcess:
    command = ["storescu", "-R", *options, "-aec", "PACS", "127.0.0.1", str(archive.port), *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_what_dcmtk_stores_is_kept_byte_for_byte(make_pacs, ct_files, tmp_path):
    archive = make_pacs(folder=tmp_path)
    assert storescu(archive, *ct_files).returncode == 0
    sent = {digest(path) for path in ct_files}
    assert {one.sha256 for one in archive.received} == sent
    assert {digest(path) for path in tmp_path.iterdir()} == sent
    assert {str(pydicom.dcmread(path).PatientName) for path in tmp_path.iterdir()} == {"EMULATED^CT^7"}


@pytest.mark.parametrize(
    "rule", ["do=busy after=1", "do=fail after=1", "do=abort after=1", "on=inside do=reset after=1", "do=close after=1"]
)
def test_dcmtk_notices_a_misbehaviour_and_nothing_is_kept_of_it(make_pacs, ct_files, rule):
    archive = make_pacs(rule)
    assert storescu(archive, *ct_files[:3]).returncode != 0
    assert sum(one.kept for one in archive.received) == 1 and archive.rules.met >= 1


def test_dcmtk_is_rejected_once_and_then_served(make_pacs, ct_files):
    archive = make_pacs("on=associate do=refuse count=1")
    assert "Rejected" in storescu(archive, ct_files[0]).stderr
    assert storescu(archive, ct_files[0]).returncode == 0


def test_a_syntax_that_is_refused_is_not_taken_from_dcmtk(make_pacs, ct_files):
    archive = make_pacs(refuse_syntaxes=[EXPLICIT])
    storescu(archive, ct_files[0], options=("-xe",))
    assert EXPLICIT not in {one.transfer_syntax_uid for one in archive.received}


def test_an_archive_that_lies_says_success_and_has_nothing(make_pacs, ct_files):
    archive = make_pacs("do=lie")
    assert storescu(archive, ct_files[0]).returncode == 0
    assert archive.received == []


class Asker:
    """pynetdicom asks for commitment and takes the report wherever it comes."""

    def __init__(self, port: int) -> None:
        self.reports, self.entity = [], AE(ae_title="ASKER")
        self.entity.add_requested_context(StorageCommitmentPushModel)
        self.entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        self.handlers = [(evt.EVT_N_EVENT_REPORT, self.hear)]
        self.entity.start_server(("127.0.0.1", port), block=False, evt_handlers=self.handlers)

    def hear(self, event):
        self.reports.append(event.event_information)
        return 0x0000, None

    def open(self, archive):
        role = build_role(StorageCommitmentPushModel, scu_role=True, scp_role=False)
        place = ("127.0.0.1", archive.port)
        association = self.entity.associate(*place, ae_title="PACS", ext_neg=[role], evt_handlers=self.handlers)
        assert association.is_established
        return association

    def ask(self, archive, files):
        association, request = self.open(archive), Dataset()
        request.TransactionUID = "1.2.826.99.1"
        request.ReferencedSOPSequence = []
        for path in files:
            item, head = Dataset(), pydicom.dcmread(path, stop_before_pixels=True)
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = head.SOPClassUID, head.SOPInstanceUID
            request.ReferencedSOPSequence.append(item)
        status, _ = association.send_n_action(request, 1, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1")
        assert status.Status == 0
        return association


@pytest.mark.parametrize("how", ["same", "new", "later"])
def test_pynetdicom_hears_what_is_kept_and_what_is_not(make_pacs, ct_files, port, how):
    listen = port()
    archive = make_pacs(commits=Commits(how, after_s=0.3, port=listen))  # pynetdicom loses what comes at once
    storescu(archive, *ct_files[:2])
    asker = Asker(listen)
    try:
        association = asker.ask(archive, ct_files[:3])
        if how == "later":
            association.release()
            assert asker.reports == []
            association = asker.open(archive)
        assert until(lambda: asker.reports, 10)
        association.release()
    finally:
        asker.entity.shutdown()
    assert len(asker.reports[0].ReferencedSOPSequence) == 2
    assert asker.reports[0].FailedSOPSequence[0].FailureReason == 0x0112


def test_our_scanner_hears_our_archive_though_they_share_no_code_for_it(make_pacs, port):
    """Of a report on a new association the scanner's side is pynetdicom's."""
    listen = port()
    archive = make_pacs(commits=Commits("new", port=listen, fail_every=3))
    peer = Peer("127.0.0.1", archive.port, "PACS")
    act = Act(limits=Limits(images=2, side=48), pace=0)
    outcome = Scanner(load("ct"), Places(peer, commitment=peer, listen=listen), act).run()
    assert not outcome.complete and len(outcome.commitments.failed) == len(outcome.sent) // 3


def test_a_scanner_without_end_sends_until_it_is_stopped(make_pacs):
    archive, stop = make_pacs(), threading.Event()
    peer, act = Peer("127.0.0.1", archive.port, "PACS"), Act(limits=Limits(images=1, series=1, side=16))
    scanner = Scanner(load("ct", {"endless": True}), Places(peer), act, stop=stop)
    thread = threading.Thread(target=scanner.run)
    thread.start()
    assert until(lambda: len(archive.received) > 5)
    stop.set()
    thread.join(20)
    assert not thread.is_alive() and scanner.outcome.studies > 5
    assert {one.sha256 for one in archive.received} == {digest for _, digest in scanner.outcome.sent}


MISBEHAVIOURS = {
    "busy for a while": ["do=busy count=3"],
    "drops the line": ["do=reset count=2", "on=inside do=close after=4 count=1"],
    "rejects, aborts": ["on=associate do=refuse count=1", "do=abort after=2 count=1"],
    "keeps and does not answer": ["on=stored do=reset count=2"],
    "slow": ["do=slow seconds=0.2"],
}


@pytest.fixture
def make_web():
    running = []

    def make(archive: Pacs) -> Stow:
        web = Stow(archive.shelf, archive.rules)
        web.start()
        running.append(web)
        return web

    yield make
    for web in running:
        web.stop()


def test_the_gateway_delivers_all_to_archives_that_misbehave(make_box, make_pacs, make_web, ct_files):
    """Each archive is a destination of its own, by DIMSE and by STOW-RS; a page of a guest network is none's word."""
    archives, tables = {}, []
    for name, rules in {**MISBEHAVIOURS, "guest network": ["do=page count=2"]}.items():
        for door in ("dimse", "stow") if name != "guest network" else ("stow",):
            archive = archives[f"{name} {door}"] = make_pacs(*rules)
            at = f'host = "127.0.0.1"\nport = {archive.port}\nae_title = "PACS"'
            at = f'url = "{make_web(archive).url}"' if door == "stow" else at
            named = f'[[destination]]\nname = "to{len(tables)}"\nkind = "{door}"\n{at}\n'
            tables.append(named + 'compression = "off"\nretry_first_s = 0.1\nretry_ceiling_s = 0.3\n')
    box = make_box("".join(tables)).start()
    assert storescu(box, *ct_files[:6]).returncode == 0
    sent = {digest(path) for path in ct_files[:6]}
    for name, archive in archives.items():
        assert until(lambda archive=archive: {one.sha256 for one in archive.received if one.kept} == sent), name
        assert archive.rules.met >= 1, name
    assert until(box.delivered_all), box.log()


class Mllp:
    """Takes messages over MLLP, and answers AA, or AE for a cancelled order."""

    def __init__(self) -> None:
        taken = self.taken = []

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                got = b""
                while block := self.request.recv(65536):
                    got += block
                    while b"\x1c\r" in got:
                        one, _, got = got.partition(b"\x1c\r")
                        taken.append(one.lstrip(b"\x0b"))
                        code = "AE" if b"\rORC|CA" in one else "AA"
                        self.request.sendall(f"\x0bMSH|^~\\&|||||||ACK\rMSA|{code}|1|heard\r\x1c\r".encode())

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.place = self.server.server_address

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_orders_and_patients_go_over_mllp_and_are_answered():
    other = Mllp()
    orders = [order(number, "CT", "CT | chest & head", letters="cyrillic", station="CT1") for number in (1, 2)]
    assert send_orders(other.place, orders, "ORM") == 0
    sender = MllpSender(other.place)
    answers = [sender.send(message(orders[0], kind, 9, merged="OLD1")) for kind in ("OMI", "ADT", "update", "merge")]
    answers.append(sender.send(message(orders[0], "ORM", 10, control="CA")))
    sender.close()
    other.close()
    assert [one.code for one in answers] == ["AA", "AA", "AA", "AA", "AE"] and answers[0].text == "heard"
    first = {line.split("|")[0]: line.split("|") for line in other.taken[0].decode().split("\r")}
    assert first["MSH"][8] == "ORM^O01^ORM_O01" and first["PID"][5] == orders[0].patient_name
    assert first["ZDS"][1].split("^")[0] == orders[0].study_instance_uid
    assert first["OBR"][4].split("^")[1] == "CT \\F\\ chest \\T\\ head"
    assert first["OBR"][18] == orders[0].accession_number and first["OBR"][24] == "CT"
    kinds = [one.decode().split("|")[8].split("^")[1] for one in other.taken]
    assert kinds == ["O01", "O01", "O23", "A04", "A08", "A40", "O01"]
