"""An archive on raw sockets that writes down what it got, commits to it, and misbehaves as it is told.

A behaviour is asked at the points of a connection's life (`connect`, `associate`, `piece`, `whole`, `stored`, `echo`,
`action`, `report`) and either does nothing or ends the matter by raising `Over` or `Answered`. What ends before
`stored` is not kept.
"""

from __future__ import annotations

import hashlib
import io
import socket
import struct
import threading
import time
from collections.abc import Callable

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pynetdicom.dsutils import encode

from tests import wire
from tests.crash.oracle import Object
from tests.ports import hang_up

COMMITMENT, WELL_KNOWN = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
N_EVENT_REPORT, N_ACTION = 0x0100, 0x0130
PIECE = 4096
"""How finely a misbehaving archive counts; a good one reads what comes."""
HANG_S = 60.0
"""A peer that hangs lets go when whoever waits closes, or after this."""


class Over(Exception):
    """Nothing more happens on this connection."""


class Answered(Exception):
    """The request was answered already, and nothing was stored; the connection goes on."""


class Line:
    """One connection, from the archive's side."""

    def __init__(self, sock: socket.socket, archive: Server) -> None:
        self.sock, self.archive = sock, archive
        self.carried = 0
        """Bytes read since the association was accepted, or the request began."""
        self.uid, self.message_id, self.context_id = "", 0, 0

    def ask(self, point: str) -> None:
        self.archive.behave(self, point)

    def read(self, count: int) -> bytes:
        """Read exactly so many bytes, and ask at every piece."""
        got = bytearray()
        while len(got) < count:
            block = self.sock.recv(count - len(got) if self.archive.behaviour is good else min(PIECE, count - len(got)))
            if not block:
                raise Over
            got += block
            self.carried += len(block)
            self.ask("piece")
        return bytes(got)

    def send(self, *blocks: bytes) -> None:
        self.sock.sendall(b"".join(blocks))

    def met(self) -> None:
        """The behaviour has struck."""
        self.archive.met += 1

    def reset(self) -> None:
        self.met()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Over

    def close(self) -> None:
        self.met()
        raise Over

    def hang(self, *, reading: bool = False) -> None:
        """Say nothing more; read on, or leave what comes in the buffers."""
        self.met()
        deadline = time.monotonic() + HANG_S
        self.sock.settimeout(0.1)
        while time.monotonic() < deadline and not self.archive.over.is_set() and self.archive.still(self):
            try:
                if not self.sock.recv(PIECE if reading else 1, 0 if reading else socket.MSG_PEEK):
                    break
            except TimeoutError:
                continue
            if not reading:
                time.sleep(0.05)
        raise Over

    def half_close(self) -> None:
        """Say that nothing more comes, and read on."""
        self.sock.shutdown(socket.SHUT_WR)
        self.hang(reading=True)

    def answer(self, block: bytes) -> None:
        """Answer instead of the archive."""
        self.met()
        self.send(block)
        raise Answered

    def drip(self, block: bytes, pause_s: float) -> None:
        """Send byte by byte, and nothing after that."""
        self.met()
        for at in range(len(block)):
            self.sock.sendall(block[at : at + 1])
            time.sleep(pause_s)
        raise Over

    def pour(self, block: bytes) -> None:
        """Send the same for ever."""
        self.met()
        deadline = time.monotonic() + HANG_S
        while time.monotonic() < deadline and not self.archive.over.is_set():
            self.sock.sendall(block)
        raise Over

    def store_response(self, status: int, message_id: int | None = None, uid: str | None = None) -> bytes:
        return wire.p_data(
            wire.pdv(
                self.context_id,
                wire.COMMAND | wire.LAST,
                wire.command(
                    (0x0002, wire.even(wire.CT)),
                    (0x0100, wire.us(wire.C_STORE_RQ | wire.RSP)),
                    (0x0120, wire.us(self.message_id if message_id is None else message_id)),
                    (0x0800, wire.us(0x0101)),
                    (0x0900, wire.us(status)),
                    (0x1000, wire.even(uid or self.uid)),
                ),
            )
        )


Behaviour = Callable[[Line, str], None]


def good(line: Line, point: str) -> None:
    """What an archive is supposed to do."""


