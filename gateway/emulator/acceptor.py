"""A port on which each connection has a thread of its own, and one connection read PDU by PDU."""

from __future__ import annotations

import errno
import random
import socket
import struct
import threading
from collections.abc import Callable

from gateway.emulator import pdu
from gateway.emulator.connection import close_with_reset
from gateway.emulator.pdu import Message

IDLE_S = 300.0
"""A peer that says nothing for so long is gone."""
LONGEST = 1 << 30
OURS = range(15000, 32000)
"""Below what Linux gives to clients (ip_local_port_range)."""
TRIES = 100


class Gone(Exception):
    """The connection is over."""


class Line:
    """One connection from the side that accepted it. Every method raises Gone when it is over."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(IDLE_S)
        self.socket = sock

    def _exactly(self, count: int) -> bytes:
        got = bytearray()
        while len(got) < count:
            try:
                block = self.socket.recv(min(1 << 20, count - len(got)))
            except OSError as error:
                raise Gone(str(error)) from error
            if not block:
                raise Gone("closed by the peer")
            got += block
        return bytes(got)

    def read(self) -> tuple[int, bytes]:
        """Return the next PDU."""
        kind, length = struct.unpack(">BxI", self._exactly(6))
        if length > LONGEST:
            raise Gone(f"a PDU of {length} bytes")
        return kind, self._exactly(length)

    def send(self, *blocks: bytes) -> None:
        """Send all of it."""
        try:
            self.socket.sendall(b"".join(blocks))
        except OSError as error:
            raise Gone(str(error)) from error

    def message(self, began: Callable[[], None]) -> Message:
        """Return the next message; `began` is called when the first piece of a data set is there. A release is
        answered, and ends it."""
        order, data, told, first = bytearray(), bytearray(), False, True
        while True:
            kind, body = self.read()
            if kind == pdu.RELEASE_RQ:
                self.send(pdu.pdu(pdu.RELEASE_RP))
            if kind != pdu.P_DATA:
                raise Gone("released" if kind == pdu.RELEASE_RQ else f"PDU type {kind}")
            for context, flags, payload in pdu.items(body):
                if flags & pdu.COMMAND:
                    order += payload
                    told = bool(flags & pdu.LAST)
                else:
                    data += payload
                    if first:
                        first = False
                        began()
                found = pdu.read_command(bytes(order)) if told else {}
                bare = int.from_bytes(found.get(pdu.DATA_SET, b""), "little") == pdu.NO_DATA_SET
                if told and (bare or flags & (pdu.COMMAND | pdu.LAST) == pdu.LAST):
                    return Message(found, bytes(data), context)

    def reset(self) -> None:
        """End it with RST."""
        close_with_reset(self.socket)
        raise Gone("reset")


class Acceptor:
    """Serves connections until it is stopped, and can begin again on the same port."""

    def __init__(self, serve: Callable[[Line], None], address: str, port: int, name: str) -> None:
        self.port = port
        self._serve, self._address, self._name = serve, address, name
        self._listener: socket.socket | None = None
        self._lines: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.stopping = threading.Event()

    def start(self) -> None:
        """Listen; the first time on a free port if none was named. Raises OSError."""
        self.stopping.clear()
        self._listener = self._listen()
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), name=self._name, daemon=True).start()

    def _listen(self) -> socket.socket:
        """Not on a port that the system gives to clients: while we are away, one of them could take it, even one that
        only tries to reach us and so reaches itself."""
        for port in [self.port] if self.port else random.sample(OURS, TRIES):
            try:
                return socket.create_server((self._address, port), backlog=64)
            except OSError as error:
                if self.port or error.errno != errno.EADDRINUSE:
                    raise
        raise OSError(errno.EADDRINUSE, f"none of {TRIES} ports is free")

    def stop(self) -> None:
        """Go away: close the port and break off what is open."""
        self.stopping.set()
        if self._listener is not None:
            # A thread that waits in accept() would keep the port open.
            try:
                self._listener.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self._listener.close()
        with self._lock:
            for sock in self._lines:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def _accept(self, listener: socket.socket) -> None:
        while not self.stopping.is_set():
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._live, args=(sock,), name=self._name, daemon=True).start()

    def _live(self, sock: socket.socket) -> None:
        with self._lock:
            if self.stopping.is_set():
                sock.close()
                return
            self._lines.add(sock)
        try:
            self._serve(Line(sock))
        except (Gone, OSError):
            pass
        finally:
            with self._lock:
                self._lines.discard(sock)
            sock.close()
