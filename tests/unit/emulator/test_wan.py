"""A bad line carries every byte, or breaks the way it says; and nothing of it is left when it is closed."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from gateway.emulator import wan as wan_module
from gateway.emulator.line import Line, Way
from gateway.emulator.wan import Wan
from tests.ports import hang_up

PATIENCE_S = 60.0
SILENCE_S = 0.3
"""How long nothing has to come before a test believes that nothing does."""
IMPAIRED = {
    "perfect": Line(),
    "far": Line(round_trip_ms=60),
    "slow": Line(rate_mbit_s=16),
    "slower down than up": Line(rate_mbit_s=40, down_mbit_s=10),
    "far, slow and wandering": Line(round_trip_ms=40, rate_mbit_s=20, jitter_ms=30),
    "freezes for a moment": Line(round_trip_ms=10, rate_mbit_s=40, freeze_after_bytes=30_001, freeze_s=0.2),
    "cuts later": Line(round_trip_ms=10, cut_after_bytes=10**9, cut_every_s=3600, half_close_after_bytes=10**9),
}


class Far:
    """A server that runs `serve` on each connection, and keeps what that returned or raised."""

    def __init__(self, serve) -> None:
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.place = ("127.0.0.1", self.port)
        self._pool = ThreadPoolExecutor(32)
        self.served = []
        self._noting = threading.Lock()
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(PATIENCE_S)
            with self._noting:
                self.served.append(self._pool.submit(self._one, sock))

    def _one(self, sock):
        with self._noting:  # never serve what is not in the list yet
            pass
        with sock:
            return self._serve(sock)

    def close(self) -> None:
        hang_up(self._listener)
        self._accepting.join()
        self._pool.shutdown()


def echo(sock):
    while piece := sock.recv(65536):
        sock.sendall(piece)


def read_all(sock) -> tuple[bytes, str]:
    """Everything up to the end, and how that came."""
    got = b""
    try:
        while piece := sock.recv(65536):
            got += piece
    except ConnectionResetError:
        return got, "reset"
    return got, "end"


def read_exactly(sock, count: int) -> bytes:
    got = b""
    while len(got) < count:
        piece = sock.recv(min(65536, count - len(got)))
        assert piece, f"ended after {len(got)} bytes of {count}"
        got += piece
    return got


def read_all_then_thank(sock):
    got = read_all(sock)
    sock.sendall(b"thanks for %d" % len(got[0]))
    return got


@pytest.fixture
def far_side():
    with ExitStack() as stack:
        yield lambda serve=echo: stack.enter_context(closing(Far(serve)))


@pytest.fixture
def client():
    with ExitStack() as stack:
        yield lambda wan: stack.enter_context(socket.create_connection(("127.0.0.1", wan.port), timeout=PATIENCE_S))


def nothing_comes(sock) -> bool:
    sock.settimeout(SILENCE_S)
    try:
        return sock.recv(1) is None
    except TimeoutError:
        return True
    finally:
        sock.settimeout(PATIENCE_S)


def goes_around(sock, content: bytes) -> None:
    """Send it, and read it back while it is being sent."""
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(sock.sendall, content)
        assert read_exactly(sock, len(content)) == content
        sending.result(PATIENCE_S)


def descriptors() -> set[tuple[str, Path]]:
    """What is open, each as itself: what earlier tests left may be closed at any time, so that only new ones tell."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that by which we look
            found.add((link.name, link.readlink()))
    return found


@pytest.mark.parametrize("line", IMPAIRED.values(), ids=IMPAIRED)
def test_what_goes_in_comes_out(line, far_side, client):
    far = far_side()
    content = random.Random(1).randbytes(300_000)
    with Wan(line, far.place) as wan:
        sock = client(wan)
        goes_around(sock, content)
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == (b"", "end")
        assert far.served[0].result(PATIENCE_S) is None
        traffic = wan.traffic
    assert (traffic.bytes_up, traffic.bytes_down, traffic.connections) == (len(content), len(content), 1)
    assert traffic.cuts == traffic.half_closes == 0


def test_what_goes_in_comes_out_while_the_line_changes(far_side, client):
    luck = random.Random(2)
    with Wan(Line(), far_side().place) as wan:
        sock, content = client(wan), luck.randbytes(6_000_000)
        with ThreadPoolExecutor(1) as pool:
            going = pool.submit(goes_around, sock, content)
            while not going.done():
                far_slow = Line(luck.choice((0, 5, 30)), luck.choice((0, 8)), luck.choice((None, 30, 300)))
                wan.set_line(luck.choice((far_slow, Line(black_hole=True))))
                time.sleep(luck.uniform(0, 0.05))
            going.result()


def test_a_slow_line_takes_the_time_that_its_rate_demands_however_many_share_it(far_side, client):
    with Wan(Line(rate_mbit_s=8), far_side().place) as wan, ThreadPoolExecutor(5) as pool:
        started = time.monotonic()
        for going in [pool.submit(goes_around, client(wan), os.urandom(100_000)) for _ in range(5)]:
            going.result(PATIENCE_S)
        assert time.monotonic() - started >= 500_000 * 8 / 8e6


