"""A scanner's own listener for the reports of storage commitment: an association that the archive opens."""

from __future__ import annotations

from typing import Any

from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]

from gateway.emulator.services import Commitments


class ReportListener:
    """Takes N-EVENT-REPORTs on one port until it is closed. Raises OSError when it cannot listen."""

    def __init__(self, ae_title: str, port: int, told: Commitments, address: str = "127.0.0.1") -> None:
        self._entity = AE(ae_title=ae_title or "ANY")
        self._entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        self._entity.add_supported_context(Verification)

        def reported(event: evt.Event) -> tuple[int, Any]:
            told.hear(event.event_information)
            return 0x0000, None

        handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, reported)]
        server = self._entity.start_server((address, port), block=False, evt_handlers=handlers)
        if server is None or server.socket is None:
            raise OSError(f"the listener for reports could not listen on port {port}")
        self.port = int(server.socket.getsockname()[1])

    def close(self) -> None:
        """Close the port."""
        self._entity.shutdown()
