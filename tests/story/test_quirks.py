"""What legacy scanners do on the way in, each shown by a client that does it (quirks Q1 to Q18)."""

from __future__ import annotations

import os
import socket
import statistics
import struct
import subprocess
import time

import pytest

from tests import wire
from tests.conftest import Box
from tests.guard import guarded
from tests.wire import (
    ABORT,
    COMMAND,
    CT,
    EXPLICIT,
    IMPLICIT,
    LAST,
    RELEASE_RP,
    RELEASE_RQ,
    VERIFICATION,
    even,
    explicit,
)

IDLE_S = 3
SCANNER = "127.0.0.2"


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    """A gateway whose only destination is down: nothing on the way in may wait for it."""
    nobody = '[[destination]]\nname = "pacs"\nkind = "dimse"\nhost = "127.0.0.1"\nport = 1\nae_title = "ANY"\n'
    box = Box(tmp_path_factory.mktemp("quirks"), nobody, listener=f"idle_timeout_s = {IDLE_S}")
    yield box.start()
    box.stop()


def kept(box, body: bytes) -> wire.Custody:
    """The object in custody with exactly these bytes."""
    found = [one for one in wire.shelves(box.folder / "data").values() if one.body == body]
    assert len(found) == 1, "not in custody byte for byte"
    return found[0]


def sends(box, uid: str, body: bytes | None = None, contexts=wire.STORAGE, sop_class=CT, **told) -> wire.Custody:
    """One object on an association of its own, through to custody."""
    body = wire.data_set(uid) if body is None else body
    with guarded(box) as watch:
        watch.rows = 1
        line = watch.connect().associate(contexts, **told)
        assert line.store(uid, body, contexts[0][0], sop_class=sop_class) == 0
        line.release()
    return kept(box, body)


def accepted(body: bytes) -> dict[int, tuple[int, str]]:
    """Context id -> (result, Transfer Syntax) of an A-ASSOCIATE-AC."""
    found, at = {}, 68
    while at + 4 <= len(body):
        kind, length = body[at], int.from_bytes(body[at + 2 : at + 4], "big")
        if kind == 0x21:
            found[body[at + 4]] = (body[at + 6], body[at + 12 : at + 4 + length].decode("latin-1"))
        at += 4 + length
    return found


def proposes(box, contexts, **told) -> dict[int, tuple[int, str]]:
    with wire.Wire(box.port, SCANNER) as line:
        kind, body = line.send(wire.associate_rq(contexts, **told)).read()
        assert kind == wire.ASSOCIATE_AC
        return accepted(body)


def test_a_scanner_without_a_name_is_served(box):
    """Q1: sixteen spaces as calling AE title."""
    held = sends(box, "1.2.826.71.1", calling=" " * 16)
    assert held.label["origin"]["calling_ae_title"] == ""


def test_a_scanner_without_a_name_is_known_by_its_address(make_box):
    """Q1: with strangers locked out, the address is identity enough."""
    rules = '[admit]\nunknown_senders = "reject"\n[[modality]]\nname = "us"\naddress = "127.0.0.2/32"'
    box = make_box(more=rules).start()
    with wire.Wire(box.port, SCANNER) as line:
        assert line.associate(calling=" " * 16).store("1.2.826.71.2", wire.data_set("1.2.826.71.2")) == 0
    with wire.Wire(box.port, "127.0.0.3") as line:
        assert line.send(wire.associate_rq(calling=" " * 16)).read() == (wire.ASSOCIATE_RJ, bytes((0, 1, 1, 3)))


@pytest.mark.parametrize("title", [b"CT1\0\0\0", b"\0" * 16, b"CT1\0garbage\xff\xfe", b"CT\t1"], ids=repr)
def test_titles_with_nuls_and_garbage_are_tolerated(box, title):
    """Q2: NULs are stripped, reserved bytes are never tested, and the reply repeats what came."""
    uid = f"1.2.826.72.{len(title)}.{sum(title)}"
    held = sends(box, uid, calling=title, called=title, reserved=b"\xa5" * 32)
    assert "\0" not in held.label["origin"]["calling_ae_title"]
    with wire.Wire(box.port, SCANNER) as line:
        _, body = line.send(wire.associate_rq(calling=title, reserved=b"\xa5" * 32)).read()
        assert body[20:36] == title.ljust(16)


