"""An emulated RIS: a worklist, procedure steps, and a sender of HL7 orders."""

from __future__ import annotations

import fnmatch
import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ModalityPerformedProcedureStep,
    ModalityWorklistInformationFind,
    Verification,
)

from gateway.emulator.orders import Order
from gateway.emulator.study import uid

SUCCESS, CANCELLED, PENDING = 0x0000, 0xFE00, 0xFF00
DUPLICATE, NO_SUCH_INSTANCE, NO_LONGER_CHANGED, INVALID_VALUE = 0x0111, 0x0112, 0x0110, 0x0106
FINAL = ("COMPLETED", "DISCONTINUED")


def scheduled(order: Order, character_set: str) -> Dataset:
    """Return an order as a worklist item (PS3.4 Table K.6-1)."""
    item, step = Dataset(), Dataset()
    item.SpecificCharacterSet = character_set
    item.PatientName, item.PatientID = order.patient_name, order.patient_id
    item.PatientBirthDate, item.PatientSex = order.birth_date, order.sex
    item.AccessionNumber = order.accession_number
    item.StudyInstanceUID = order.study_instance_uid
    item.RequestedProcedureID = order.procedure_id
    item.RequestedProcedureDescription = order.description
    item.RequestedProcedurePriority = "STAT" if order.stat else "ROUTINE"
    item.ReferringPhysicianName = item.RequestingPhysician = ""
    step.Modality, step.ScheduledStationAETitle = order.modality, order.station_ae_title
    step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime = order.date, order.time
    step.ScheduledProcedureStepID = order.step_id
    step.ScheduledProcedureStepDescription = order.description
    step.ScheduledPerformingPhysicianName = ""
    item.ScheduledProcedureStepSequence = Items([step])
    return item


def matches(item: Dataset, query: Dataset) -> bool:
    """True when an item meets every key that has a value: single, wildcard or range (PS3.4 C.2.2.2)."""
    for asked in query:
        if asked.keyword in ("SpecificCharacterSet", "") or asked.tag.element == 0:
            continue
        there = item.get(asked.tag)
        if asked.VR == "SQ":
            if asked.value and there is not None and not matches(there.value[0], asked.value[0]):
                return False
            continue
        wanted = str(asked.value or "")
        if not wanted or wanted == "*":
            continue
        has = str(there.value if there is not None else "")
        if asked.VR in ("DA", "TM") and "-" in wanted:
            first, last = wanted.split("-", 1)
            if (first and has < first) or (last and has > last):
                return False
        elif not fnmatch.fnmatchcase(has.upper(), wanted.upper().replace("[", "[[]")):
            return False
    return True


def answered(item: Dataset, query: Dataset) -> Dataset:
    """Return what was asked for of an item; what it does not have is empty."""
    answer = Dataset()
    answer.SpecificCharacterSet = item.get("SpecificCharacterSet", "ISO_IR 192")
    for asked in query:
        there = item.get(asked.tag)
        if asked.keyword == "SpecificCharacterSet" or asked.tag.element == 0:
            continue
        if asked.VR == "SQ":
            inner = there.value[0] if there is not None and there.value else None
            some = asked.value[0] if asked.value else Dataset()
            parts = [inner if not len(some) else answered(inner, some)] if inner is not None else []
            for part in parts:
                part.pop("SpecificCharacterSet", None)
            answer.add_new(asked.tag, "SQ", parts)
        else:
            answer.add_new(asked.tag, asked.VR, there.value if there is not None else None)
    return answer


class Ris:
    """A worklist SCP and MPPS SCP on one port. What scanners tell is written down as JSON lines."""

    def __init__(
        self,
        orders: Sequence[Order],
        *,
        port: int = 0,
        ae_title: str = "RIS",
        address: str = "127.0.0.1",
        character_set: str = "ISO_IR 192",
        log: TextIO | None = None,
    ) -> None:
        self.port = port
        self.orders = list(orders)
        self.steps: dict[str, Dataset] = {}
        """Procedure steps, by SOP Instance UID, as they are now."""
        self.queries = 0
        self._address, self._character_set, self._log = address, character_set, log
        self._lock = threading.Lock()
        self._entity = AE(ae_title=ae_title)
        self._entity.maximum_associations = 64
        for sop_class in (ModalityWorklistInformationFind, ModalityPerformedProcedureStep, Verification):
            self._entity.add_supported_context(sop_class)

    def start(self) -> None:
        """Listen; the first time on a free port if none was named. Raises OSError."""
        handlers: list[Any] = [
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_N_CREATE, self._create),
            (evt.EVT_N_SET, self._set),
        ]
        server = self._entity.start_server((self._address, self.port), block=False, evt_handlers=handlers)
        if server is None or server.socket is None:
            raise OSError("the RIS could not listen")
        self.port = server.socket.getsockname()[1]

    def stop(self) -> None:
        """Close the port and end what is open."""
        self._entity.shutdown()

    def status_of(self, study_instance_uid: str) -> list[str]:
        """Return the states of the procedure steps of a study."""
        with self._lock:
            return [
                str(step.PerformedProcedureStepStatus)
                for step in self.steps.values()
                if str(step.ScheduledStepAttributesSequence[0].StudyInstanceUID) == study_instance_uid
            ]

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        self.queries += 1
        query = event.identifier
        for order in list(self.orders):
            item = scheduled(order, self._character_set)
            if event.is_cancelled:
                yield CANCELLED, None
                return
            if matches(item, query):
                yield PENDING, answered(item, query)

    def _create(self, event: evt.Event) -> tuple[int, Dataset | None]:
        request: Any = event.request
        step = event.attribute_list
        if step.get("PerformedProcedureStepStatus") != "IN PROGRESS":
            return INVALID_VALUE, None
        with self._lock:
            name = str(request.AffectedSOPInstanceUID or uid("ris", len(self.steps), id(self)))
            if name in self.steps:
                return DUPLICATE, None
            self.steps[name] = step
        self._tell(name, "IN PROGRESS")
        named = Dataset()  # how pynetdicom is told which name the answer has
        named.AffectedSOPInstanceUID = name
        return SUCCESS, named

    def _set(self, event: evt.Event) -> tuple[int, Dataset | None]:
        request: Any = event.request
        name = str(request.RequestedSOPInstanceUID)
        with self._lock:
            step = self.steps.get(name)
            if step is None:
                return NO_SUCH_INSTANCE, None
            if step.PerformedProcedureStepStatus in FINAL:
                return NO_LONGER_CHANGED, None
            step.update(event.modification_list)
        self._tell(name, str(step.PerformedProcedureStepStatus))
        return SUCCESS, None

    def _tell(self, name: str, status: str) -> None:
        if self._log is not None:
            self._log.write(json.dumps({"step": name, "status": status}) + "\n")
            self._log.flush()