def test_the_slower_way_is_the_one_that_was_named(far_side, client):
    with Wan(Line(rate_mbit_s=800, down_mbit_s=8), far_side(lambda sock: sock.sendall(bytes(300_000))).place) as wan:
        started = time.monotonic()
        assert len(read_exactly(client(wan), 300_000)) == 300_000
        assert time.monotonic() - started >= 300_000 * 8 / 8e6


def test_an_answer_takes_a_round_trip_from_the_first_byte_on(far_side, client):
    with Wan(Line(round_trip_ms=120), far_side().place) as wan:
        sock = client(wan)
        for _ in range(3):
            started = time.monotonic()
            sock.sendall(b"x")
            read_exactly(sock, 1)
            assert time.monotonic() - started >= 0.120


def test_a_far_side_that_speaks_first_is_heard_after_a_round_trip(far_side, client):
    with Wan(Line(round_trip_ms=120), far_side(lambda sock: sock.sendall(b"220")).place) as wan:
        started = time.monotonic()
        assert read_all(client(wan)) == (b"220", "end")
        assert time.monotonic() - started >= 0.120


def test_a_sender_waits_while_the_line_is_full(far_side, client):
    with Wan(Line(round_trip_ms=40, rate_mbit_s=20, freeze_after_bytes=0), far_side().place) as wan:
        sock, pushed = client(wan), 0
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        sock.settimeout(1.0)
        with pytest.raises(TimeoutError):
            while pushed < 64 << 20:
                pushed += sock.send(bytes(65536))
        assert pushed < 2 << 20


def test_all_connections_together_put_no_more_into_the_line_than_it_holds(far_side, client):
    line, pushed = Line(round_trip_ms=60_000, rate_mbit_s=1), 0
    with Wan(line, far_side().place) as wan:
        for sock in [client(wan) for _ in range(4)]:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            sock.settimeout(0.3)
            with pytest.raises(TimeoutError):
                while pushed < 64 << 20:
                    pushed += sock.send(bytes(65536))
    assert pushed < 2 * line.window_bytes(Way.UP)


def test_whoever_does_not_read_holds_up_nobody_else(far_side, client):
    ended = threading.Event()

    def deaf_if_told(sock):
        if sock.recv(1) == b"d":
            ended.wait(PATIENCE_S)
        else:
            echo(sock)

    with Wan(Line(round_trip_ms=10, rate_mbit_s=100), far_side(deaf_if_told).place) as wan:
        deaf, other = client(wan), client(wan)
        deaf.settimeout(0.5)
        with pytest.raises(TimeoutError):
            deaf.sendall(b"d" + bytes(64 << 20))
        other.sendall(b"e")
        goes_around(other, os.urandom(100_000))
        ended.set()


def test_a_cut_comes_after_so_many_bytes_and_resets_both_sides(far_side, client):
    far, content = far_side(read_all), os.urandom(200_000)
    with Wan(Line(round_trip_ms=10, rate_mbit_s=50, cut_after_bytes=77_777), far.place) as wan:
        for round_ in range(2):
            sock = client(wan)
            with pytest.raises(ConnectionError):
                sock.sendall(content)
                assert read_all(sock)[1] == "reset"
                sock.sendall(content)
            got, how = far.served[round_].result(PATIENCE_S)
            assert how == "reset"
            assert content.startswith(got)
            assert len(got) <= 77_777
        assert (wan.traffic.cuts, wan.traffic.bytes_up) == (2, 2 * 77_777)


def test_cuts_come_again_and_again(far_side, client):
    with Wan(Line(cut_every_s=0.1), far_side().place) as wan:
        for _ in range(3):
            assert read_all(client(wan)) == (b"", "reset")
        assert wan.traffic.cuts == 3


def test_a_cut_on_demand_resets_all(far_side, client, wait_until):
    with Wan(Line(), far_side(read_all).place) as wan:
        socks = [client(wan) for _ in range(3)]
        assert wait_until(lambda: wan.traffic.connections == 3)
        wan.cut()
        assert [read_all(sock) for sock in socks] == [(b"", "reset")] * 3
        assert wan.traffic.cuts == 3


def test_a_frozen_connection_says_nothing_and_thaws_with_another_line(far_side, client, wait_until):
    with Wan(Line(freeze_after_bytes=1000), far_side().place) as wan:
        sock, content = client(wan), os.urandom(5000)
        sock.sendall(content)
        assert wait_until(lambda: wan.traffic.freezes)
        assert nothing_comes(sock)
        wan.set_line(Line())
        assert read_exactly(sock, 5000) == content


