"""A broker that misbehaves ends its own connection; the room goes on and says why."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from gateway.fleet.settings import BrokerSettings
from gateway.fleet.subscriber import Line
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
            assert wait_until(lambda: len(met) >= 2, 20)  # it tries again
            assert said in line.reason
            assert line.reason != "not connected yet"
            assert not line.connected
        finally:
            stop.set()
            room.join(15)
        assert not room.is_alive()
