"""What a scanner asks beside storing: its worklist, the steps of a procedure, and whether what it sent is safe."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence as Items

from gateway.emulator import pdu
from gateway.emulator.encoding import declare
from gateway.emulator.link import Link, Over, Reported
from gateway.emulator.orders import Order
from gateway.emulator.pdu import Context, Message
from gateway.emulator.profile import IMPLICIT, Profile
from gateway.emulator.sender import Sent
from gateway.emulator.study import uid

WORKLIST = "1.2.840.10008.5.1.4.31"
MPPS = "1.2.840.10008.3.1.2.3.3"
COMMITMENT, COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
PENDING = (0xFF00, 0xFF01)
WORKLIST_KEYS = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyInstanceUID")
DISCONTINUED = ("110513", "DCM", "Discontinued for unspecified reason")


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is asked."""

    host: str
    port: int
    ae_title: str


class Desk:
    """One association for one of these services, and its data sets. Raises Over as Link does."""

    def __init__(
        self, peer: Peer, profile: Profile, sop_class: str, timeout_s: float, reported: Reported | None = None
    ) -> None:
        # How a study's association ends is a habit of storing; these end in order.
        network = profile.network.model_copy(update={"end": "release", "copies": 1, "piece": 0})
        self._sop_class = sop_class
        self.link = Link((peer.host, peer.port), network, peer.ae_title, timeout_s, reported)
        syntaxes = tuple(one.encode() for one in network.syntaxes)
        self.link.open([Context(1, sop_class.encode(), syntaxes)])
        if 1 not in self.link.accepted:
            self.link.abort()
            raise Over("the SOP class was refused")
        self.implicit = self.link.accepted[1] == IMPLICIT

    def ask(self, field: int, data: bytes | None, more: dict[int, bytes], *, requested: bool = False) -> int:
        """Send a request and return its message ID."""
        named = pdu.REQUESTED_CLASS if requested else pdu.CLASS
        return self.link.request(1, {named: pdu.even(self._sop_class), pdu.FIELD: pdu.us(field), **more}, data)

    def encoded(self, dataset: Dataset) -> bytes:
        """Return a data set in the syntax that was agreed on."""
        file = DicomBytesIO()
        file.is_implicit_VR, file.is_little_endian = self.implicit, True
        write_dataset(file, dataset)
        return file.getvalue()

    def decoded(self, answer: Message) -> Dataset:
        """Return an answer's data set."""
        return read_dataset(BytesIO(answer.data), self.implicit, True)


def worklist(peer: Peer, profile: Profile, timeout_s: float) -> list[Order]:
    """Ask for what is scheduled on this scanner (RAD-5) and return it in the order of its times. Raises Over."""
    desk = Desk(peer, profile, WORKLIST, timeout_s)
    query = _query(profile)
    asked = desk.ask(pdu.C_FIND, _with_group_lengths(desk, query, profile), {pdu.PRIORITY: pdu.us(0)})
    found: list[Order] = []
    while True:
        answer = desk.link.answer(asked)
        status = answer.number(pdu.STATUS)
        if status not in PENDING:
            break
        found.append(_order(desk.decoded(answer)))
        if profile.worklist.cancel_after and len(found) == profile.worklist.cancel_after:
            desk.link.request(1, {pdu.FIELD: pdu.us(pdu.C_CANCEL), pdu.ANSWERED: pdu.us(asked)})
    desk.link.release()
    if status not in (0x0000, 0xFE00):
        raise Over(f"the worklist query failed: 0x{status:04X}")
    return sorted(found, key=lambda one: (one.date, one.time, one.step_id))


def _query(profile: Profile) -> Dataset:
    query, step = Dataset(), Dataset()
    declare(query, profile.data)
    for keyword in (
        *WORKLIST_KEYS,
        "RequestedProcedureID",
        "RequestedProcedureDescription",
        *profile.worklist.extra_keys,
    ):
        setattr(query, keyword, "" if keyword != "PregnancyStatus" else None)
    query.ReferencedStudySequence = Items()
    step.Modality = profile.series[0].modality
    step.ScheduledStationAETitle = profile.network.ae_title
    for keyword in ("ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime"):
        setattr(step, keyword, "")
    step.ScheduledProcedureStepID = step.ScheduledProcedureStepDescription = ""
    query.ScheduledProcedureStepSequence = Items([step])
    return query


def _with_group_lengths(desk: Desk, query: Dataset, profile: Profile) -> bytes:
    """pydicom leaves out group lengths, which were retired: so each group is written by itself."""
    if not profile.worklist.group_lengths:
        return desk.encoded(query)
    content = b""
    for group in sorted({element.tag.group for element in query}):
        body = desk.encoded(query.group_dataset(group))
        head = struct.pack("<HH", group, 0) + (struct.pack("<I", 4) if desk.implicit else b"UL\4\0")
        content += head + struct.pack("<I", len(body)) + body
    return content