def test_after_a_half_close_the_other_way_goes_on(far_side, client):
    far = far_side(read_all_then_thank)
    with Wan(Line(half_close_after_bytes=1000), far.place) as wan:
        sock, content = client(wan), os.urandom(1500)
        sock.sendall(content)
        assert read_exactly(sock, 15) == b"thanks for 1000"
        assert far.served[0].result(PATIENCE_S) == (content[:1000], "end")
        assert wan.traffic.half_closes == 1


def test_an_end_travels_after_all_that_was_said(far_side, client):
    far = far_side(read_all_then_thank)
    with Wan(Line(round_trip_ms=40, rate_mbit_s=20), far.place) as wan:
        sock = client(wan)
        sock.sendall(bytes(150_000))
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == (b"thanks for 150000", "end")


def test_a_reset_travels(far_side, client):
    far = far_side(lambda sock: sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"))
    with Wan(Line(round_trip_ms=40), far.place) as wan:
        assert read_all(client(wan)) == (b"", "reset")
        assert wan.traffic.cuts == 0


def test_a_far_side_that_is_not_there_is_a_reset_a_round_trip_later(port, client):
    with Wan(Line(round_trip_ms=100), ("127.0.0.1", port())) as wan:
        started = time.monotonic()
        assert read_all(client(wan)) == (b"", "reset")
        assert time.monotonic() - started >= 0.1


def test_a_refusal_is_a_reset_and_the_far_side_never_knows(far_side, client):
    far = far_side()
    with Wan(Line(refuse=True), far.place) as wan:
        with suppress(ConnectionResetError):  # in the midst of connecting
            assert read_all(client(wan)) == (b"", "reset")
        assert (wan.traffic.refused, far.served) == (1, [])


def test_a_black_hole_swallows_and_its_end_resets(far_side, client, wait_until):
    far = far_side()
    with Wan(Line(black_hole=True), far.place) as wan:
        sock = client(wan)
        sock.sendall(bytes(3_000_000))
        assert wait_until(lambda: wan.traffic.bytes_swallowed == 3_000_000)
        assert nothing_comes(sock)
        wan.set_line(Line())
        assert read_all(sock) == (b"", "reset")
        goes_around(client(wan), b"again")
        assert len(far.served) == 1


def test_an_outage_stalls_what_was_open_and_loses_nothing(far_side, client):
    with Wan(Line(round_trip_ms=10), far_side().place) as wan:
        sock = client(wan)
        goes_around(sock, b"before")
        wan.set_line(Line(black_hole=True))
        sock.sendall(b"during")
        assert nothing_comes(sock)
        wan.set_line(Line(round_trip_ms=10))
        sock.sendall(b"after")
        assert read_exactly(sock, 11) == b"duringafter"


def test_a_connection_that_was_under_way_when_the_outage_came_is_made_after_it(far_side, client, wait_until):
    with Wan(Line(round_trip_ms=200), far_side().place) as wan:
        sock = client(wan)
        sock.sendall(b"early")
        assert wait_until(lambda: wan.traffic.connections)
        wan.set_line(Line(black_hole=True))
        assert nothing_comes(sock)
        wan.set_line(Line())
        assert read_exactly(sock, 5) == b"early"


def test_more_connections_than_it_holds_wait_their_turn(far_side, client, monkeypatch):
    monkeypatch.setattr(wan_module, "MAX_CONNECTIONS", 2)
    with Wan(Line(), far_side().place) as wan:
        first, second, third = client(wan), client(wan), client(wan)
        goes_around(first, b"1")
        goes_around(second, b"2")
        third.sendall(b"3")
        assert nothing_comes(third)
        first.close()
        assert read_exactly(third, 1) == b"3"


def test_nothing_is_left_when_it_closes(far_side, port, wait_until):
    far, gone = far_side(), port()
    before = descriptors()
    socks = []
    for line in (*IMPAIRED.values(), Line(black_hole=True), Line(freeze_after_bytes=10), Line(round_trip_ms=60_000)):
        for place in (far.place, ("127.0.0.1", gone)):
            with Wan(line, place) as wan:
                for _ in range(3):
                    socks.append(socket.create_connection(("127.0.0.1", wan.port)))
                    with suppress(ConnectionError):  # that is what the second place is for
                        socks[-1].sendall(bytes(100_000))
                time.sleep(0.02)
    for sock in socks:
        sock.close()
    assert not any(thread.name == "wan" for thread in threading.enumerate())
    assert wait_until(lambda: descriptors() <= before)


def test_a_port_that_is_taken_is_an_error_and_leaves_nothing(far_side):
    far = far_side()
    before = descriptors() | set(threading.enumerate())
    with pytest.raises(OSError, match="in use"):
        Wan(Line(), far.place, port=far.port).start()
    assert descriptors() | set(threading.enumerate()) <= before


def test_a_closed_line_cannot_be_changed_and_may_be_closed_again(far_side):
    with Wan(Line(), far_side().place) as wan:
        pass
    wan.close()
    with pytest.raises(RuntimeError):
        wan.set_line(Line())
