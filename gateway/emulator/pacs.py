"""An emulated archive: stores what it gets byte for byte, and writes down its SHA-256."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO

from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_file_meta_info
from pynetdicom import AE, _config, evt
from pynetdicom.dsutils import create_file_meta
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

OUT_OF_RESOURCES = 0xA700


@dataclass(frozen=True, slots=True)
class Received:
    """One instance as the archive saw it."""

    sop_instance_uid: str
    sha256: str
    """Of the data set bytes as they came."""
    length: int
    transfer_syntax_uid: str
    status: int


class Pacs:
    """A C-STORE SCP on one port, which can go away and come back."""

    def __init__(
        self,
        port: int = 0,
        *,
        ae_title: str = "PACS",
        address: str = "127.0.0.1",
        folder: Path | None = None,
        log: TextIO | None = None,
        delay_s: float = 0.0,
        busy_for_first: int = 0,
    ) -> None:
        _config.UNRESTRICTED_STORAGE_SERVICE = True
        self.port = port
        self.received: list[Received] = []
        self._address = address
        self._folder = folder
        self._log = log
        self._delay_s = delay_s
        self._busy = busy_for_first
        self._lock = threading.Lock()
        self._entity = AE(ae_title=ae_title)
        self._entity.maximum_associations = 32
        self._entity.maximum_pdu_size = 131072
        self._entity.add_supported_context(Verification)

    def start(self) -> None:
        """Listen; the first time on a free port if none was named."""
        server = self._entity.start_server(
            (self._address, self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        if server is None:
            raise OSError("the archive could not listen")
        assert server.socket is not None
        self.port = server.socket.getsockname()[1]

    def stop(self) -> None:
        """Go away: abort what is open, close the port."""
        self._entity.shutdown()

    def _store(self, event: evt.Event) -> int:
        time.sleep(self._delay_s)
        request: Any = event.request
        content: bytes = request.DataSet.getvalue()
        with self._lock:
            status = OUT_OF_RESOURCES if self._busy > 0 else 0x0000
            self._busy -= 1
            received = Received(
                str(request.AffectedSOPInstanceUID),
                sha256(content).hexdigest(),
                len(content),
                str(event.context.transfer_syntax),
                status,
            )
            if status == 0x0000 and self._folder is not None:
                self._write(event, content)
            self.received.append(received)
            if self._log is not None:
                self._log.write(json.dumps(asdict(received)) + "\n")
                self._log.flush()
        return status

    def _write(self, event: evt.Event, content: bytes) -> None:
        request: Any = event.request
        meta = create_file_meta(
            sop_class_uid=request.AffectedSOPClassUID,
            sop_instance_uid=request.AffectedSOPInstanceUID,
            transfer_syntax=event.context.transfer_syntax,
        )
        assert self._folder is not None
        name = sha256(content).hexdigest()[:32]
        with open(self._folder / f"{name}.dcm", "wb") as file:
            file.write(b"\0" * 128 + b"DICM")
            write_file_meta_info(DicomFileLike(file), meta)
            file.write(content)
