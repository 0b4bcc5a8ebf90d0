"""Storage commitment as SCP: what scanners are told, in the three ways in which they expect it (quirks Q20, Q21)."""

from __future__ import annotations

import subprocess

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from pynetdicom.presentation import build_role
from pynetdicom.sop_class import StorageCommitmentPushModel

WELL_KNOWN = "1.2.840.10008.1.20.1.1"


class Scanner:
    """pynetdicom as a scanner that asks, and hears reports on its own associations and on a port of its own."""

    def __init__(self, box, port, status=0x0000):
        self.box, self.reports, self.callers, self.status = box, [], [], status
        self.answered = []
        self.entity = AE(ae_title="SCANNER")
        self.entity.add_requested_context(StorageCommitmentPushModel, [ImplicitVRLittleEndian])
        self.entity.add_supported_context(
            StorageCommitmentPushModel, [ImplicitVRLittleEndian], scu_role=True, scp_role=True
        )
        self.handlers = [(evt.EVT_N_EVENT_REPORT, self._hear)]
        self.port = port
        self.server = None

    def listen(self):
        self.server = self.entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=self.handlers)

    def _hear(self, event):
        self.callers.append((event.assoc.requestor.ae_title, event.assoc.acceptor.ae_title, event.event_type))
        self.reports.append(event.event_information)
        self.answered.append(self.status)
        return self.answered[-1], None

    def open(self, called="EDGEGW"):
        role = build_role(StorageCommitmentPushModel, scu_role=True, scp_role=False)
        association = self.entity.associate(
            "127.0.0.1", self.box.port, ae_title=called, ext_neg=[role], evt_handlers=self.handlers
        )
        assert association.is_established
        return association

    def ask(self, association, files, transaction=None):
        request = Dataset()
        request.TransactionUID = transaction or generate_uid()
        request.ReferencedSOPSequence = [self.reference(path) for path in files]
        status, _ = association.send_n_action(request, 1, StorageCommitmentPushModel, WELL_KNOWN)
        assert status.Status == 0x0000, hex(status.Status)
        return request.TransactionUID

    @staticmethod
    def reference(path):
        item = Dataset()
        if isinstance(path, tuple):
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = path
        else:
            header = pydicom.dcmread(path, stop_before_pixels=True)
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
        return item

    def close(self):
        if self.server is not None:
            self.server.shutdown()


@pytest.fixture
def make_scanner(port):
    started = []

    def make(box, **how):
        started.append(Scanner(box, port(), **how))
        return started[-1]

    yield make
    for scanner in started:
        scanner.close()


def uids(report, keyword="ReferencedSOPSequence"):
    return sorted(item.ReferencedSOPInstanceUID for item in report.get(keyword, []))


def expected(files):
    return sorted(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in files)


def send(box, files):
    subprocess.run(["storescu", "127.0.0.1", str(box.port), *map(str, files)], check=True)


def table(scanner_port=104, **values):
    lines = {"answer": "local", "same_association_s": 10, "port": scanner_port, **values}
    return "[commitment]\n" + "".join(f"{key} = {value!r}\n" for key, value in lines.items())


def test_local_the_report_comes_on_the_association_of_the_request(make_box, make_scanner, ct_files, wait_until):
    box = make_box(more=table()).start()
    send(box, ct_files)
    scanner = make_scanner(box)
    association = scanner.open()
    transaction = scanner.ask(association, ct_files)
    assert wait_until(lambda: scanner.reports), box.log()
    association.release()
    assert uids(scanner.reports[0]) == expected(ct_files)
    assert scanner.reports[0].TransactionUID == transaction
    assert scanner.callers[0][2] == 1
    assert wait_until(lambda: not box.ask("status")["commitment"])


def test_what_is_not_here_or_of_another_class_has_failed(make_box, make_scanner, ct_files, wait_until):
    box = make_box(more=table()).start()
    send(box, ct_files[:1])
    header = pydicom.dcmread(ct_files[1], stop_before_pixels=True)
    mistaken = ("1.2.840.10008.5.1.4.1.1.4", expected(ct_files[:1])[0])
    absent = (header.SOPClassUID, header.SOPInstanceUID)
    scanner = make_scanner(box)
    association = scanner.open()
    scanner.ask(association, [absent, mistaken])
    assert wait_until(lambda: scanner.reports), box.log()
    association.release()
    failed = {item.ReferencedSOPInstanceUID: item.FailureReason for item in scanner.reports[0].FailedSOPSequence}
    assert failed == {absent[1]: 0x0112, mistaken[1]: 0x0119}
    assert "ReferencedSOPSequence" not in scanner.reports[0]
    assert scanner.callers[0][2] == 2


def test_central_waits_for_the_archive(make_box, make_archive, make_scanner, dimse, ct_files, wait_until):
    archive = make_archive()
    box = make_box(dimse(archive.port), more=table(answer="central")).start()
    send(box, ct_files)
    scanner = make_scanner(box)
    association = scanner.open()
    scanner.ask(association, ct_files)
    assert not wait_until(lambda: scanner.reports, 3)
    archive.start()
    assert wait_until(lambda: scanner.reports), box.log()
    association.release()
    assert uids(scanner.reports[0]) == expected(ct_files)
    assert len(archive.digests()) == len(ct_files)


def test_central_fails_at_the_deadline(make_box, make_archive, make_scanner, dimse, ct_files, wait_until):
    archive = make_archive()
    box = make_box(dimse(archive.port), more=table(answer="central", deadline_s=2)).start()
    send(box, ct_files[:2])
    scanner = make_scanner(box)
    association = scanner.open()
    scanner.ask(association, ct_files[:2])
    assert wait_until(lambda: scanner.reports), box.log()
    association.release()
    assert uids(scanner.reports[0], "FailedSOPSequence") == expected(ct_files[:2])
    assert box.ask("status")["held"] == 2


