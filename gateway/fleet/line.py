"""One of thousands of non-blocking connections to the broker: what is to go out, what is on its way, what came back."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gateway.fleet import wire

WINDOW = 20
"""Messages on their way at one time, or fewer where the broker says so (Receive Maximum)."""
MAX_WAITING = 256
"""Messages behind a line that takes none; then it counts as dead."""
BLOCK = 16384
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class LineEnded(Exception):
    """The connection is over; the argument says why, in a word."""


@dataclass(frozen=True, slots=True)
class Broker:
    """Where it is, and who we are there."""

    address: Any
    """As `socket.connect` takes it."""
    family: int = socket.AF_INET
    context: ssl.SSLContext | None = None
    server_name: str = ""
    user: str | None = None
    password: bytes | None = None


class Line:
    """Methods raise LineEnded; nothing blocks."""

    def __init__(self, broker: Broker, greeting: bytes) -> None:
        """Begin to connect; `greeting` is the CONNECT packet."""
        self._broker = broker
        self._secured = broker.context is None
        self._shaken = self._secured
        self._out = bytearray(greeting)
        self._reader = wire.Reader()
        self._waiting: deque[wire.Publication] = deque()
        self._sent: dict[int, float] = {}
        self._window = WINDOW
        self._packet_id = 0
        self.up = False
        """The broker has welcomed us."""
        self.heard_at = time.monotonic()
        self.socket: Any = socket.socket(broker.family, socket.SOCK_STREAM)
        self.fd = self.socket.fileno()
        """The same before and after TLS begins."""
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        outcome = self.socket.connect_ex(broker.address)
        if outcome not in (0, errno.EINPROGRESS):
            self.socket.close()
            raise LineEnded(os.strerror(outcome))

    @property
    def wants_to_write(self) -> bool:
        """True while the socket shall be asked whether it takes more; also until it is connected."""
        return bool(self._out) and (self._shaken or not self._secured)

    @property
    def idle(self) -> bool:
        """Everything that was said is acknowledged."""
        return not (self._out or self._waiting or self._sent)

    def ready(self) -> Iterator[tuple[float, int]]:
        """Do what the socket is ready for; yield (seconds, reason code) of each message that was acknowledged."""
        try:
            if not self._secured:
                self._secure()
            if not self._shaken:
                self.socket.do_handshake()
                self._shaken = True
        except _NOT_NOW:
            return
        except OSError as error:
            raise LineEnded(_why(error)) from None
        self.flush()
        yield from self._receive()

    def _secure(self) -> None:
        """Connected: begin with TLS."""
        assert self._broker.context is not None
        outcome = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if outcome:
            raise LineEnded(os.strerror(outcome))
        self.socket = self._broker.context.wrap_socket(
            self.socket, server_hostname=self._broker.server_name, do_handshake_on_connect=False
        )
        self._secured = True

    def _receive(self) -> Iterator[tuple[float, int]]:
        while True:
            try:
                block = self.socket.recv(BLOCK)
            except _NOT_NOW:
                return
            except OSError as error:
                raise LineEnded(_why(error)) from None
            if not block:
                raise LineEnded("closed")
            self.heard_at = time.monotonic()
            try:
                for first, body in self._reader.feed(block):
                    if first == wire.PUBACK:
                        yield from self._acknowledge(body)
                    elif first == wire.CONNACK:
                        self._welcome(body)
                    elif first & 0xF0 == wire.DISCONNECT:
                        raise LineEnded("sent away")
            except wire.WireFault:
                raise LineEnded("nonsense") from None

    def _welcome(self, body: bytes) -> None:
        reason, window = wire.welcome(body)
        if reason >= wire.FAILURE:
            raise LineEnded(f"refused 0x{reason:02X}")
        self.up, self._window = True, min(WINDOW, window)
        self._advance()

    def _acknowledge(self, body: bytes) -> Iterator[tuple[float, int]]:
        packet_id, reason = wire.acknowledged(body)
        sent_at = self._sent.pop(packet_id, None)
        if sent_at is not None:
            yield time.monotonic() - sent_at, reason
        self._advance()

    def say(self, *messages: wire.Publication) -> None:
        """Publish as soon as the broker takes it."""
        self._waiting.extend(messages)
        if len(self._waiting) > MAX_WAITING:
            raise LineEnded("takes nothing")
        self._advance()
        self.flush()

    def _advance(self) -> None:
        while self.up and self._waiting and len(self._sent) < self._window:
            message = self._waiting.popleft()
            if message.qos:
                self._packet_id = self._packet_id % 65535 + 1
                while self._packet_id in self._sent:
                    self._packet_id = self._packet_id % 65535 + 1
                self._sent[self._packet_id] = time.monotonic()
            self._out += wire.publish(message, self._packet_id)

    def send(self, packet: bytes) -> None:
        """Put a packet other than a message on the wire."""
        self._out += packet
        self.flush()

    def flush(self) -> None:
        """Give the socket what it takes."""
        while self._out and self._shaken:
            try:
                sent = self.socket.send(self._out)
            except _NOT_NOW:
                return
            except OSError as error:
                if error.errno == errno.ENOTCONN:
                    return
                raise LineEnded(_why(error)) from None
            del self._out[:sent]

    def close(self) -> None:
        """End it; without DISCONNECT before, the broker will publish the will."""
        self.socket.close()


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__ if not isinstance(error, ssl.SSLError) else "TLS"
