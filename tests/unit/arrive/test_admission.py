"""Who gets in while the disk is tight, and that no scanner waits for a host name."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest

from gateway.arrive import commitment_scp
from gateway.arrive.commitment_scp import CommitmentScp
from gateway.arrive.store_scp import StoreScp
from gateway.config.schema import ListenerSettings, Settings
from gateway.dicom.command import N_ACTION_RQ, Command
from gateway.dicom.commitment import Reference, Report, write_data_set
from gateway.dicom.negotiation import STORAGE_COMMITMENT
from gateway.dicom.services import AssociationFacts, Request
from gateway.model.errors import Refused
from gateway.spool.capacity import Room
from gateway.spool.spool import Spool

IMPLICIT = "1.2.840.10008.1.2"
PACS = {"name": "pacs", "kind": "dimse", "host": "pacs.invalid", "ae_title": "PACS", "confirm": "commitment"}


@pytest.fixture
def lookups(monkeypatch):
    asked = []

    def getaddrinfo(host, *_, **__):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.9", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def door(room: Room) -> StoreScp:
    settings = Settings.model_validate({"destination": [PACS]})
    spool = SimpleNamespace(committer=SimpleNamespace(fault=""), capacity=lambda: SimpleNamespace(room=room))
    listener = ListenerSettings.model_validate({"port": 104})
    return StoreScp(listener, lambda: settings, spool, None, {}, lambda *_: None)


def caller(title: str, address: str) -> AssociationFacts:
    return AssociationFacts(address, title, "EDGEGW", 104)


def test_a_scanner_that_is_welcome_waits_for_no_host_name(lookups):
    assert door(Room.OPEN).admit(caller("CT1", "192.0.2.1")) is None
    assert lookups == []


@pytest.mark.parametrize("title, address", [("PACS", "192.0.2.1"), ("OTHER", "192.0.2.9")])
def test_an_archive_that_owes_evidence_gets_in_on_a_tight_disk_by_title_or_address(lookups, title, address):
    assert door(Room.TIGHT).admit(caller(title, address)) is None


def test_a_scanner_is_turned_away_on_a_tight_disk(lookups):
    assert door(Room.TIGHT).admit(caller("CT1", "192.0.2.1")) is not None


def test_of_open_requests_for_commitment_there_are_only_so_many(tmp_path, monkeypatch):
    monkeypatch.setattr(commitment_scp, "MAX_OPEN", 1)
    spool = Spool(tmp_path, 0, 100)
    service = CommitmentScp(spool, Settings).service

    def ask(transaction: str) -> int:
        command = Command(N_ACTION_RQ, 1, True, STORAGE_COMMITMENT, "1.2.840.10008.1.20.1.1", 0, 1)
        receiver = service(Request(caller("CT1", "192.0.2.1"), STORAGE_COMMITMENT, IMPLICIT, command))
        receiver.write(memoryview(write_data_set(Report(transaction, (Reference("1.2", "1.3"),)), IMPLICIT)))
        return next(iter(receiver.finish())).status

    assert ask("2.25.1") == 0
    with pytest.raises(Refused) as refusal:
        ask("2.25.2")
    assert refusal.value.status == 0x0213
    spool.close()
