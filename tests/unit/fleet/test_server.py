"""The door of the page, spoken to by bare sockets: limits and deadlines, whoever calls."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from gateway.fleet import server as module
from gateway.fleet.server import Request, Response, Server
from gateway.fleet.settings import PageSettings
from tests.ports import free_port, listens


@pytest.fixture
def asked():
    return []


@pytest.fixture
def door(asked, wait_until):
    """Address of a server that answers with "here" and remembers what it was asked."""
    settings = PageSettings(port=free_port(), hosts=["fleet.example"])

    def answer(request: Request) -> Response:
        asked.append(request)
        return Response(b"here")

    def spawn(name: str, target) -> None:
        threading.Thread(target=target, name=name, daemon=True).start()

    stop = threading.Event()
    room = threading.Thread(target=Server(settings, answer, spawn).run, args=(stop, lambda: None), daemon=True)
    room.start()
    address = ("127.0.0.1", settings.port)
    assert wait_until(lambda: listens(address[1]))
    yield address
    stop.set()
    room.join(30)


def say(address, text: bytes) -> bytes:
    with socket.create_connection(address, 30) as line:
        line.sendall(text)
        answer = b""
        while block := line.recv(65536):
            answer += block
    return answer


def test_a_request_is_understood(door, asked):
    got = say(door, b"GET /box/a%2Fb?q=%C3%A4+1&x=2 HTTP/1.1\r\nHost: Fleet.Example:9\r\nCookie: a=1; b=2\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert got.endswith(b"\r\n\r\nhere")
    assert b"default-src 'none'" in got
    (request,) = asked
    assert (request.method, request.path, request.query) == ("GET", "/box/a/b", {"q": "ä 1", "x": "2"})
    assert request.cookies == {"a": "1", "b": "2"}
    assert request.local


def test_a_form_may_come_in_parts(door, asked):
    with socket.create_connection(door, 10) as line:
        line.sendall(b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\nname=")
        time.sleep(0.05)
        line.sendall(b"A+B%21")
        line.recv(100)
    assert asked[0].form == {"name": "A B!"}


def test_who_asks_for_another_is_not_local(door, asked):
    say(door, b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n")
    assert not asked[0].local


def test_to_a_head_no_body_is_sent(door):
    assert say(door, b"HEAD / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n").endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        (b"GET / HTTP/1.1\r\n\r\n", 421),
        (b"DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x00\xa5\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 000000000099999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", 413),
        (b"GET /?" + b"&".join(b"a%d=1" % n for n in range(99)) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET http://[bad HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_of_ours_is_refused(door, asked, text, status):
    assert int(say(door, text).split()[1]) == status
    assert asked == []


def test_a_head_without_end_is_not_read_to_its_end(door, asked):
    with socket.create_connection(door, 10) as line, pytest.raises(OSError):
        while True:
            line.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 30_000)
    assert asked == []


def test_who_says_nothing_is_left_and_keeps_nobody_waiting(door, monkeypatch):
    with socket.create_connection(door, 30):
        assert say(door, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").endswith(b"here")
    monkeypatch.setattr(module, "CALL_S", 0.3)
    with socket.create_connection(door, 30) as silent:
        assert silent.recv(10) == b""


def test_callers_beyond_the_limit_are_turned_away(door, monkeypatch, wait_until):
    monkeypatch.setattr(module, "CALL_S", 100.0)  # the crowd stays until it is told to go
    crowd = [socket.create_connection(door, 30) for _ in range(module.MAX_CALLERS)]

    def turned_away() -> bool:
        with socket.create_connection(door, 30) as one_more:
            one_more.settimeout(0.5)
            try:
                return one_more.recv(10) == b""
            except OSError:
                return False

    def let_in() -> bool:
        try:
            return say(door, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").endswith(b"here")
        except OSError:  # turned away once more
            return False

    assert wait_until(turned_away)
    for line in crowd:
        line.close()
    assert wait_until(let_in)