class Server:
    """Accepts connections; what a subclass speaks is in `serve`."""

    def __init__(self) -> None:
        self.received: set[Object] = set()
        self.times: dict[str, int] = {}
        """How often each SOP Instance came whole."""
        self.met = 0
        self.over = threading.Event()
        self.behaviour: Behaviour = good
        self.lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def behave(self, line: Line, point: str) -> None:
        self.behaviour(line, point)

    def still(self, line: Line) -> bool:
        """False once the behaviour was changed: who hangs lets go then."""
        return self.behaviour is not good

    def keep(self, uid: str, body: bytes) -> None:
        with self.lock:
            self.received.add((uid, hashlib.sha256(body).hexdigest()))
            self.times[uid] = self.times.get(uid, 0) + 1

    def serve(self, line: Line) -> None:
        raise NotImplementedError

    def _accept(self) -> None:
        while not self.over.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._live, args=(sock,), daemon=True).start()

    def _live(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(HANG_S)
        line = Line(sock, self)
        with sock:
            try:
                line.ask("connect")
                self.serve(line)
            except (Over, OSError):
                pass

    def close(self) -> None:
        self.over.set()
        hang_up(self._listener)


def elements(body: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 8 <= len(body):
        _, number, count = struct.unpack_from("<HHI", body, at)
        found[number] = body[at + 8 : at + 8 + count]
        at += 8 + count
    return found


def contexts_of(request: bytes) -> list[tuple[int, str, str]]:
    """(id, Abstract Syntax, first Transfer Syntax) of each proposed context."""
    found, at = [], 68
    while at + 4 <= len(request):
        kind, length = struct.unpack_from(">BxH", request, at)
        value, at = request[at + 4 : at + 4 + length], at + 4 + length
        if kind == 0x20:
            abstract = struct.unpack_from(">H", value, 6)[0]
            uid = value[8 : 8 + abstract].decode().rstrip("\0")
            syntax = struct.unpack_from(">H", value, 10 + abstract)[0]
            found.append((value[0], uid, value[12 + abstract : 12 + abstract + syntax].decode()))
    return found


class DimseArchive(Server):
    """C-STORE, C-ECHO and storage commitment as SCP; reports on the association of the request."""

    def __init__(self) -> None:
        super().__init__()
        self.committed = 0

    def serve(self, line: Line) -> None:
        body = self._pdu(line, wire.ASSOCIATE_RQ)
        line.ask("associate")
        accepted = [one for one in contexts_of(body) if one[1] != COMMITMENT or one[2] == wire.IMPLICIT]
        line.send(accept(body, accepted))
        line.carried = 0
        while True:
            command, data = self._message(line)
            try:
                self._answer(line, command, data)
            except Answered:
                continue

    def _pdu(self, line: Line, wanted: int) -> bytes:
        kind, length = struct.unpack(">BxI", line.read(6))
        body = line.read(length)
        if kind == wire.RELEASE_RQ:
            line.send(wire.pdu(wire.RELEASE_RP))
        if kind != wanted:
            raise Over
        return body

    def _message(self, line: Line) -> tuple[dict[int, bytes], bytes]:
        command, data, told = b"", bytearray(), False
        while True:
            body, at = self._pdu(line, wire.P_DATA), 0
            while at + 6 <= len(body):
                length, line.context_id, flags = struct.unpack_from(">IBB", body, at)
                payload, at = body[at + 6 : at + 4 + length], at + 4 + length
                if flags & wire.COMMAND:
                    command += payload
                    told = bool(flags & wire.LAST)
                else:
                    data += payload
                found = elements(command) if told else {}
                if told and (found.get(0x0800) == wire.us(0x0101) or (flags & wire.LAST and not flags & wire.COMMAND)):
                    return found, bytes(data)

    def _answer(self, line: Line, command: dict[int, bytes], data: bytes) -> None:
        field = int.from_bytes(command[0x0100], "little")
        line.message_id = int.from_bytes(command.get(0x0110, b""), "little")
        if field == wire.C_STORE_RQ:
            line.uid = command[0x1000].decode().strip("\0 ")
            line.ask("whole")
            self.keep(line.uid, data)
            line.ask("stored")
            line.send(line.store_response(0x0000))
        elif field == wire.C_ECHO_RQ:
            line.ask("echo")
            line.send(response(line, field, wire.VERIFICATION))
        elif field == N_ACTION:
            line.ask("action")
            line.send(response(line, field, COMMITMENT, (0x1000, wire.even(WELL_KNOWN)), (0x1008, wire.us(1))))
            line.ask("report")
            self._report(line, read_dataset(io.BytesIO(data), is_implicit_VR=True, is_little_endian=True))

    def _report(self, line: Line, asked: Dataset) -> None:
        with self.lock:
            have = {uid for uid, _ in self.received}
        report, here, gone = Dataset(), [], []
        report.TransactionUID = asked.TransactionUID
        for item in asked.ReferencedSOPSequence:
            if item.ReferencedSOPInstanceUID in have:
                here.append(item)
            else:
                item.FailureReason = 0x0112
                gone.append(item)
        if here:
            report.ReferencedSOPSequence = here
        if gone:
            report.FailedSOPSequence = gone
        self.committed += len(here)
        command = wire.command(
            (0x0002, wire.even(COMMITMENT)),
            (0x0100, wire.us(N_EVENT_REPORT)),
            (0x0110, wire.us(1)),
            (0x0800, wire.us(0x0001)),
            (0x1000, wire.even(WELL_KNOWN)),
            (0x1002, wire.us(2 if gone else 1)),
        )
        line.send(wire.p_data(wire.pdv(line.context_id, wire.COMMAND | wire.LAST, command)))
        content = encode(report, True, True) or b""
        for at in range(0, len(content), 16000):
            last = wire.LAST if at + 16000 >= len(content) else 0
            line.send(wire.p_data(wire.pdv(line.context_id, last, content[at : at + 16000])))


def response(line: Line, field: int, sop_class: str, *more: tuple[int, bytes], status: int = 0) -> bytes:
    """A response without a data set."""
    usual = [(0x0002, wire.even(sop_class)), (0x0100, wire.us(field | wire.RSP)), (0x0120, wire.us(line.message_id))]
    usual += [(0x0800, wire.us(0x0101)), (0x0900, wire.us(status)), *more]
    return wire.p_data(wire.pdv(line.context_id, wire.COMMAND | wire.LAST, wire.command(*sorted(usual))))


def accept(request: bytes, accepted: list[tuple[int, str, str]]) -> bytes:
    """An A-ASSOCIATE-AC for these contexts (PS3.8 9.3.3)."""
    contexts = b"".join(
        wire.item(0x21, bytes((number, 0, 0, 0)) + wire.item(0x40, syntax.encode())) for number, _, syntax in accepted
    )
    user = wire.item(0x50, wire.item(0x51, struct.pack(">I", 16384)) + wire.item(0x52, b"1.2.3.4"))
    name = wire.item(0x10, b"1.2.840.10008.3.1.1.1")
    return wire.pdu(wire.ASSOCIATE_AC, request[:68] + name + contexts + user)