@pytest.mark.parametrize("called", ["edgegw", "STORE_SCP", "ANY-SCP"])
def test_a_scanner_that_calls_us_by_another_name_is_served(box, called):
    """Q3: whatever it calls us, unless the listener is told to insist."""
    assert sends(box, f"1.2.826.73.{sum(called.encode())}", called=called).label["origin"]["called_ae_title"] == called


def test_another_name_is_warned_of(box):
    """Q3: accepted, but somebody should know."""
    before = len(box.log())
    proposes(box, wire.STORAGE, called="WRONG_NAME")
    assert any("called" in line for line in box.log()[before:].splitlines())


@pytest.mark.parametrize("padding", [b"", b"\0", b" ", b"\0\0", b" \0"], ids=repr)
def test_padded_and_odd_uids_are_compared_without_and_kept_with_their_padding(box, padding):
    """Q4: in the negotiation and in the data set."""
    uid = f"1.2.826.74.{padding.hex() or 0}"
    contexts = ((1, CT.encode() + padding, (EXPLICIT.encode() + padding,)),)
    body = explicit(0x00080016, "UI", CT.encode() + padding) + explicit(0x00080018, "UI", uid.encode() + padding)
    held = sends(box, uid, body, contexts, CT.encode() + padding)
    assert (held.label["sop_class_uid"], held.label["transfer_syntax_uid"]) == (CT, EXPLICIT)
    assert held.label["sop_instance_uid"] == uid


@pytest.mark.parametrize(
    "uid", ["1.02.0003", "1.2.826.75." + "7" * 53, "1.2.826.75." + "7" * 54, "1.2.826.75." + "7" * 89]
)
def test_uids_against_the_rules_are_served(box, uid):
    """Q5: leading zeros, and more than 64 characters."""
    assert sends(box, uid).label["sop_instance_uid"] == uid


@pytest.mark.parametrize("syntax", ["2.16.840.1.113709.1.2.1", "1.2.840.113619.5.2", "1.2.3." + "4" * 58])
def test_a_private_transfer_syntax_is_taken_and_kept_opaque(box, syntax):
    """Q6: GE's and everybody's own."""
    uid = f"1.2.826.76.{len(syntax)}.{sum(syntax.encode())}"
    body = bytes(range(256)) * 4 + uid.encode()
    assert sends(box, uid, body, ((1, CT, (syntax,)),)).label["transfer_syntax_uid"] == syntax


@pytest.mark.parametrize("sop_class", ["1.3.46.670589.2.5.1.1", "1.2.840.113619.4.30", "1.3.12.2.1107.5.9.1"])
def test_private_sop_classes_are_storage(box, sop_class):
    """Q7: Philips, GE, Siemens."""
    uid = f"1.2.826.77.{len(sop_class)}.{sum(sop_class.encode())}"
    held = sends(box, uid, wire.data_set(uid, sop_class=sop_class), ((1, sop_class, (EXPLICIT,)),), sop_class)
    assert held.label["sop_class_uid"] == sop_class


RETIRED = {
    "Ultrasound": "1.2.840.10008.5.1.4.1.1.6",
    "Ultrasound Multi-frame": "1.2.840.10008.5.1.4.1.1.3",
    "Nuclear Medicine": "1.2.840.10008.5.1.4.1.1.5",
    "Standalone Overlay": "1.2.840.10008.5.1.4.1.1.8",
    "Standalone Curve": "1.2.840.10008.5.1.4.1.1.9",
    "Standalone Modality LUT": "1.2.840.10008.5.1.4.1.1.10",
    "Standalone PET Curve": "1.2.840.10008.5.1.4.1.1.129",
    "Hardcopy Grayscale": "1.2.840.10008.5.1.1.29",
    "Hardcopy Color": "1.2.840.10008.5.1.1.30",
    "Stored Print": "1.2.840.10008.5.1.1.27",
}


def test_retired_sop_classes_are_storage(box):
    """Q8: accepted as contexts, and stored."""
    contexts = tuple((2 * n + 1, uid, (IMPLICIT,)) for n, uid in enumerate(RETIRED.values()))
    with guarded(box) as watch:
        watch.rows = len(RETIRED)
        line = watch.connect().associate(contexts)
        for number, sop_class, _ in contexts:
            uid = f"1.2.826.78.{number}"
            assert line.store(uid, wire.data_set(uid, sop_class=sop_class), number, sop_class=sop_class) == 0
        line.release()


