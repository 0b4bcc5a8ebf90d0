"""A TCP proxy that behaves like a bad line: slow, far, cut, frozen, deaf. The judgement is in `line.py`.

What a proxy cannot do. This machine answers set-up and acknowledgements at once. So the connection to the far side is
begun half a round trip late, and the first byte each way is as late; but `connect` itself returns immediately, a whole
round trip sooner than on a real line. No packet is lost: above TCP loss is delay, and `jitter_ms` and `freeze_s` stand
for it. The sockets' own buffers lie outside the line.

One thread owns every socket, so that nothing is shared and all of it ends with the thread.
"""

from __future__ import annotations

import errno
import socket
import time
from collections import deque
from dataclasses import dataclass, replace
from math import inf
from selectors import EVENT_READ, EVENT_WRITE
from types import TracebackType
from typing import Any

from gateway.emulator.connection import Connection, Flow, Mark, Piece, Side, close_with_reset, prepare
from gateway.emulator.line import MAX_QUANTUM, MAX_WINDOW, Lane, Line, Mishap, Way, cut_times_s, next_mishap
from gateway.emulator.loop import Loop

MAX_CONNECTIONS = 256
"""Open at once; more wait in the system's backlog."""


@dataclass(slots=True)
class Traffic:
    """What a line has done since it began."""

    connections: int = 0
    """Accepted, with those that were refused or swallowed."""
    refused: int = 0
    cuts: int = 0
    """Connections that the line reset."""
    freezes: int = 0
    half_closes: int = 0
    bytes_up: int = 0
    """Handed to the far side."""
    bytes_down: int = 0
    """Handed to whoever connected."""
    bytes_swallowed: int = 0
    """By a black hole."""


