"""Hostile and broken scanners: they never block others, never grow memory, never make half an object whole."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
from dataclasses import replace

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE

from gateway.dicom import listener as listener_module
from gateway.dicom.association import Association
from gateway.dicom.command import C_ECHO_RQ, C_STORE_RQ, Response, request_command
from gateway.dicom.listener import Listener
from gateway.dicom.pdu_stream import Patience
from gateway.dicom.requestor import Peer, PeerFailed, Requestor, request_pdu
from gateway.dicom.services import Rejection, gathered, verification
from gateway.model.errors import Refused

CT, ELE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
FIND, MOVE = "1.2.840.10008.5.1.4.1.2.1.1", "1.2.840.10008.5.1.4.1.2.1.2"
C_FIND_RQ = 0x0020
VERIFICATION = ("1.2.840.10008.1.1", "1.2.840.10008.1.2")


class Sink:
    def __init__(self, door):
        self.door, self.content = door, bytearray()

    def write(self, fragment):
        if self.door.refuse_after is not None and len(self.content) >= self.door.refuse_after:
            raise Refused(0xA700, "full")
        self.content += fragment

    def finish(self):
        if self.door.broken:
            raise ValueError("a bug of ours")
        self.door.finished.append(bytes(self.content))
        return [Response(0)]

    def abandon(self):
        self.door.abandoned += 1


class Door:
    def __init__(self):
        self.finished, self.abandoned, self.rejection, self.refuse_after, self.broken = [], 0, None, None, False
        self.services = {C_ECHO_RQ: verification, C_STORE_RQ: lambda request: Sink(self), C_FIND_RQ: find}

    def admit(self, facts):
        return self.rejection

    def errand(self, facts, abstract_syntaxes):
        return None

    def offers(self, abstract_syntax):
        return abstract_syntax != MOVE


@gathered
def find(request, identifier):
    """Two matches, each the identifier doubled, then the end."""
    return [Response(0xFF00, data_set=identifier * 2), Response(0xFF00, data_set=b""), Response(0)]


@pytest.fixture
def door():
    return Door()


PATIENT = Patience(idle_s=30.0, artim_s=30.0, pdu_s=30.0, reply_s=30.0, finish_s=0.5)
"""With who means well: a deadline holds for them, too, and they may be held up."""
IMPATIENT = replace(PATIENT, artim_s=0.5, pdu_s=0.5, min_bytes_per_s=1e6)


@pytest.fixture
def listener(door):
    listener = Listener(
        "127.0.0.1", 0, door, lambda name, target: threading.Thread(target=target, daemon=True).start(),
        max_pdu_bytes=16384, idle_timeout_s=PATIENT.idle_s, max_associations=8, max_per_address=6, patience=PATIENT,
    )  # fmt: skip
    stop = threading.Event()
    thread = threading.Thread(target=listener.run, args=(stop, lambda: None))
    thread.start()
    yield listener
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def peer(listener):
    return Peer("127.0.0.1", listener.port, "BOX", "CT", 30.0)


def open_raw(listener, contexts=((CT, ELE),)):
    """A raw socket with an established association."""
    raw = socket.create_connection(("127.0.0.1", listener.port), 30)
    raw.sendall(request_pdu(peer(listener), list(contexts)))
    assert raw.recv(65536)[0] == 0x02
    return raw


@pytest.fixture
def intruders(listener, monkeypatch, wait_until):
    """Raw sockets with which, and with no one else, the listener is impatient."""

    def come(count):
        served = []

        def association(connection, facts, door, max_pdu_bytes, wait):
            served.append(Association(connection, facts, door, max_pdu_bytes, IMPATIENT))
            return served[-1]

        with monkeypatch.context() as hurried:
            hurried.setattr(listener_module, "Association", association)
            raws = [socket.create_connection(("127.0.0.1", listener.port), 30) for _ in range(count)]
            assert wait_until(lambda: len(served) == count)
        return raws

    return come


def hurry(listener, **deadlines):
    """Let the listener lose patience with the one who is there."""
    (association,) = listener._open
    association._wait = replace(PATIENT, **deadlines)


def pdata(context_id, flags, payload):
    return struct.pack(">BBIIBB", 4, 0, len(payload) + 6, len(payload) + 2, context_id, flags) + payload


def echo_works(listener):
    requestor = Requestor(peer(listener), [VERIFICATION])
    status = requestor.echo(1)
    requestor.release()
    return status == 0


def ends(raw):
    """Everything until the peer closes, bounded."""
    raw.settimeout(30)
    got = b""
    try:
        while block := raw.recv(65536):
            got += block
    except ConnectionResetError:
        pass
    return got


def test_dcmtk_verifies(listener):
    assert subprocess.run(["echoscu", "127.0.0.1", str(listener.port)]).returncode == 0


@pytest.mark.parametrize("size", [0, 1, 5000, 300_001])
def test_a_body_of_any_size_arrives_whole(listener, door, size):
    requestor = Requestor(peer(listener), [(CT, ELE)])
    content = os.urandom(size)
    assert requestor.store(1, CT, "1.2", [content])[0] == 0
    requestor.release()
    assert door.finished == [content]


@pytest.mark.parametrize(
    "bytes_",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x01\x00\xff\xff\xff\xff" + b"x" * 100,
        b"\x01\x00\x00\x00\x00\x04abcd",
        b"\x04\x00\x00\x00\x00\x0a\x00\x00\x00\x06\x01\x03abcd",
        b"\x00" * 1000,
        b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00",
        os.urandom(5000),
    ],
)
def test_garbage_ends_only_its_own_connection(listener, intruders, bytes_):
    (raw,) = intruders(1)
    with raw:
        raw.sendall(bytes_)
        assert echo_works(listener)
        ends(raw)
    assert echo_works(listener)


def test_silent_and_dripping_clients_are_let_go(listener, intruders):
    silent = intruders(3)
    silent[0].sendall(b"\x01\x00\x00")
    assert echo_works(listener)
    for raw in silent:
        assert ends(raw) == b""
    assert echo_works(listener)


def test_too_many_from_one_address_are_turned_away_and_room_comes_back(listener, wait_until):
    held = [open_raw(listener) for _ in range(6)]
    with socket.create_connection(("127.0.0.1", listener.port), 30) as raw:
        assert ends(raw)[:1] == b"\x03"
    for raw in held:
        raw.close()
    assert wait_until(lambda: not listener.associations)
    assert echo_works(listener)


def half_an_object(raw):
    raw.sendall(pdata(1, 0x03, request_command(1, 1, CT, "1.2.3")))
    raw.sendall(pdata(1, 0x00, b"x" * 1000))


def test_a_connection_that_breaks_leaves_nothing(listener, door, wait_until):
    raw = open_raw(listener)
    half_an_object(raw)
    raw.close()
    assert wait_until(lambda: door.abandoned)
    assert (door.abandoned, door.finished) == (1, [])


@pytest.mark.parametrize(
    "next_bytes",
    [
        struct.pack(">BBIIBB", 4, 0, 20, 400, 1, 0) + b"x" * 14,
        struct.pack(">BBIIBB", 4, 0, 6, 1, 1, 0),
        struct.pack(">BBI", 4, 0, 0xFFFFFFF0),
        pdata(3, 0x02, b"x"),
        pdata(1, 0x03, b"\0" * 8),
        struct.pack(">BBI", 9, 0, 4) + b"abcd",
    ],
    ids=["pdv over its pdu", "pdv too short", "giant", "other context", "command inside data", "unknown type"],
)
def test_nonsense_inside_an_object_never_makes_it_whole(listener, door, next_bytes):
    raw = open_raw(listener)
    hurry(listener, artim_s=0.5)
    half_an_object(raw)
    raw.sendall(next_bytes)
    assert ends(raw)[:1] == b"\x07"
    assert (door.abandoned, door.finished) == (1, [])


def test_an_object_that_stalls_is_given_up(listener, door):
    raw = open_raw(listener)
    hurry(listener, artim_s=0.5, idle_s=1.0)
    half_an_object(raw)
    assert ends(raw)[:1] == b"\x07"
    assert (door.abandoned, door.finished) == (1, [])


def test_a_refusal_is_answered_after_the_rest_was_drained(listener, door):
    door.refuse_after = 1000
    requestor = Requestor(peer(listener), [(CT, ELE)])
    assert requestor.store(1, CT, "1.2", [b"x" * 200_000])[0] == 0xA700
    door.refuse_after = None
    assert requestor.store(1, CT, "1.2", [b"y" * 200_000])[0] == 0
    requestor.release()


def test_a_bug_of_ours_is_never_told_as_success(listener, door):
    door.broken = True
    requestor = Requestor(peer(listener), [(CT, ELE)])
    assert requestor.store(1, CT, "1.2", [b"x" * 100])[0] == 0x0110
    assert door.finished == []


def test_a_rejected_association_says_why(listener, door):
    door.rejection = Rejection(2, 3, 2)
    with pytest.raises(PeerFailed, match="local limit"):
        Requestor(peer(listener), [VERIFICATION])


def test_a_context_that_was_not_accepted_is_answered_not_aborted(listener, door):
    requestor = Requestor(peer(listener), [(MOVE, ELE), (CT, ELE)])
    assert (MOVE, ELE) not in requestor.accepted
    assert requestor.store(1, CT, "1.2", [b"x" * 10])[0] == 0x0122
    assert requestor.store(3, CT, "1.2", [b"x" * 10])[0] == 0
    assert door.finished == [b"x" * 10]


def test_several_pdvs_in_one_pdu_and_private_classes(listener, door):
    raw = open_raw(listener, contexts=(("1.3.6.1.4.1.99999.7", "1.3.6.1.4.1.99999.8"),))
    command = request_command(1, 1, "1.3.6.1.4.1.99999.7", "1.2.3")
    items = [(0x03, command), (0x00, b"abc"), (0x00, b""), (0x02, b"def")]
    body = b"".join(struct.pack(">IBB", len(p) + 2, 1, f) + p for f, p in items)
    raw.sendall(struct.pack(">BBI", 4, 0, len(body)) + body)
    raw.settimeout(30)
    assert raw.recv(65536)[0] == 0x04
    assert door.finished == [b"abcdef"]
    raw.close()


def test_a_service_answers_with_several_data_sets_without_the_loop_knowing_it(listener):
    """By pynetdicom, which has its own reader; the match is longer than its PDUs."""
    ae = AE("ASKER")
    ae.maximum_pdu_size = 4096
    ae.add_requested_context(FIND, ELE)
    association = ae.associate("127.0.0.1", listener.port)
    wanted = Dataset()
    wanted.QueryRetrieveLevel, wanted.PatientComments = "STUDY", "x" * 6000
    answers = list(association.send_c_find(wanted, FIND))
    association.release()
    assert [status.Status for status, _ in answers] == [0xFF00, 0xFF00, 0x0000]
    assert answers[0][1].PatientComments == "x" * 6000


def test_an_identifier_without_end_is_refused(listener):
    raw = open_raw(listener, contexts=((FIND, ELE),))
    command = request_command(C_FIND_RQ, 1, FIND, "1.2.3")
    raw.sendall(pdata(1, 0x03, command))
    for _ in range(40):
        raw.sendall(pdata(1, 0x00, b"x" * 60_000))
    raw.sendall(pdata(1, 0x02, b"x"))
    raw.settimeout(30)
    assert b"\x00\xa7" in raw.recv(65536)
    raw.close()


def test_a_command_that_comes_in_two_contexts_is_none(listener, door):
    raw = open_raw(listener, contexts=((CT, ELE), (FIND, ELE)))
    hurry(listener, artim_s=0.5)
    command = request_command(C_STORE_RQ, 1, CT, "1.2.3")
    raw.sendall(pdata(3, 0x01, command[:20]) + pdata(1, 0x03, command[20:]) + pdata(1, 0x02, b"x"))
    assert ends(raw)[:1] == b"\x07"
    assert door.finished == []


def test_a_response_with_a_data_set_is_read_over_and_nothing_is_said_to_it(listener, door):
    raw = open_raw(listener, contexts=((CT, ELE), ("1.2.840.10008.1.1", ELE)))
    response = bytearray(request_command(C_STORE_RQ, 1, CT, "1.2.3"))
    at = response.index(b"\x00\x00\x00\x01\x02\x00\x00\x00") + 8
    response[at : at + 2] = b"\x01\x80"
    raw.sendall(pdata(1, 0x03, bytes(response)) + pdata(1, 0x02, b"a reply to an event"))
    raw.sendall(pdata(3, 0x03, request_command(C_ECHO_RQ, 7, "1.2.840.10008.1.1")))
    raw.settimeout(30)
    answer = raw.recv(65536)
    assert answer[0] == 0x04 and b"\x30\x80" in answer
    assert len(answer) == 6 + int.from_bytes(answer[2:6], "big"), "more than the one answer"
    assert door.finished == []
    raw.close()