def test_no_storage_context_is_ever_refused(box):
    """Q9: a device that gives up when any one context is refused finds none refused."""
    classes = [CT, *RETIRED.values(), VERIFICATION, *(f"1.2.840.10008.5.1.4.1.1.{n}" for n in range(2, 100))]
    contexts = [(2 * n + 1, uid, (IMPLICIT, EXPLICIT)) for n, uid in enumerate(classes)]
    assert {result for result, _ in proposes(box, contexts).values()} == {0}


def test_a_crowd_of_contexts_is_accepted_in_one_piece(box):
    """Q10: 126 contexts, one for each class and syntax; each keeps its own syntax."""
    syntaxes = [IMPLICIT, EXPLICIT, "1.2.840.10008.1.2.4.50"]
    contexts = [(2 * n + 1, f"1.2.840.10008.5.1.4.1.1.{n // 3 + 1}", (syntaxes[n % 3],)) for n in range(126)]
    assert proposes(box, contexts) == {number: (0, uid) for number, _, (uid,) in contexts}


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_device_that_hangs_up_while_we_accept_disturbs_nobody(box, how):
    """Q10: it closes on our A-ASSOCIATE-AC."""
    with guarded(box) as watch:
        for _ in range(20):
            line = watch.connect().send(wire.associate_rq([(2 * n + 1, CT, (EXPLICIT,)) for n in range(126)]))
            line.reset() if how == "reset" else line.close()


MISLABELLED = {
    "implicit said, explicit sent": lambda uid: wire.data_set(uid),
    "implicit said, big endian sent": lambda uid: struct.pack(">HH2sH", 8, 0x18, b"UI", len(even(uid))) + even(uid),
    "begins with an item": lambda uid: struct.pack("<HHI", 0xFFFE, 0xE000, 8) + uid.encode(),
    "encapsulated pixels": lambda uid: wire.data_set(uid, explicit(0x7FE00010, "OB", b"\xfe\xff\0\xe0", wire.NEVER)),
}  # fmt: skip


@pytest.mark.parametrize("name", MISLABELLED)
def test_a_data_set_that_is_not_in_its_syntax_is_kept_as_it_came(box, name):
    """Q11: nothing on the way in depends on the bytes."""
    uid = f"1.2.826.711.{list(MISLABELLED).index(name)}"
    held = sends(box, uid, MISLABELLED[name](uid), ((3, CT, (IMPLICIT,)),))
    assert held.label["transfer_syntax_uid"] == IMPLICIT


def test_a_scanner_that_knows_only_implicit_is_served(box, ct_files):
    """Q12: DCMTK's storescu, told to propose nothing else."""
    sent = subprocess.run(
        ["storescu", "-xi", "127.0.0.1", str(box.port), str(ct_files[0])],
        env={**os.environ, "TCP_NODELAY": "1"},
        timeout=30,
    )
    assert sent.returncode == 0
    newest = max(wire.shelves(box.folder / "data").values(), key=lambda one: one.label["received_at"])
    assert newest.label["transfer_syntax_uid"] == IMPLICIT
    assert proposes(box, ((1, CT, (IMPLICIT, EXPLICIT)),)) == {1: (0, IMPLICIT)}


@pytest.mark.parametrize("limit", [0, 1, 16, 128, 0xFFFFFFFF])
def test_any_announced_pdu_length_is_survived(box, limit):
    """Q13: none, absurdly small, absurdly large."""
    sends(box, f"1.2.826.713.{limit}", max_pdu=limit)


@pytest.mark.parametrize("size", [200_000, 1 << 20, (1 << 24) - 6])
def test_pdus_larger_than_we_announced_are_taken_up_to_a_hard_cap(box, size):
    """Q13: some devices ignore what we announce."""
    uid = f"1.2.826.713.7.{size}"
    body = wire.data_set(uid, explicit(0x7FE00010, "OB", b"")).ljust(size, b"\0")
    with guarded(box) as watch:
        watch.rows = 1
        line = watch.connect().associate()
        assert line.store(uid, body, piece=size) == 0
    kept(box, body)


