"""A scanner's own listener for the reports of storage commitment: an association that the archive opens."""

from __future__ import annotations

import socket
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]

from gateway.emulator.services import Commitments, Peer


class ReportListener:
    """Takes N-EVENT-REPORTs on one port, at the address that `peer` knows us by, until it is closed. Raises OSError
    when it cannot listen."""

    def __init__(self, ae_title: str, port: int, told: Commitments, peer: Peer) -> None:
        self._entity = AE(ae_title=ae_title or "ANY")
        self._entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        self._entity.add_supported_context(Verification)

        def reported(event: evt.Event) -> tuple[int, Any]:
            told.hear(event.event_information)
            return 0x0000, None

        handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, reported)]
        server = self._entity.start_server((_own_address(peer), port), block=False, evt_handlers=handlers)
        if server is None or server.socket is None:
            raise OSError(f"the listener for reports could not listen on port {port}")
        self.port = int(server.socket.getsockname()[1])

    def close(self) -> None:
        """Close the port."""
        self._entity.shutdown()


def _own_address(peer: Peer) -> str:
    """The address of this machine towards a peer; nothing is sent to find out."""
    family, _, _, _, place = socket.getaddrinfo(peer.host, peer.port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(place)
        return str(probe.getsockname()[0])
