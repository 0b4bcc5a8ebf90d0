"""One connection over a line: two sockets, two ways, and what befell it. No decision is taken here."""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Callable
from enum import Enum

from gateway.emulator.line import Mishap, Way

SOCKET_BUFFER = 64 * 1024
"""Ours, each way: they would otherwise grow to megabytes, and the sender would feel a faster line than there is."""
SEGMENT = 1460
"""Ethernet's: with the 64 KiB of a loopback a sender's own buffer grows three times as large before it must wait."""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no patience: close sends RST."""


class Mark(Enum):
    END = "end"
    RESET = "reset"


Piece = memoryview | Mark


class Side:
    """One socket of a connection, and what it waits for."""

    __slots__ = ("flow_in", "flow_out", "mask", "sock", "touched")

    def __init__(
        self, sock: socket.socket, flow_in: Flow, flow_out: Flow, touched: Callable[[Side, int], None]
    ) -> None:
        self.sock, self.flow_in, self.flow_out, self.touched = sock, flow_in, flow_out, touched
        self.mask = 0
        flow_in.source = flow_out.sink = self


class Flow:
    """One way of one connection."""

    __slots__ = ("carried", "connection", "done", "held", "out", "set_aside", "sink", "source", "told_all", "way")

    def __init__(self, connection: Connection, way: Way) -> None:
        self.connection, self.way = connection, way
        self.source: Side | None = None
        self.sink: Side | None = None
        self.out: deque[Piece] = deque()
        """Came out of the line, not yet taken by the receiver."""
        self.held = 0
        """Bytes in the line and in `out`."""
        self.carried = 0
        self.told_all = False
        """Nothing more is read from the source."""
        self.done = False
        """Nothing more is written to the sink."""
        self.set_aside = False
        """Not read from, because it holds its whole window."""


class Connection:
    """Who connected, the far side, and what befell them."""

    __slots__ = ("dial_at_s", "down", "far", "frozen_until_s", "had", "near", "over", "reached", "swallowed", "up")

    def __init__(self, dial_at_s: float, *, swallowed: bool) -> None:
        self.up, self.down = Flow(self, Way.UP), Flow(self, Way.DOWN)
        self.near: Side | None = None
        self.far: Side | None = None
        self.dial_at_s = dial_at_s
        self.swallowed = swallowed
        self.reached = False
        """The far side accepted."""
        self.frozen_until_s = 0.0
        self.had: set[Mishap] = set()
        self.over = False


def prepare(sock: socket.socket) -> None:
    """Never wait, never gather, never buffer much."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)


def close_with_reset(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()