def test_our_announced_pdu_length_suits_a_scanner(box):
    """Q13: between 16 and 64 KB."""
    with wire.Wire(box.port, SCANNER) as line:
        _, body = line.send(wire.associate_rq()).read()
    (announced,) = struct.unpack_from(">I", body, body.index(b"\x51\0\0\x04") + 4)
    assert 16 * 1024 <= announced <= 64 * 1024


def pipelined(uid: str) -> bytes:
    """Request, command, data set and release, without a pause for any answer."""
    return wire.associate_rq() + b"".join(wire.store(uid, wire.data_set(uid), piece=10)) + wire.pdu(RELEASE_RQ)


@pytest.mark.parametrize("piece", [1, 7, 100_000])
def test_pdus_come_through_however_they_are_cut(box, piece):
    """Q14: several in one TCP segment, one in several, and all of an association at once."""
    uid = f"1.2.826.714.{piece}"
    with guarded(box) as watch:
        watch.rows = 1
        line, content = watch.connect(), pipelined(uid)
        for at in range(0, len(content), piece):
            line.send(content[at : at + piece])
        assert [kind for kind, _ in (line.read(), line.read(), line.read())] == [2, 4, RELEASE_RP]
        assert line.answered[0].status == 0
    kept(box, wire.data_set(uid))


def test_command_and_data_share_a_pdu(box):
    """Q14: both PDVs, the data set in three, in one P-DATA-TF."""
    uid, body = "1.2.826.714.9", wire.data_set("1.2.826.714.9")
    pieces = [(COMMAND | LAST, wire.store_command(uid)), (0, body[:10]), (0, b""), (LAST, body[10:])]
    with guarded(box) as watch:
        watch.rows = 1
        line = watch.connect().associate()
        line.send(wire.p_data(*(wire.pdv(1, flags, part) for flags, part in pieces)) + wire.echo(message_id=2))
        assert (line.status(), line.status()) == (0, 0)
    kept(box, body)


@pytest.mark.parametrize("end", ["close", "reset", "idle", "half close"])
def test_what_was_acknowledged_stays_however_the_association_ends(box, end):
    """Q15: never released, closed, reset, or left open until we are tired of it."""
    uid = f"1.2.826.715.{sum(end.encode())}"
    with guarded(box) as watch:
        watch.rows = 1
        line = watch.connect().associate()
        assert line.store(uid, wire.data_set(uid)) == 0
        {"close": line.close, "reset": line.reset, "half close": line.half_close, "idle": lambda: None}[end]()
        if end in ("idle", "half close"):
            line.read(IDLE_S + 15)
    kept(box, wire.data_set(uid))
    assert box.ask("status")["sums_agree"]


def test_an_idle_association_is_released_and_not_aborted(box):
    """Q16: some consoles take an A-ABORT for a failed study; after the time-out we ask for release."""
    uid = "1.2.826.716.1"
    with guarded(box) as watch:
        watch.rows = 1
        line = watch.connect().associate()
        assert line.store(uid, wire.data_set(uid)) == 0
        got = line.read(IDLE_S + 15)
        assert got is not None
        assert got[0] == RELEASE_RQ, "A-ABORT" if got[0] == ABORT else f"PDU type {got[0]}"
        line.send(wire.pdu(RELEASE_RP))
        assert line.read(10) is None


def test_an_association_for_each_image_is_cheap(box):
    """Q17: the association costs next to nothing beside the object."""
    took = []
    with guarded(box) as watch:
        watch.rows = 60
        for number in range(60):
            started, uid = time.monotonic(), f"1.2.826.717.{number}"
            line = watch.connect().associate()
            assert line.store(uid, wire.data_set(uid)) == 0
            line.release()
            took.append(time.monotonic() - started)
    assert statistics.median(took) < 0.1


def test_the_answer_comes_at_once_though_the_archive_is_down(box):
    """Q18: within milliseconds, with nothing of the line behind us in it."""
    took = []
    with guarded(box) as watch:
        watch.rows = 40
        line = watch.connect().associate()
        for number in range(40):
            uid = f"1.2.826.718.{number}"
            blocks, started = wire.store(uid, wire.data_set(uid, bytes(100_000))), time.monotonic()
            assert line.send(*blocks).status() == 0
            took.append(time.monotonic() - started)
    assert statistics.median(took) < 0.1
    assert sorted(took)[-3] < 1.0  # the machine may pause once or twice


def test_the_archive_is_really_down():
    """Q18's premise: nobody listens on port 1."""
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", 1)) != 0
