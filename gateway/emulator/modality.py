"""An emulated scanner: sends studies over one association each, and writes down what was acknowledged."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import TextIO

from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.dsutils import encode

NOT_ANSWERED = -1


@dataclass(frozen=True, slots=True)
class Sent:
    """One C-STORE as the scanner saw it."""

    study_instance_uid: str
    sop_instance_uid: str
    sha256: str
    """Of the data set bytes as they went over the wire."""
    status: int
    """DIMSE status; -1 when no answer came."""
    seconds: float

    @property
    def acknowledged(self) -> bool:
        """True for success and for the warnings with which an SCP keeps the instance."""
        return self.status == 0 or self.status & 0xF000 == 0xB000


def wire_digest(dataset: Dataset) -> str:
    """Return the SHA-256 of a data set in its own Transfer Syntax."""
    syntax = dataset.file_meta.TransferSyntaxUID
    encoded = encode(dataset, syntax.is_implicit_VR, syntax.is_little_endian)
    if encoded is None:
        raise ValueError("the data set cannot be encoded")
    return sha256(encoded).hexdigest()


class Modality:
    """A C-STORE SCU that keeps trying until everything is acknowledged, or its patience ends."""

    def __init__(
        self,
        host: str,
        port: int,
        called_ae_title: str,
        calling_ae_title: str,
        log: TextIO | None,
        timeout_s: float = 30.0,
    ) -> None:
        """`timeout_s`: an SCP that is silent for so long has not acknowledged."""
        self._timeout_s = timeout_s
        self._place = (host, port)
        self._called = called_ae_title
        self._calling = calling_ae_title
        self._log = log

    def send(
        self, datasets: Iterable[Dataset], told: Callable[[Sent], None], *, rounds: int = 1, pause_s: float = 0.5
    ) -> list[Sent]:
        """Send each instance; what is not acknowledged is sent again, `rounds` times in all. Return each last word."""
        waiting = [(dataset, wire_digest(dataset)) for dataset in datasets]
        last: dict[str, Sent] = {}
        for attempt in range(rounds):
            if attempt:
                time.sleep(pause_s)
            waiting = self._round(waiting, last, told)
            if not waiting:
                break
        return list(last.values())

    def _round(
        self, waiting: list[tuple[Dataset, str]], last: dict[str, Sent], told: Callable[[Sent], None]
    ) -> list[tuple[Dataset, str]]:
        entity = AE(ae_title=self._calling)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = self._timeout_s
        for pair in {(d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d, _ in waiting}:
            entity.add_requested_context(*pair)
        association = entity.associate(*self._place, ae_title=self._called)
        again = []
        for dataset, digest in waiting:
            started, status = time.monotonic(), NOT_ANSWERED
            if association.is_established:
                try:
                    answer = association.send_c_store(dataset)
                    status = int(answer.Status) if "Status" in answer else NOT_ANSWERED
                except (RuntimeError, ValueError):  # the association ended between two instances
                    status = NOT_ANSWERED
            sent = Sent(dataset.StudyInstanceUID, dataset.SOPInstanceUID, digest, status, time.monotonic() - started)
            last[sent.sop_instance_uid] = sent
            if sent.acknowledged:
                self._write(sent)
                told(sent)
            else:
                again.append((dataset, digest))
        if association.is_established:
            association.release()
        return again

    def _write(self, sent: Sent) -> None:
        if self._log is not None:
            self._log.write(json.dumps(asdict(sent)) + "\n")
            self._log.flush()
