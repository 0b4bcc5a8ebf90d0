"""Storage commitment data sets: pydicom is the other reader and the other writer."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from gateway.confirm.commitment_scu import findings_of
from gateway.dicom.commitment import Reference, Report, read_data_set, write_data_set
from gateway.dicom.negotiation import Malformed, accept_pdu, decide, read_request
from gateway.spool.rows import Sent
from tests.wire import associate_rq

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
COMMITMENT = "1.2.840.10008.1.20.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
uids = st.from_regex(r"2\.25\.[1-9][0-9]{0,30}", fullmatch=True)
references = st.builds(Reference, st.just(CT), uids)
reports = st.builds(
    Report,
    uids,
    st.lists(references, max_size=4).map(tuple),
    st.lists(st.tuples(references, st.integers(1, 0xFFFF)), max_size=4).map(tuple),
)


def by_pydicom(report: Report, *, undefined: bool) -> Dataset:
    dataset = Dataset()
    dataset.TransactionUID = report.transaction_uid
    for keyword, entries in (
        ("FailedSOPSequence", report.failed),
        ("ReferencedSOPSequence", [(reference, None) for reference in report.references]),
    ):
        items = []
        for reference, reason in entries:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = (
                reference.sop_class_uid,
                reference.sop_instance_uid,
            )
            if reason is not None:
                item.FailureReason = reason
            item.is_undefined_length_sequence_item = undefined
            items.append(item)
        if items:
            setattr(dataset, keyword, Sequence(items))
            dataset[keyword].is_undefined_length = undefined
    return dataset


@given(reports, st.sampled_from((IMPLICIT, EXPLICIT, BIG)), st.booleans())
def test_what_pydicom_wrote_is_read(report, syntax, undefined):
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = syntax == IMPLICIT, syntax != BIG
    write_dataset(file, by_pydicom(report, undefined=undefined))
    assert read_data_set(file.getvalue(), syntax) == report


@given(reports, st.sampled_from((IMPLICIT, EXPLICIT, BIG)))
def test_what_we_wrote_pydicom_reads(report, syntax):
    written = write_data_set(report, syntax)
    head = read_dataset(io.BytesIO(written), syntax == IMPLICIT, syntax != BIG)
    assert head.TransactionUID == report.transaction_uid
    assert [item.ReferencedSOPInstanceUID for item in head.get("ReferencedSOPSequence", [])] == [
        reference.sop_instance_uid for reference in report.references
    ]
    assert [(item.ReferencedSOPInstanceUID, item.FailureReason) for item in head.get("FailedSOPSequence", [])] == [
        (reference.sop_instance_uid, reason) for reference, reason in report.failed
    ]


@given(st.binary(max_size=300), st.sampled_from((IMPLICIT, EXPLICIT, BIG)))
def test_any_bytes_are_read_or_malformed(data, syntax):
    try:
        read_data_set(data, syntax)
    except Malformed:
        pass


@given(reports, st.sampled_from((IMPLICIT, EXPLICIT, BIG)), st.data())
def test_a_report_that_was_cut_or_changed_is_read_or_malformed(report, syntax, data):
    written = bytearray(write_data_set(report, syntax))
    del written[data.draw(st.integers(0, len(written))) :]
    if written:
        written[data.draw(st.integers(0, len(written) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_data_set(bytes(written), syntax)
    except Malformed:
        pass


def test_a_thousand_levels_are_malformed():
    sequence = b"\x08\x00\x99\x11\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    with pytest.raises(Malformed, match="deep"):
        read_data_set(sequence * 1000, IMPLICIT)


def sent(*uids):
    return [Sent(seq, CT, uid, "", "", 1) for seq, uid in enumerate(uids)]


def test_a_failure_outweighs_a_success_and_who_is_not_named_stays_open():
    one, two = Reference(CT, "1.1"), Reference(CT, "1.2")
    found = findings_of(Report("9", (one, two), ((two, 0x0112),)), sent("1.1", "1.2", "1.3"))
    assert list(found.kept) == [0]
    assert list(found.missed) == [1]
    assert "0x0112" in found.missed[1]


def test_another_sop_class_is_no_evidence():
    found = findings_of(Report("9", (Reference("1.2.840.10008.5.1.4.1.1.4", "1.1"),)), sent("1.1"))
    assert not found.kept and not found.missed


def test_the_role_that_an_archive_proposes_is_agreed_to():
    role = len(COMMITMENT).to_bytes(2, "big") + COMMITMENT.encode() + b"\0\1"
    user = b"\x54\0" + len(role).to_bytes(2, "big") + role
    pdu = associate_rq(((1, COMMITMENT, (IMPLICIT,)),), user=user)
    request = read_request(pdu[6:])
    assert request.roles == {COMMITMENT: (False, True)}
    answer = accept_pdu(request, [decide(context, offered=True) for context in request.contexts], 16384)
    assert user in answer
    refused = accept_pdu(request, [decide(context, offered=False) for context in request.contexts], 16384)
    assert user not in refused


def test_a_data_set_that_we_must_read_is_taken_in_a_syntax_that_we_read():
    pdu = associate_rq(((1, COMMITMENT, ("1.2.840.10008.1.2.1.99", EXPLICIT)), (3, COMMITMENT, ("1.2.3",))))
    first, second = (decide(context, offered=True) for context in read_request(pdu[6:]).contexts)
    assert (first.transfer_syntax, first.result) == (EXPLICIT, 0)
    assert second.result == 4
