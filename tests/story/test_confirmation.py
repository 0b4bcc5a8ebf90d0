"""Evidence before release: storage commitment as SCU, and queries (contract D7)."""

from __future__ import annotations

import subprocess
import threading
import time

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.presentation import build_role
from pynetdicom.sop_class import StorageCommitmentPushModel

WELL_KNOWN = "1.2.840.10008.1.20.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"


class Committing:
    """pynetdicom as an archive that commits: at once on the same association, on a new one, on the next one that it is
    called on (about what it was asked before), or when told to."""

    def __init__(self, port, *, how="same", gateway_port=0, fail=(), forget=(), calling="ANY"):
        self.how, self.gateway_port, self.fail, self.forget, self.calling = how, gateway_port, fail, forget, calling
        self.stored, self.asked, self.answers = [], [], []
        entity = AE(ae_title="ANY")
        entity.supported_contexts = []
        entity.add_supported_context(CT, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        entity.add_supported_context("1.2.840.10008.1.1")
        if how != "none":
            entity.add_supported_context(StorageCommitmentPushModel, [ImplicitVRLittleEndian])
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._action)]
        self.server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)

    def _store(self, event):
        self.stored.append(event.request.AffectedSOPInstanceUID)
        return 0x0000

    def _action(self, event):
        request = event.action_information
        self.asked.append(request)
        assert event.request.RequestedSOPInstanceUID == WELL_KNOWN and event.request.ActionTypeID == 1
        if self.how == "same":
            threading.Thread(target=self._report, args=(event.assoc, request)).start()
        elif self.how == "next" and self.asked[:-1]:
            threading.Thread(target=self._report, args=(event.assoc, self.asked[-2])).start()
        elif self.how == "new":
            threading.Thread(target=self.call, args=(request,)).start()
        return 0x0000, None

    def report_of(self, request):
        report, good, bad = Dataset(), [], []
        report.TransactionUID = request.TransactionUID
        for item in request.ReferencedSOPSequence:
            if item.ReferencedSOPInstanceUID in self.forget:
                continue
            failed = item.ReferencedSOPInstanceUID in self.fail
            if failed:
                item.FailureReason = 0x0112
            (bad if failed else good).append(item)
        if good:
            report.ReferencedSOPSequence = good
        if bad:
            report.FailedSOPSequence = bad
        return report, 2 if bad else 1

    def _report(self, association, request):
        time.sleep(0.2)
        report, kind = self.report_of(request)
        status, _ = association.send_n_event_report(report, kind, StorageCommitmentPushModel, WELL_KNOWN)
        self.answers.append(status.Status)

    def call(self, request):
        """Open an association to the gateway and report there, with the SCP role as PS3.4 J.3.3 wants."""
        entity = AE(ae_title=self.calling)
        entity.add_requested_context(StorageCommitmentPushModel, [ImplicitVRLittleEndian])
        association = entity.associate(
            "127.0.0.1",
            self.gateway_port,
            ext_neg=[build_role(StorageCommitmentPushModel, scu_role=False, scp_role=True)],
        )
        assert association.is_established
        self._report(association, request)
        association.release()

    def close(self):
        self.server.shutdown()


@pytest.fixture
def committing(port):
    started = []

    def make(**how):
        archive = Committing(port(), **how)
        archive.port = archive.server.server_address[1]
        started.append(archive)
        return archive

    yield make
    for archive in started:
        archive.close()


EVIDENCE = 'compression = "off"\nconfirm = "commitment"\nconfirm_after_s = 0.3\nreport_wait_s = '
PATIENT, BRIEF = EVIDENCE + "10", EVIDENCE + "1"
"""A report that comes when its association is closed is lost; who reports otherwise is not waited for."""


def send(box, files):
    sent = subprocess.run(["storescu", "127.0.0.1", str(box.port), *map(str, files)])
    assert sent.returncode == 0


def states(box):
    row = box.ask("status")["destinations"]["pacs"]
    return {state: row[state] for state in ("queued", "sent", "confirmed", "held")}


