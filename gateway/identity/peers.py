"""Who we are to an archive that speaks DIMSE: the one place where its settings become a peer."""

from __future__ import annotations

from dataclasses import replace

from gateway.config.destinations import DimseDestination
from gateway.dicom.requestor import Peer
from gateway.identity.tls import client_context


def peer_of(settings: DimseDestination, calling_ae_title: str) -> Peer:
    """Return whom to call with C-STORE; raises IdentityError when the `tls` table cannot be used."""
    tls = settings.tls
    return Peer(
        settings.host,
        settings.port,
        settings.ae_title,
        settings.calling_ae_title or calling_ae_title,
        settings.timeout_s,
        client_context(tls) if tls else None,
        tls.server_name if tls else None,
    )


def witness_of(settings: DimseDestination, calling_ae_title: str) -> Peer:
    """Return whom to ask whether instances are there; raises IdentityError."""
    peer, at = peer_of(settings, calling_ae_title), settings.confirm_at
    return peer if at is None else replace(peer, host=at.host, port=at.port, called_ae_title=at.ae_title)