def test_the_report_comes_on_a_later_association_even_after_a_kill(make_box, make_scanner, ct_files, wait_until):
    box = make_box(more=table(same_association_s=3600)).start()
    send(box, ct_files)
    scanner = make_scanner(box)
    association = scanner.open()
    scanner.ask(association, ct_files)
    association.release()
    box.kill()
    box.start()
    later = scanner.open()
    assert wait_until(lambda: scanner.reports), box.log()
    later.release()
    assert uids(scanner.reports[0]) == expected(ct_files)


def test_a_scanner_that_does_not_come_is_called_as_whom_it_called(make_box, make_scanner, ct_files, wait_until):
    box = make_box()
    scanner = make_scanner(box, status=0x0110)  # so that nothing counts that is told before the request's end
    box.config.write_text(table(scanner.port, same_association_s=0.5) + box.config.read_text())
    box.start()
    send(box, ct_files)
    association = scanner.open(called="OTHERNAME")
    scanner.ask(association, ct_files)
    association.release()
    assert wait_until(lambda: "cannot connect" in box.ask("status")["commitment"][0]["reason"]), box.log()
    assert box.ask("status")["commitment"][0]["attempts"]
    scanner.status = 0x0000
    scanner.reports.clear()
    scanner.callers.clear()
    scanner.listen()
    assert wait_until(lambda: scanner.reports), box.log()
    assert uids(scanner.reports[0]) == expected(ct_files)
    assert scanner.callers[0] == ("OTHERNAME", "SCANNER", 1)
    assert wait_until(lambda: not box.ask("status")["commitment"])


def test_a_modality_entry_says_where_reports_go(make_box, make_scanner, ct_files, wait_until):
    box = make_box()
    scanner = make_scanner(box)
    entry = f'commitment_report = "new"\ncommitment_host = "127.0.0.1"\ncommitment_port = {scanner.port}\n'
    text = box.config.read_text() + table() + '[[modality]]\nname = "ct"\nae_title = "SCANNER"\n' + entry
    box.config.write_text(text)
    box.start()
    scanner.listen()
    send(box, ct_files[:3])
    association = scanner.open()
    scanner.ask(association, ct_files[:3])
    assert wait_until(lambda: scanner.reports), box.log()
    assert len(scanner.server.active_associations) <= 1
    association.release()
    assert scanner.callers[0][0] == "EDGEGW"


def test_a_request_that_is_asked_twice_is_answered_once(make_box, make_scanner, ct_files, wait_until):
    box = make_box(more=table()).start()
    send(box, ct_files[:2])
    scanner = make_scanner(box, status=0x0110)  # once it is told, the same request is another one
    association = scanner.open()
    transaction = scanner.ask(association, ct_files[:2])
    scanner.ask(association, ct_files[:2], transaction)
    scanner.status = 0x0000
    assert wait_until(lambda: 0x0000 in scanner.answered), box.log()
    assert not wait_until(lambda: scanner.answered.count(0x0000) > 1, 3)
    association.release()


def test_a_report_that_the_scanner_refuses_is_told_again(make_box, make_scanner, ct_files, wait_until):
    box = make_box(more=table()).start()
    send(box, ct_files[:2])
    scanner = make_scanner(box, status=0x0110)
    association = scanner.open()
    scanner.ask(association, ct_files[:2])
    assert wait_until(lambda: scanner.reports), box.log()
    assert wait_until(lambda: box.ask("status")["commitment"][0]["attempts"] >= 1)
    assert "0x0110" in box.ask("status")["commitment"][0]["reason"]
    scanner.status = 0x0000
    assert wait_until(lambda: not box.ask("status")["commitment"], 30), box.log()
    association.release()


def test_central_what_was_confirmed_and_retired_is_committed(
    make_box, make_archive, make_scanner, dimse, ct_files, wait_until
):
    archive = make_archive().start()
    box = make_box(dimse(archive.port), more="retention_days = 0\n" + table(answer="central")).start()
    send(box, ct_files[:3])
    assert wait_until(lambda: box.ask("status")["retired"] == 3)
    header = pydicom.dcmread(ct_files[3], stop_before_pixels=True)
    scanner = make_scanner(box)
    association = scanner.open()
    scanner.ask(association, [*ct_files[:3], (header.SOPClassUID, header.SOPInstanceUID)])
    assert wait_until(lambda: scanner.reports), box.log()
    association.release()
    assert uids(scanner.reports[0]) == expected(ct_files[:3])
    assert uids(scanner.reports[0], "FailedSOPSequence") == expected(ct_files[3:4])


def test_what_a_scanner_asks_about_and_did_not_send_makes_its_study_short(
    make_box, make_archive, make_scanner, dimse, ct_files, wait_until
):
    archive = make_archive().start()
    box = make_box(dimse(archive.port), more="study_short_alarm_s = 0.5\n" + table(answer="central")).start()
    send(box, ct_files[:2])
    assert wait_until(box.delivered_all)
    scanner = make_scanner(box)
    association = scanner.open()
    scanner.ask(association, ct_files[:3])
    association.release()
    assert wait_until(lambda: box.ask("status")["alarms"].get("study_short") == 1)
    (row,) = box.ask("studies")
    assert (row["expected"], row["received"], row["missing"]) == (3, 2, 1)
    send(box, ct_files[2:3])
    assert wait_until(lambda: not box.ask("status")["alarms"])