def test_orthanc_commits_on_an_association_of_its_own(make_orthanc, make_box, dimse, ct_files, digest_of, wait_until):
    box = make_box()
    archive = make_orthanc(DicomModalities={"edge": ["EDGEGW", "127.0.0.1", box.port]})
    box.config.write_text(box.config.read_text() + dimse(archive.dicom_port, more=PATIENT))
    box.start()
    send(box, ct_files)
    assert wait_until(box.delivered_all), (box.log(), box.ask("status"))
    assert states(box) == {"queued": 0, "sent": 0, "confirmed": len(ct_files), "held": 0}
    assert archive.digests() == {digest_of(path) for path in ct_files}
    page = box.ask("queue_show", object=box.ask("queue_list")[0]["object_id"])
    assert [(e["event"], e["detail"]) for e in page["history"] if e["event"] == "evidenced"] == [
        ("evidenced", "storage commitment")
    ]


@pytest.mark.parametrize("how", ["same", "new"])
def test_nothing_is_released_before_the_report(committing, make_box, dimse, ct_files, wait_until, how):
    box = make_box()
    archive = committing(how=how, gateway_port=box.port)
    box.config.write_text(box.config.read_text() + dimse(archive.port, more=PATIENT))
    box.start()
    send(box, ct_files)
    assert wait_until(box.delivered_all), (box.log(), box.ask("status"))
    assert wait_until(lambda: archive.answers)
    assert set(archive.answers) == {0x0000}
    assert len(archive.stored) == len(ct_files)
    asked = [item.ReferencedSOPInstanceUID for request in archive.asked for item in request.ReferencedSOPSequence]
    assert sorted(asked) == sorted(archive.stored)


def test_a_report_on_a_later_association_of_ours_counts(committing, make_box, dimse, ct_files, wait_until):
    archive = committing(how="next")
    box = make_box(dimse(archive.port, more=EVIDENCE + "5")).start()
    send(box, ct_files[:1])
    assert wait_until(lambda: len(archive.asked) == 1), box.log()
    time.sleep(5.5)  # longer than it waits for a report on that association
    assert states(box)["sent"] == 1
    send(box, ct_files[1:2])
    assert wait_until(lambda: states(box)["confirmed"] == 1), (box.log(), box.ask("status"))
    assert wait_until(lambda: archive.answers == [0x0000])  # it hears our answer after we have written it down
    assert len(archive.asked) == 2
    assert states(box) == {"queued": 0, "sent": 1, "confirmed": 1, "held": 0}


def test_a_report_that_comes_after_a_kill_still_counts(committing, make_box, dimse, ct_files, wait_until):
    box = make_box()
    archive = committing(how="later", gateway_port=box.port)
    box.config.write_text(box.config.read_text() + dimse(archive.port, more=BRIEF))
    box.start()
    send(box, ct_files)
    asked = lambda: sum(len(request.ReferencedSOPSequence) for request in archive.asked)  # noqa: E731
    assert wait_until(lambda: asked() == len(ct_files)), box.log()
    box.kill()
    box.start()
    assert box.ask("status")["held"] == len(ct_files)
    for request in archive.asked:
        archive.call(request)
    assert wait_until(box.delivered_all), (box.log(), box.ask("status"))
    assert len(archive.stored) == len(ct_files)
    archive.call(archive.asked[0])  # told twice: settled, and no fault of anybody
    assert set(archive.answers) == {0x0000}


def test_what_the_archive_lost_is_sent_again_and_held_in_the_end(committing, make_box, dimse, ct_files, wait_until):
    import pydicom

    lost = pydicom.dcmread(ct_files[0]).SOPInstanceUID
    archive = committing(how="same", fail=(lost,))
    box = make_box(dimse(archive.port, more=PATIENT)).start()
    send(box, ct_files[:3])
    assert wait_until(lambda: states(box)["held"] == 1), (box.log(), box.ask("status"))
    assert states(box) == {"queued": 0, "sent": 0, "confirmed": 2, "held": 1}
    assert archive.stored.count(lost) == 3 and len(archive.stored) == 5
    row = next(row for row in box.ask("queue_list") if row["state"] == "held")
    assert "no such object instance" in row["reason"]
    archive.fail = ()
    box.ask("queue_release", objects=[row["object_id"]])
    assert wait_until(box.delivered_all), (box.log(), box.ask("status"))


