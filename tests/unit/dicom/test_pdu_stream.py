"""PDUs off a socket: however they are cut and however many come at once, the data set is the same."""

from __future__ import annotations

import random
import socket
import struct
import threading
from contextlib import closing

import pytest

from gateway.dicom.negotiation import Malformed
from gateway.dicom.pdu_stream import BUFFER_BYTES, COMMAND, LAST, Control, Patience, PduStream, PeerClosed
from tests.wire import p_data, pdu, pdv

RELEASE = 0x05


@pytest.fixture
def line():
    ours, peer = socket.socketpair()
    with closing(ours), closing(peer):
        yield PduStream(ours, Patience(pdu_s=30.0)), peer


def fed(peer: socket.socket, *blocks: bytes) -> threading.Thread:
    """Send from another thread, since a whole data set does not fit into the socket."""
    thread = threading.Thread(target=lambda: [peer.sendall(block) for block in blocks], daemon=True)
    thread.start()
    return thread


def read_data(stream: PduStream) -> tuple[bytes, int]:
    """Return the data set up to its last fragment, and in how many pieces it came."""
    content, pieces = bytearray(), 0
    while True:
        got = stream.read(30.0)
        assert not isinstance(got, Control) and not got.is_command and got.context_id == 1
        content += got.payload
        pieces += 1
        if got.ends_message:
            return bytes(content), pieces


@pytest.mark.parametrize("seed", range(30))
def test_a_data_set_is_the_same_however_it_is_cut(line, seed):
    stream, peer = line
    luck = random.Random(seed)
    data = luck.randbytes(luck.choice((0, 1, 700, 70_000, 3 * BUFFER_BYTES)))
    longest = luck.choice((1, 64, 4096, 65530, 200_000)) if len(data) < 1000 else luck.choice((4096, 65530, 200_000))
    fragments = [data[at : at + longest] for at in range(0, len(data), longest)] or [b""]
    if luck.random() < 0.3:
        fragments.append(b"")
    pdvs = [pdv(1, LAST * (number == len(fragments) - 1), part) for number, part in enumerate(fragments)]
    together = luck.choice((1, 1, 1, 2, 5))
    wire = b"".join(p_data(*pdvs[at : at + together]) for at in range(0, len(pdvs), together)) + pdu(RELEASE)
    cuts = sorted(luck.randrange(len(wire)) for _ in range(luck.choice((0, 0, 3, 40))))
    sending = fed(peer, *(wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)))
    assert read_data(stream)[0] == data
    assert stream.read(30.0) == Control(RELEASE, b"\0" * 4)
    assert stream.idle
    sending.join()


def test_what_is_here_already_is_one_piece(line):
    stream, peer = line
    parts = [bytes([number]) * 4000 for number in range(20)]
    peer.sendall(b"".join(p_data(pdv(1, LAST * (number == 19), part)) for number, part in enumerate(parts)))
    assert read_data(stream) == (b"".join(parts), 1)


@pytest.mark.parametrize(
    "following",
    [
        p_data(pdv(3, 0, b"x" * 20)),
        p_data(pdv(1, COMMAND, b"x" * 20)),
        p_data(pdv(1, 0x80, b"x" * 20)),
        p_data(pdv(1, 0, b"x" * 20), pdv(1, 0, b"y" * 20)),
        pdu(RELEASE, b"\0" * 20),
    ],
)
def test_what_is_not_the_next_fragment_is_not_taken_for_it(line, following):
    stream, peer = line
    peer.sendall(p_data(pdv(1, 0, b"a" * 100)) + following)
    got = stream.read(30.0)
    assert bytes(got.payload) == b"a" * 100 and not got.ends_message
    second = stream.read(30.0)
    if isinstance(second, Control):
        assert second.kind == RELEASE
    else:
        assert bytes(second.payload) == b"x" * 20
        assert (second.context_id, second.is_command) == (following[10], bool(following[11] & COMMAND))


@pytest.mark.parametrize("length", [1, 22, 24, 1 << 25])
def test_a_lie_about_a_length_behind_a_good_fragment_is_found(line, length):
    stream, peer = line
    body = pdv(1, 0, b"x" * 17)
    good = p_data(pdv(1, 0, b"a" * 100))
    peer.sendall(good + struct.pack(">BBI", 4, 0, length) + body)
    assert bytes(stream.read(30.0).payload) == b"a" * 100
    with pytest.raises(Malformed):
        for _ in range(3):
            stream.read(30.0)


def test_a_slow_reader_gets_every_byte_and_a_dead_one_is_given_up(line):
    stream, peer = line
    answer = random.Random(1).randbytes(8 << 20)
    got = bytearray()

    def read_slowly() -> None:
        while len(got) < len(answer):
            got.extend(peer.recv(100_000))

    reading = threading.Thread(target=read_slowly, daemon=True)
    reading.start()
    stream.send(answer, 30.0)
    reading.join(30)
    assert bytes(got) == answer
    with pytest.raises(TimeoutError):
        stream.send(answer, 0.1)
    peer.close()
    with pytest.raises(OSError, match=r"pipe|reset"):
        stream.send(answer, 5.0)


def test_silence_and_the_end_are_told_apart(line):
    stream, peer = line
    with pytest.raises(TimeoutError):
        stream.read(0.05)
    peer.shutdown(socket.SHUT_WR)
    with pytest.raises(PeerClosed):
        stream.read(30.0)
