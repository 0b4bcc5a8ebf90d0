"""The simplest scanner: sends data sets over one association, and again what was not acknowledged."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TextIO

from pydicom.dataset import Dataset

from gateway.emulator.profile import Data, Network
from gateway.emulator.sender import Sender, Sent


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
        waiting = list(datasets)
        last: dict[str, Sent] = {}
        for attempt in range(rounds):
            if attempt:
                time.sleep(pause_s)
            waiting = self._round(waiting, last, told)
            if not waiting:
                break
        return list(last.values())

    def _round(self, waiting: list[Dataset], last: dict[str, Sent], told: Callable[[Sent], None]) -> list[Dataset]:
        pairs = sorted({(str(d.SOPClassUID), str(d.file_meta.TransferSyntaxUID)) for d in waiting})
        network = Network(ae_title=self._calling, association="study", syntaxes=sorted({syntax for _, syntax in pairs}))
        wanted = [(sop_class, [syntax]) for sop_class, syntax in pairs]
        sender = Sender(self._place, network, Data(), self._called, wanted, log=self._log, timeout_s=self._timeout_s)
        again = []
        for dataset in waiting:
            sent = sender.store(dataset)
            last[sent.sop_instance_uid] = sent
            if sent.acknowledged:
                told(sent)
            else:
                again.append(dataset)
        sender.end()
        return again
