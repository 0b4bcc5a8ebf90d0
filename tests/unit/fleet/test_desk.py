"""An operator's line to a broker that is none: it ends with a sentence, and soon."""

from __future__ import annotations

import pytest

from gateway.fleet import desk as module
from gateway.fleet.desk import Desk, Unreachable
from gateway.fleet.settings import BrokerSettings
from tests.story.test_health import (
    CONNACK,
    Hostile,
    talks_nonsense,
    welcomes_and_hangs,
    welcomes_and_sends_a_giant,
    welcomes_and_talks_nonsense,
)


def refuses(connection) -> None:
    connection.recv(4096)
    connection.sendall(b"\x20\x03\x00\x87\x00")


def answers_everything_with(packet: bytes):
    def act(connection) -> None:
        connection.recv(4096)
        connection.sendall(CONNACK)
        while connection.recv(4096):
            connection.sendall(packet)

    return act


PACKETS = {
    "a SUBACK without reasons": b"\x90\x03\x00\x01\x00",
    "a SUBACK that is cut": b"\x90\x01\x00",
    "a PUBACK of nobody": b"\x40\x02\xff\xff",
    "properties that are none": b"\x30\x08\x00\x01a\x7f\xff\xff\xff\xff",
    "letters that are none": b"\x30\x05\x00\x02\xff\xfe\x00",
    "a packet of no kind": b"\xf0\x00",
    "a refusal": b"\x90\x04\x00\x01\x00\x87",
}


@pytest.mark.parametrize(
    "act",
    [
        talks_nonsense,
        welcomes_and_hangs,
        welcomes_and_talks_nonsense,
        welcomes_and_sends_a_giant,
        refuses,
        *(pytest.param(answers_everything_with(packet), id=name) for name, packet in PACKETS.items()),
    ],
)
def test_nonsense_ends_with_a_sentence(act, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 0.5)
    monkeypatch.setattr(module, "CONNECT_S", 2.0)
    broker = Hostile(act)
    heard = []
    with pytest.raises(Unreachable) as caught:
        with Desk(BrokerSettings(host="127.0.0.1", port=broker.port), heard.append) as desk:
            desk.subscribe("gw/v1/default/+/session")
            desk.settle()
    broker.server.close()
    assert caught.value.detail
    assert caught.value.exit_code == 69
