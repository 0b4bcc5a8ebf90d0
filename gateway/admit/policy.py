"""Who may open an association (PS3.8 9.3.4, PS3.15 for what this is not: an AE title is a name, no proof)."""

from __future__ import annotations

import socket
from enum import StrEnum
from ipaddress import ip_network

from gateway.config.destinations import DimseDestination
from gateway.config.schema import AdmitSettings, ModalitySettings
from gateway.model.address import address_of
from gateway.spool.capacity import Room


class Objection(StrEnum):
    """Why an association is not taken."""

    CALLED_AE_TITLE = "called AE title not recognised"
    SENDER = "calling AE title or address not recognised"
    NO_ROOM = "no room on the disk"


def is_modality(modality: ModalitySettings, calling_ae_title: str, address: str) -> bool:
    """True when every feature that the entry names is there; AE titles compare without outer spaces (PS3.5 6.2)."""
    if modality.ae_title is not None and modality.ae_title.strip() != calling_ae_title.strip():
        return False
    if modality.address is None:
        return True
    seen = address_of(address)
    return seen is not None and seen in ip_network(modality.address, strict=False)


def is_archive(destination: DimseDestination, calling_ae_title: str, address: str) -> bool:
    """True when an association comes from this destination, or from who is asked for evidence instead, by AE title or
    by address; looks host names up when the title is another one."""
    at = destination.confirm_at
    if calling_ae_title.strip() in {destination.ae_title, at.ae_title if at else destination.ae_title}:
        return True
    seen = address_of(address)
    for host in {destination.host, at.host if at else destination.host}:
        try:
            found = {address_of(str(entry[4][0])) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
        except OSError:
            continue
        if seen is not None and seen in found:
            return True
    return False


def objection(
    settings: AdmitSettings,
    modalities: list[ModalitySettings],
    called_ae_titles: list[str],
    *,
    calling: str,
    called: str,
    address: str,
    room: Room,
) -> Objection | None:
    """Return why this association is not taken, or None; permanent reasons win over transient ones."""
    if called_ae_titles and called.strip() not in [title.strip() for title in called_ae_titles]:
        return Objection.CALLED_AE_TITLE
    if settings.unknown_senders == "reject" and not any(is_modality(m, calling, address) for m in modalities):
        return Objection.SENDER
    if room is not Room.OPEN:
        return Objection.NO_ROOM
    return None