class Wan:
    """Carry what comes to `port` over a bad line to `to`, from `start` (or `with`) to `close`."""

    def __init__(self, line: Line, to: tuple[str, int], *, address: str = "127.0.0.1", port: int = 0) -> None:
        self.port = port
        """Where it listens; with 0 the system chooses at `start`."""
        self._line = line
        self._to = to
        self._address = address
        self._traffic = Traffic()
        self._connections: set[Connection] = set()
        self._lanes: dict[Way, Lane[tuple[Flow, Piece]]] = {way: Lane(line, way, time.monotonic()) for way in Way}
        self._waiting: dict[Way, deque[Flow]] = {way: deque() for way in Way}
        """Whose senders have something to say, in turn."""
        self._held = dict.fromkeys(Way, 0)
        self._cut_clock = object()
        """Whose cuts count: those of the line that is in force."""

    def start(self) -> None:
        """Listen. Raises OSError when the port is taken or the far host has no address."""
        family, _, _, _, place = socket.getaddrinfo(*self._to, type=socket.SOCK_STREAM)[0]
        self._family: int = family
        self._place: tuple[Any, ...] = place
        kind = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        self._listener = socket.create_server((self._address, self.port), family=kind, backlog=128)
        self.port = self._listener.getsockname()[1]
        prepare(self._listener)
        self._loop = Loop("wan", self._step, self._close_all)
        self._listen(True)
        self._begin_cuts()
        self._loop.start()

    def close(self) -> None:
        """Reset what is open, stop listening, end the thread."""
        self._loop.close()

    def __enter__(self) -> Wan:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def traffic(self) -> Traffic:
        """The figures of this moment."""
        return replace(self._traffic)

    def set_line(self, line: Line) -> None:
        """Be another line; it is in force on return. What was frozen thaws; what a black hole swallowed is reset when
        the black hole ends, because its bytes are gone."""
        self._loop.ask(lambda: self._change(line))

    def cut(self) -> None:
        """Reset every open connection now, both ways."""
        self._loop.ask(self._cut_all)

    # From here on everything runs in the line's own thread.

    def _step(self) -> float:
        """Let in what has room, hand over what is due, and return when there is more to do."""
        for way, lane in self._lanes.items():
            waiting = self._waiting[way]
            for _ in range(len(waiting)):
                if not self._has_room(way):
                    break
                self._read(waiting.popleft())
            for (flow, piece), count in lane.leave(time.monotonic()):
                self._come_out(flow, piece, count)
        if any(waiting and self._has_room(way) for way, waiting in self._waiting.items()):
            return 0.0
        return min(lane.next_due_s for lane in self._lanes.values())

    def _has_room(self, way: Way) -> bool:
        return self._lanes[way].has_room and self._held[way] < MAX_WINDOW

    def _listen(self, on: bool) -> None:
        self._loop.wait_for(self._listener, 0 if on else EVENT_READ, EVENT_READ if on else 0, lambda _: self._accept())

    def _wish(self, side: Side, *, on: int = 0, off: int = 0) -> None:
        """Change what a side waits for."""
        mask = (side.mask | on) & ~off
        self._loop.wait_for(side.sock, side.mask, mask, lambda found: side.touched(side, found))
        side.mask = mask

    def _close_all(self) -> None:
        for connection in list(self._connections):
            self._finish(connection, reset=True)
        self._listener.close()

    # Connections

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:  # gone again before we came
            return
        self._traffic.connections += 1
        if self._line.refuse:
            self._traffic.refused += 1
            close_with_reset(sock)
            return
        prepare(sock)
        connection = Connection(time.monotonic() + self._line.one_way_s, swallowed=self._line.black_hole)
        connection.near = Side(sock, connection.up, connection.down, self._touched)
        self._connections.add(connection)
        if len(self._connections) == MAX_CONNECTIONS:
            self._listen(False)
        self._wish(connection.near, on=EVENT_READ)
        if not connection.swallowed:
            self._loop.at(connection.dial_at_s, lambda: self._dial(connection))

    def _dial(self, connection: Connection) -> None:
        if connection.over or connection.far or self._line.black_hole:
            return
        sock = socket.socket(self._family, socket.SOCK_STREAM)
        prepare(sock)
        connection.far = Side(sock, connection.down, connection.up, self._answered)
        if sock.connect_ex(self._place) in (0, errno.EINPROGRESS):
            self._wish(connection.far, on=EVENT_WRITE)
        else:
            self._lost(connection.far)

    def _answered(self, side: Side, _: int) -> None:
        connection = side.flow_in.connection
        if connection.over:
            return
        self._wish(side, off=EVENT_WRITE)
        if side.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._lost(side)
            return
        connection.reached = True
        side.touched = self._touched
        self._wish(side, on=EVENT_READ)
        self._push(connection.up)

    def _touched(self, side: Side, mask: int) -> None:
        if side.flow_in.connection.over:
            return
        if mask & EVENT_WRITE:
            self._wish(side, off=EVENT_WRITE)
            self._push(side.flow_out)
        if mask & EVENT_READ and not side.flow_in.connection.over:
            if side.flow_in.connection.swallowed:
                self._swallow(side)
            else:
                self._wish(side, off=EVENT_READ)
                self._waiting[side.flow_in.way].append(side.flow_in)

    def _lost(self, side: Side) -> None:
        """A peer reset its connection, or never answered: the other one learns it after what was sent before."""
        self._wish(side, off=side.mask)
        self._forget(side.flow_out)
        side.flow_in.told_all = True
        self._lanes[side.flow_in.way].enter(time.monotonic(), (side.flow_in, Mark.RESET), 0)

    def _finish(self, connection: Connection, *, reset: bool) -> None:
        connection.over = True
        self._connections.discard(connection)
        if len(self._connections) == MAX_CONNECTIONS - 1 and not self._loop.stopping:
            self._listen(True)
        for flow in (connection.up, connection.down):
            self._forget(flow)
        for side in (connection.near, connection.far):
            if side is not None:
                self._wish(side, off=side.mask)
                if reset:
                    close_with_reset(side.sock)
                side.sock.close()

    def _finish_if_done(self, connection: Connection) -> None:
        if connection.up.done and connection.down.done:
            self._finish(connection, reset=False)

    # Bytes

    def _swallow(self, side: Side) -> None:
        try:
            count = len(side.sock.recv(MAX_QUANTUM))
        except BlockingIOError:
            return
        except OSError:
            count = 0
        self._traffic.bytes_swallowed += count
        if count == 0:
            self._finish(side.flow_in.connection, reset=False)

    def _read(self, flow: Flow) -> None:
        """Let one quantum of a sender into the line, unless the receiver is that much behind."""
        lane, source = self._lanes[flow.way], flow.source
        if flow.connection.over or flow.told_all or source is None:
            return
        if flow.held >= lane.window_bytes:
            flow.set_aside = True
            return
        try:
            piece = source.sock.recv(lane.quantum_bytes)
        except BlockingIOError:
            self._wish(source, on=EVENT_READ)
            return
        except OSError:
            self._lost(source)
            return
        if not piece:
            flow.told_all = True
            lane.enter(time.monotonic(), (flow, Mark.END), 0)
            return
        flow.held += len(piece)
        self._held[flow.way] += len(piece)
        lane.enter(time.monotonic(), (flow, memoryview(piece)), len(piece))
        if len(piece) == lane.quantum_bytes:
            self._waiting[flow.way].append(flow)  # there is likely more; the others first
        else:
            self._wish(source, on=EVENT_READ)

    def _come_out(self, flow: Flow, piece: Piece, count: int) -> None:
        if flow.connection.over or (flow.done and piece is not Mark.RESET):
            self._release(flow, count)
            return
        flow.out.append(piece)
        self._push(flow)

    def _release(self, flow: Flow, count: int) -> None:
        flow.held -= count
        self._held[flow.way] -= count
        if flow.set_aside and flow.held < self._lanes[flow.way].window_bytes:
            flow.set_aside = False
            self._waiting[flow.way].append(flow)

    def _forget(self, flow: Flow) -> None:
        """Nothing more goes to this receiver."""
        flow.done = True
        self._release(flow, sum(len(piece) for piece in flow.out if isinstance(piece, memoryview)))
        flow.out.clear()

    def _push(self, flow: Flow) -> None:
        """Hand a receiver what came out, as far as it takes it and no mishap befalls it."""
        connection = flow.connection
        while not (connection.over or self._line.black_hole or connection.frozen_until_s > time.monotonic()):
            head = flow.out[0] if flow.out else None
            if head is Mark.RESET:
                self._finish(connection, reset=True)
                return
            if flow.done or flow.sink is None or not connection.reached:
                return
            mishap = next_mishap(self._line, flow.carried, connection.had)
            if mishap and mishap[1] == 0:
                self._strike(flow, mishap[0])
            elif head is None:
                return
            elif isinstance(head, Mark):
                self._end(flow)
            elif not self._send(flow, flow.sink, head, mishap[1] if mishap else len(head)):
                return

    def _send(self, flow: Flow, sink: Side, head: memoryview, at_most: int) -> bool:
        """Send of the first piece what may go; False when the receiver takes no more now."""
        try:
            count = sink.sock.send(head[:at_most])
        except BlockingIOError:
            self._wish(sink, on=EVENT_WRITE)
            return False
        except OSError:
            self._lost(sink)
            return False
        if count == len(head):
            flow.out.popleft()
        else:
            flow.out[0] = head[count:]
        flow.carried += count
        if flow.way is Way.UP:
            self._traffic.bytes_up += count
        else:
            self._traffic.bytes_down += count
        self._release(flow, count)
        return True

    def _end(self, flow: Flow) -> None:
        """Tell a receiver that no more comes; what came and was not handed over is dropped."""
        self._forget(flow)
        try:
            if flow.sink is not None:
                flow.sink.sock.shutdown(socket.SHUT_WR)
        except OSError:  # it is gone already
            pass
        self._finish_if_done(flow.connection)

    # Trouble

    def _strike(self, flow: Flow, mishap: Mishap) -> None:
        connection = flow.connection
        connection.had.add(mishap)
        if mishap is Mishap.CUT:
            self._traffic.cuts += 1
            self._finish(connection, reset=True)
        elif mishap is Mishap.HALF_CLOSE:
            self._traffic.half_closes += 1
            self._end(flow)
        else:
            self._traffic.freezes += 1
            connection.frozen_until_s = time.monotonic() + self._line.freeze_s
            self._loop.at(connection.frozen_until_s, lambda: self._push_both(connection))

    def _push_both(self, connection: Connection) -> None:
        self._push(connection.up)
        self._push(connection.down)

    def _cut_all(self) -> None:
        self._traffic.cuts += len(self._connections)
        for connection in list(self._connections):
            self._finish(connection, reset=True)

    def _begin_cuts(self) -> None:
        times, self._cut_clock = cut_times_s(self._line), object()
        clock, began_s = self._cut_clock, time.monotonic()

        def cut() -> None:
            if self._cut_clock is clock:  # else another line has come
                self._cut_all()
                self._loop.at(began_s + next(times, inf), cut)

        self._loop.at(began_s + next(times, inf), cut)

    def _change(self, line: Line) -> None:
        self._line = line
        for lane in self._lanes.values():
            lane.change(line, time.monotonic())
        self._begin_cuts()
        for connection in list(self._connections):
            connection.frozen_until_s = 0.0
            if connection.swallowed and not line.black_hole:
                self._finish(connection, reset=True)
            elif not connection.swallowed and time.monotonic() >= connection.dial_at_s:
                self._dial(connection)
            for flow in (connection.up, connection.down):
                self._release(flow, 0)  # the window may be wider
                self._push(flow)
