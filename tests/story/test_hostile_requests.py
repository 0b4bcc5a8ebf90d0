"""Hostile requests: garbage instead of an association, crowds of contexts, strange titles (H5, H7, H16, H20)."""

from __future__ import annotations

import struct
import time

import pytest

from tests import wire
from tests.conftest import Box
from tests.guard import guarded
from tests.wire import ABORT, ASSOCIATE_AC, ASSOCIATE_RJ, COMMAND, CT, EXPLICIT, LAST, NEVER, VERIFICATION, Wire

INVALID_PDU, NOT_A_PDU, UNEXPECTED_PDU = (2, 6), (2, 1), (2, 2)


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    box = Box(tmp_path_factory.mktemp("requests"))
    yield box.start()
    box.stop()


GARBAGE = {
    "HTTP": (b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n", NOT_A_PDU),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", NOT_A_PDU),
    "TLS ClientHello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), NOT_A_PDU),
    "zeros": (bytes(1000), NOT_A_PDU),
    "type 8": (wire.pdu(8), NOT_A_PDU),
    "request of 4 GB": (wire.pdu(1, b"x" * 1000, NEVER), INVALID_PDU),
    "request of 1 MiB and one byte": (wire.pdu(1, b"x" * 1000, (1 << 20) + 1), INVALID_PDU),
    "empty request": (wire.pdu(1, b""), INVALID_PDU),
    "data before the request": (wire.echo(), UNEXPECTED_PDU),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_what_is_no_request_is_aborted_with_the_reason(box, name):
    """H5, before an association. The cap is 1 MiB: the 128 times 100 syntaxes of H7 do not fit into 64 KiB."""
    content, reason = GARBAGE[name]
    with guarded(box) as watch:
        line = watch.connect().send(content)
        assert wire.abort_reason(line.read()) == reason
        line.half_close()
        assert line.rest() == []


PRIVATE = tuple(f"1.2.840.113619.5.{n}" for n in range(100))
CROWDS = {
    "128 contexts of 100 syntaxes": [(2 * n + 1, CT, PRIVATE) for n in range(128)],
    "129 contexts": [(2 * n + 1 & 0xFF, CT, (EXPLICIT,)) for n in range(129)],
    "every context twice": [(2 * (n % 64) + 1, CT, (EXPLICIT,)) for n in range(128)],
    "128 times the same id": [(1, CT, (f"1.2.{n}",)) for n in range(128)],
}


@pytest.mark.parametrize("name", CROWDS)
def test_a_crowd_of_contexts_is_answered_at_once(box, name):
    """H7: up to 128 are taken, more are rejected; one answer for each id; under 100 ms."""
    with guarded(box) as watch:
        for got in at_once(watch, wire.associate_rq(CROWDS[name])):
            assert got[0] == (ASSOCIATE_RJ if name == "129 contexts" else ASSOCIATE_AC)
            ids = [number for number, _ in results(got[1])] if got[0] == ASSOCIATE_AC else []
            assert ids == sorted({c[0] for c in CROWDS[name]}) or not ids


def at_once(watch, request: bytes) -> list[tuple[int, bytes]]:
    """Ask three times, and return the answers; one in three is free of the machine's own pauses: under 100 ms."""
    took, answers = [], []
    for _ in range(3):
        line = watch.connect()
        started = time.monotonic()
        answers.append(line.send(request).read())
        took.append(time.monotonic() - started)
    assert min(took) < 0.1
    return answers


def results(body: bytes) -> list[tuple[int, int]]:
    """(context id, result) of an A-ASSOCIATE-AC."""
    found, at = [], 68
    while at + 4 <= len(body):
        kind, length = body[at], int.from_bytes(body[at + 2 : at + 4], "big")
        if kind == 0x21:
            found.append((body[at + 4], body[at + 6]))
        at += 4 + length
    return found


USER_ITEMS = {
    "unknown item of nearly 64 KiB": wire.item(0x5F, b"x" * 65000),
    "16 000 empty items": wire.item(0x5F, b"") * 16000,
    "identity of 60 KB": wire.item(0x58, b"\2\1" + struct.pack(">H", 60000) + b"u" * 60000),
    "item over its end": wire.item(0x5F, b"x" * 100, 60000),
}


@pytest.mark.parametrize("name", USER_ITEMS)
def test_huge_user_items_are_read_or_refused_at_once(box, name):
    """H7: user information up to its 64 KiB is stepped over, a lie about a length is refused."""
    with guarded(box) as watch:
        for got in at_once(watch, wire.associate_rq(user=USER_ITEMS[name])):
            assert got[0] == (ABORT if name == "item over its end" else ASSOCIATE_AC)


def test_operations_that_are_not_ours_are_named_so(box):
    """H20: queries and cancels on a storage context neither help nor harm."""
    with guarded(box) as watch:
        line = watch.connect().associate()
        cancel = wire.p_data(wire.pdv(1, COMMAND | LAST, wire.plain_command(wire.C_CANCEL_RQ)))
        line.send(cancel * 1000, wire.p_data(wire.pdv(1, COMMAND | LAST, wire.plain_command(wire.C_FIND_RQ))))
        assert line.status() == 0x0211
        assert line.send(wire.echo()).status() == 0


TITLES = [
    "A\\B",
    "A\r\nroom_broke x=1",
    "\x1b[31m",
    " " * 16,
    "lower",
    "../../etc",
    "+/#",
    "$SYS/x",
    "%s%n{0}",
    "\xff" * 16,
]


@pytest.mark.parametrize("title", TITLES, ids=repr)
def test_a_strange_ae_title_writes_no_line_of_its_own(box, title):
    """H16: taken as a name and nothing else; nothing of it can start a line in the log."""
    before = len(box.log())
    with guarded(box) as watch:
        watch.rows = 1
        uid = f"1.2.826.16.{TITLES.index(title)}"
        line = watch.connect().associate(calling=title, called=title)
        assert line.store(uid, wire.data_set(uid)) == 0
    log = box.log()[before:]
    assert not any(line.lstrip().startswith("room_broke x=1") for line in log.splitlines())
    assert all(character.isprintable() or character == "\n" for character in log)


def test_titles_that_are_not_known_are_rejected_with_the_reason(make_box):
    """H16: 1,1,7 for the called, 1,1,3 for the calling title, however they are written."""
    rules = '[admit]\nunknown_senders = "reject"\n[[modality]]\nname = "ct"\nae_title = "CT1"'
    box = make_box(more=rules, listener='called_ae_titles = ["EDGEGW"]').start()
    for title in [title for title in TITLES if title.strip()]:
        with Wire(box.port) as line:
            assert line.send(wire.associate_rq(calling="CT1", called=title)).read() == (3, bytes((0, 1, 1, 7)))
        with Wire(box.port) as line:
            assert line.send(wire.associate_rq(calling=title)).read() == (3, bytes((0, 1, 1, 3)))
    with Wire(box.port) as line:
        line.associate(((1, VERIFICATION, (EXPLICIT,)),), calling="CT1").release()


def test_the_guard_sees_what_it_is_there_to_see(box):
    """Negative control: an object that nobody expected, and a success that nobody can stand for."""
    uid = "1.2.826.20.1"
    with pytest.raises(AssertionError, match="1 ledger rows instead of 0"):
        with guarded(box) as watch:
            watch.connect().associate().store(uid, wire.data_set(uid))
    with pytest.raises(AssertionError, match="1 successes told, 0 objects in custody"):
        with guarded(box) as watch:
            line = watch.connect().associate()
            line.answered.append(wire.Answer(wire.C_STORE_RQ | wire.RSP, 1, 0x0000, uid))