def _order(item: Dataset) -> Order:
    step = item.ScheduledProcedureStepSequence[0]

    def said(dataset: Dataset, keyword: str) -> str:
        return str(dataset.get(keyword) or "")

    return Order(
        patient_name=said(item, "PatientName"),
        patient_id=said(item, "PatientID"),
        birth_date=said(item, "PatientBirthDate"),
        sex=said(item, "PatientSex"),
        accession_number=said(item, "AccessionNumber"),
        study_instance_uid=said(item, "StudyInstanceUID"),
        procedure_id=said(item, "RequestedProcedureID"),
        step_id=said(step, "ScheduledProcedureStepID"),
        description=said(item, "RequestedProcedureDescription") or said(step, "ScheduledProcedureStepDescription"),
        modality=said(step, "Modality"),
        station_ae_title=said(step, "ScheduledStationAETitle"),
        date=said(step, "ScheduledProcedureStepStartDate") or "20260101",
        time=(said(step, "ScheduledProcedureStepStartTime") or "120000")[:6].ljust(6, "0"),
    )


def begin(peer: Peer, profile: Profile, order: Order, seed: int, timeout_s: float) -> str:
    """Say that a procedure step is in progress (RAD-6) and return its SOP Instance UID. Raises Over."""
    desk = Desk(peer, profile, MPPS, timeout_s)
    step = uid(seed, order.study_instance_uid, "mpps")
    named = {} if profile.mpps.without_uid else {pdu.INSTANCE: pdu.even(step)}
    asked = desk.ask(pdu.N_CREATE, desk.encoded(_in_progress(profile, order)), named)
    answer = desk.link.answer(asked)
    desk.link.release()
    if answer.number(pdu.STATUS) & 0xF000 not in (0x0000, 0xB000):
        raise Over(f"the procedure step was refused: 0x{answer.number(pdu.STATUS):04X}")
    return answer.uid(pdu.INSTANCE) or step


def _in_progress(profile: Profile, order: Order) -> Dataset:
    """PS3.4 Table F.7.2-1."""
    step, scheduled = Dataset(), Dataset()
    declare(step, profile.data)
    scheduled.StudyInstanceUID = order.study_instance_uid
    scheduled.ReferencedStudySequence = Items()
    scheduled.AccessionNumber = order.accession_number
    scheduled.RequestedProcedureID = order.procedure_id
    scheduled.RequestedProcedureDescription = order.description if order.scheduled else ""
    scheduled.ScheduledProcedureStepID = order.step_id
    scheduled.ScheduledProcedureStepDescription = order.description if order.scheduled else ""
    scheduled.ScheduledProtocolCodeSequence = Items()
    step.ScheduledStepAttributesSequence = Items([scheduled])
    step.PatientName, step.PatientID = order.patient_name, order.patient_id
    step.PatientBirthDate, step.PatientSex = order.birth_date, order.sex
    step.ReferencedPatientSequence = Items()
    step.PerformedProcedureStepID = order.step_id or "1"
    step.PerformedStationAETitle = profile.network.ae_title
    step.PerformedStationName = profile.device.get("StationName", "")
    step.PerformedLocation = ""
    step.PerformedProcedureStepStartDate, step.PerformedProcedureStepStartTime = order.date, order.time
    step.PerformedProcedureStepEndDate = step.PerformedProcedureStepEndTime = ""
    step.PerformedProcedureStepStatus = "IN PROGRESS"
    step.PerformedProcedureStepDescription = profile.exam.description
    step.PerformedProcedureTypeDescription = ""
    step.ProcedureCodeSequence = Items()
    step.Modality = profile.series[0].modality
    step.StudyID = order.procedure_id[-16:] or "1"
    step.PerformedProtocolCodeSequence = Items()
    step.PerformedSeriesSequence = Items()
    return step