def test_what_no_report_names_is_asked_for_again(committing, make_box, dimse, ct_files, wait_until):
    import pydicom

    forgotten = pydicom.dcmread(ct_files[0]).SOPInstanceUID
    archive = committing(how="same", forget=(forgotten,))
    box = make_box(dimse(archive.port, more=BRIEF + "\nconfirm_timeout_s = 2")).start()
    send(box, ct_files[:3])
    assert wait_until(lambda: len(archive.asked) >= 2), box.log()
    assert wait_until(lambda: states(box)["confirmed"] == 2), "the two may have been asked about one after the other"
    archive.forget = ()
    assert wait_until(box.delivered_all), (box.log(), box.ask("status"))
    assert archive.stored.count(forgotten) == 1


def test_a_stranger_commits_to_nothing(committing, make_box, dimse, ct_files, wait_until):
    box = make_box()
    archive = committing(how="later", gateway_port=box.port)
    box.config.write_text(box.config.read_text() + dimse(archive.port, more=BRIEF))
    box.start()
    send(box, ct_files[:1])
    assert wait_until(lambda: archive.asked), box.log()
    box.stop()
    box.config.write_text(box.config.read_text().replace('host = "127.0.0.1"', 'host = "archive.invalid"'))
    box.start()
    archive.calling = "STRANGER"
    archive.call(archive.asked[0])
    assert archive.answers == [0x0124]
    assert states(box)["sent"] == 1
    assert "commitment_report_from_stranger" in box.log()
    archive.calling = "ANY"
    archive.call(archive.asked[0])
    assert archive.answers == [0x0124, 0x0000]
    assert wait_until(box.delivered_all)


def test_an_archive_without_commitment_is_named_with_the_fix(committing, make_box, dimse, ct_files, wait_until):
    archive = committing(how="none")
    box = make_box(dimse(archive.port, more=BRIEF)).start()
    send(box, ct_files[:2])
    assert wait_until(lambda: box.ask("status")["destinations"]["pacs"]["unanswered"]), box.log()
    assert 'confirm = "query"' in box.ask("status")["destinations"]["pacs"]["unanswered"]
    assert wait_until(lambda: states(box) == {"queued": 0, "sent": 2, "confirmed": 0, "held": 0})
    box.stop()
    box.config.write_text(box.config.read_text().replace('confirm = "commitment"', 'confirm = "stored"'))
    box.start()
    assert wait_until(box.delivered_all), box.log()


@pytest.mark.parametrize("kind", ["dimse", "stow"])
def test_orthanc_is_asked_by_query(make_orthanc, make_box, dimse, ct_files, wait_until, kind):
    archive = make_orthanc(DicomAlwaysAllowFind=True)
    more = 'compression = "off"\nconfirm = "query"\nconfirm_after_s = 0.3\n'
    url = f"http://127.0.0.1:{archive.http_port}/dicom-web/studies"
    stow = f'[[destination]]\nname = "pacs"\nkind = "stow"\nurl = "{url}"\n{more}'
    box = make_box(dimse(archive.dicom_port, more=more) if kind == "dimse" else stow).start()
    send(box, ct_files)
    assert wait_until(box.delivered_all), (box.log(), box.ask("status"))
    assert states(box)["confirmed"] == len(ct_files)


def test_what_orthanc_lost_after_the_store_is_sent_again(make_orthanc, make_box, dimse, ct_files, wait_until):
    import json
    import urllib.request

    archive = make_orthanc(DicomAlwaysAllowFind=True)
    more = 'compression = "off"\nconfirm = "query"\nconfirm_after_s = 12\nconfirm_timeout_s = 6\n'
    box = make_box(dimse(archive.dicom_port, more=more)).start()
    send(box, ct_files[:4])
    assert wait_until(lambda: states(box)["sent"] == 4)
    lost = json.loads(archive.get("/instances"))[0]
    request = urllib.request.Request(f"http://127.0.0.1:{archive.http_port}/instances/{lost}", method="DELETE")
    urllib.request.urlopen(request, timeout=10).close()
    assert wait_until(box.delivered_all, 60), (box.log(), box.ask("status"))
    assert len(json.loads(archive.get("/instances"))) == 4
    assert "missed dest=pacs objects=1 by=query" in box.log()
