"""A broker that misbehaves ends its own connection; the room goes on and says why."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from gateway.fleet.settings import BrokerSettings
from gateway.fleet.subscriber import Line
from tests.fleet import birth, health, session
from tests.ports import hang_up
from tests.unit.fleet.boxes import House

WELCOME = b"\x20\x03\x00\x00\x00"


def nonsense(line: socket.socket) -> None:
    line.recv(4096)
    line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def refuses(line: socket.socket) -> None:
    line.recv(4096)
    line.sendall(b"\x20\x03\x00\x87\x00")  # not authorized
    time.sleep(0.2)


def leaves(line: socket.socket) -> None:
    line.recv(4096)


def giant(line: socket.socket) -> None:
    line.recv(4096)
    line.sendall(WELCOME + b"\x30\xff\xff\xff\x7f" + b"x" * 1000)
    time.sleep(0.2)


def refuses_to_subscribe(line: socket.socket) -> None:
    line.recv(4096)
    line.sendall(WELCOME)
    asked = line.recv(4096)
    line.sendall(b"\x90\x04" + asked[2:4] + b"\x00\x87")
    time.sleep(0.2)


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (nonsense, ""),
        (refuses, "Not authorized"),
        (leaves, "the line broke"),
        (giant, "larger than we take"),
        (refuses_to_subscribe, "refuses a subscription: Not authorized"),
    ],
)
def test_the_room_goes_on_and_says_why(act, said, wait_until):
    house, stop, met = House(), threading.Event(), []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while not stop.is_set():
                try:
                    line, _ = server.accept()
                except OSError:
                    return
                met.append(1)
                with line:
                    act(line)

        threading.Thread(target=serve, daemon=True).start()
        settings = BrokerSettings(host="127.0.0.1", port=server.getsockname()[1])
        line = Line(settings, "default", house.inventory)
        room = threading.Thread(target=line.run, args=(stop, lambda: None), daemon=True)
        room.start()
        try:
            assert wait_until(lambda: len(met) >= 2)  # it tries again
            # In between it says that it is connected again, to a broker that has not misbehaved yet.
            assert wait_until(lambda: said in line.reason and line.reason != "not connected yet")
            assert not line.connected
        finally:
            stop.set()
            room.join(15)
            hang_up(server)
        assert not room.is_alive()


@pytest.mark.parametrize("suback", [True, False])
def test_what_a_broker_dropped_is_asked_for(suback, monkeypatch, wait_until):
    monkeypatch.setattr("gateway.fleet.subscriber.SILENCE_S", 30.0 if suback else 0.1)
    monkeypatch.setattr("gateway.fleet.subscriber.ASK_EVERY_S", 0.1)
    house, stop, asked = House(), threading.Event(), []
    house.say("whole/session", session())
    house.say("whole/birth", birth())
    house.say("part/health", health())

    def serve() -> None:
        line, _ = server.accept()
        with line:
            line.recv(4096)
            line.sendall(WELCOME)
            while packet := line.recv(4096):
                asked.append(packet)
                if suback and packet[0] == 0x82:
                    line.sendall(b"\x90\x04" + packet[2:4] + b"\x00\x00")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        settings = BrokerSettings(host="127.0.0.1", port=server.getsockname()[1])
        line = Line(settings, "default", house.inventory)
        room = threading.Thread(target=line.run, args=(stop, lambda: None), daemon=True)
        room.start()
        assert wait_until(lambda: b"default/part/birth" in b"".join(asked))
        assert line.connected
        assert line.drops is not suback
        assert wait_until(lambda: b"".join(asked).count(b"default/part/birth") >= 2)
        time.sleep(0.3)
        everything = b"".join(asked)
        assert everything.count(b"default/part/birth") == 2  # subscribed and unsubscribed, once
        assert b"default/whole/birth" not in everything
        stop.set()
        room.join(15)
    assert not room.is_alive()