def finish(
    peer: Peer,
    profile: Profile,
    order: Order,
    step_uid: str,
    series: dict[str, list[tuple[str, str]]],
    timeout_s: float,
    *,
    discontinued: bool,
) -> None:
    """Say that a procedure step is completed, or discontinued (RAD-7), with what was made: series -> (SOP class,
    instance). Raises Over."""
    desk = Desk(peer, profile, MPPS, timeout_s)
    step = Dataset()
    step.PerformedProcedureStepStatus = "DISCONTINUED" if discontinued else "COMPLETED"
    step.PerformedProcedureStepEndDate, step.PerformedProcedureStepEndTime = order.date, order.time
    if discontinued:
        reason = Dataset()
        reason.CodeValue, reason.CodingSchemeDesignator, reason.CodeMeaning = DISCONTINUED
        step.PerformedProcedureStepDiscontinuationReasonCodeSequence = Items([reason])
    made = Items()
    for series_uid, instances in series.items():
        one = Dataset()
        one.PerformingPhysicianName = one.OperatorsName = one.RetrieveAETitle = one.SeriesDescription = ""
        one.ProtocolName = profile.exam.description
        one.SeriesInstanceUID = series_uid
        one.ReferencedImageSequence = Items(_references(instances))
        one.ReferencedNonImageCompositeSOPInstanceSequence = Items()
        made.append(one)
    step.PerformedSeriesSequence = made
    asked = desk.ask(pdu.N_SET, desk.encoded(step), {pdu.REQUESTED_INSTANCE: pdu.even(step_uid)}, requested=True)
    status = desk.link.answer(asked).number(pdu.STATUS)
    desk.link.release()
    if status & 0xF000 not in (0x0000, 0xB000):
        raise Over(f"the end of the procedure step was refused: 0x{status:04X}")


def _references(instances: Sequence[tuple[str, str]]) -> list[Dataset]:
    found = []
    for sop_class, instance in instances:
        one = Dataset()
        one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = sop_class, instance
        found.append(one)
    return found


class Commitments:
    """What was asked to be kept, and what reports said."""

    def __init__(self) -> None:
        self.asked: dict[str, set[str]] = {}
        """Transaction UID -> SOP Instance UIDs."""
        self.kept: set[str] = set()
        self.failed: set[str] = set()
        self.strange: list[str] = []
        """Transactions that nobody asked for."""

    def hear(self, report: Dataset) -> None:
        """Take a report; twice the same is once."""
        transaction = str(report.TransactionUID)
        if transaction not in self.asked:
            self.strange.append(transaction)
            return
        self.kept |= {str(one.ReferencedSOPInstanceUID) for one in report.get("ReferencedSOPSequence", [])}
        self.failed |= {str(one.ReferencedSOPInstanceUID) for one in report.get("FailedSOPSequence", [])}

    def answered(self, transaction: str) -> bool:
        """True when the report said something of every instance."""
        return self.asked[transaction] <= self.kept | self.failed


def commit(
    peer: Peer, profile: Profile, instances: Sequence[tuple[str, str]], told: Commitments, seed: int, timeout_s: float
) -> str:
    """Ask for commitment (RAD-10) to (SOP class, instance), and wait for the report where this scanner does, but for
    its listener. Return the Transaction UID. Raises Over."""
    if profile.commitment.ae_title is not None:
        network = profile.network.model_copy(update={"ae_title": profile.commitment.ae_title})
        profile = profile.model_copy(update={"network": network})
    transaction = uid(seed, profile.network.ae_title, "commitment", *(instance for _, instance in instances))
    told.asked[transaction] = {instance for _, instance in instances}
    implicit = [True]

    def reported(message: Message) -> None:
        told.hear(read_dataset(BytesIO(message.data), implicit[0], True))

    desk = Desk(peer, profile, COMMITMENT, timeout_s, reported)
    implicit[0] = desk.implicit
    request = Dataset()
    request.TransactionUID = transaction
    request.ReferencedSOPSequence = Items(_references(instances))
    more = {pdu.REQUESTED_INSTANCE: pdu.even(COMMITMENT_INSTANCE), pdu.ACTION_TYPE: pdu.us(1)}
    asked = desk.ask(pdu.N_ACTION, desk.encoded(request), more, requested=True)
    status = desk.link.answer(asked).number(pdu.STATUS)
    if status != 0:
        desk.link.release()
        raise Over(f"commitment was refused: 0x{status:04X}")
    wait = profile.commitment
    if wait.wait == "same":
        desk.link.hear(wait.wait_s, lambda: told.answered(transaction))
    if desk.link.is_open:
        desk.link.release()
    if wait.wait == "later":
        later = Desk(peer, profile, COMMITMENT, timeout_s, reported)
        implicit[0] = later.implicit
        later.link.hear(wait.wait_s, lambda: told.answered(transaction))
        if later.link.is_open:
            later.link.release()
    return transaction


def of_the_same_patient(order: Order, seed: int) -> Order:
    """Return another study of a patient who was here before."""
    return replace(
        order,
        accession_number=f"A{seed % 10**8:08d}R" if order.accession_number else "",
        study_instance_uid=uid(seed, order.study_instance_uid, "again"),
        procedure_id=f"{order.procedure_id}R"[-16:],
        step_id=f"{order.step_id}R"[-16:],
    )


def acknowledged(sent: Sequence[Sent]) -> set[str]:
    """Return the SOP Instance UIDs that the scanner takes for stored."""
    return {one.sop_instance_uid for one in sent if one.acknowledged}
