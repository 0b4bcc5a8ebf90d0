"""Hostile objects: the receiver keeps bytes, it does not follow them (hostile inputs H10 to H15, H17, H18)."""

from __future__ import annotations

import hashlib
import struct
import time
import zlib

import pytest

from tests import wire
from tests.conftest import Box, until
from tests.guard import guarded, least
from tests.wire import CT, EXPLICIT, IMPLICIT, NEVER, even, explicit, implicit

J2K, JPEG_LS, RLE, PROGRESSIVE = (f"1.2.840.10008.1.2.{tail}" for tail in ("4.90", "4.80", "5", "4.55"))
CONTEXTS = tuple(
    (2 * n + 1, CT, (uid,)) for n, uid in enumerate((EXPLICIT, IMPLICIT, wire.DEFLATED, J2K, JPEG_LS, RLE, PROGRESSIVE))
)
NUMBER = {syntaxes[0]: number for number, _, syntaxes in CONTEXTS}
AT_ONCE_S = 1.0


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    """A gateway that hands on to a folder: what leaves the box is seen too."""
    folder = tmp_path_factory.mktemp("objects")
    out = f'[[destination]]\nname = "out"\nkind = "folder"\npath = "{folder}/out"\n'
    (folder / "out").mkdir()
    box = Box(folder, out)
    yield box.start()
    box.stop()


def is_kept(box, body: bytes) -> wire.Custody:
    """The object on the shelf, and that it left the box verbatim."""
    name = hashlib.sha256(body).hexdigest()
    held = wire.shelves(box.folder / "data").get(name)
    assert held is not None, "not on a shelf byte for byte"
    assert held.body == body

    def forwarded():
        return any(path.read_bytes().endswith(body) for path in (box.folder / "out").rglob("*") if path.is_file())

    assert until(forwarded), f"not forwarded byte for byte; quarantined: {box.ask('status')['quarantined']}"
    return held


def taken(box, uid, body: bytes, syntax: str = EXPLICIT, statuses=(0x0000,)) -> wire.Custody:
    """Send one object, guarded; return it as it is kept."""
    with guarded(box) as watch:
        watch.rows = 1
        line = watch.connect().associate(CONTEXTS)
        bound_s = AT_ONCE_S + len(body) / 2**24

        def store() -> float:  # again is a duplicate, which adds no row
            started = time.monotonic()
            assert line.store(uid, body, NUMBER[syntax]) in statuses
            return time.monotonic() - started

        assert least(store, bound_s) < bound_s
        line.release()
        return is_kept(box, body)


def new_uid(*case: object) -> str:
    return f"1.2.826.10.{int.from_bytes(hashlib.sha256(repr(case).encode()).digest()[:6], 'big')}"


def implicit_set(uid: str, more: bytes) -> bytes:
    return implicit(0x00080016, even(CT)) + implicit(0x00080018, even(uid)) + more


REST = explicit(0x0020000D, "UI", even("1.2.3")) + explicit(0x7FE00010, "OW", b"\0" * 64)
IMPLICIT_REST = implicit(0x0020000D, even("1.2.3")) + implicit(0x7FE00010, b"\0" * 64)
LIES = {
    "group length of undefined length": (IMPLICIT, lambda uid: implicit(0x00080000, b"\0" * 4, NEVER) + IMPLICIT_REST),
    "group length that says 4 GB": (EXPLICIT, lambda uid: explicit(0x00080000, "UL", b"\xff" * 4, 0xFFFF) + REST),
    "first element over the end": (EXPLICIT, lambda uid: explicit(0x00080005, "UN", b"ISO", 0x7FFFFFFF) + REST),
    "element over the end": (IMPLICIT, lambda uid: implicit_set(uid, implicit(0x00100010, b"A^B ", 0x7FFFFFFF))),
    "negative-looking length": (IMPLICIT, lambda uid: implicit_set(uid, implicit(0x00100010, b"A^B ", 0x80000000))),
    "length of minus two": (IMPLICIT, lambda uid: implicit_set(uid, implicit(0x00100010, b"A^B ", 0xFFFFFFFE))),
    "one byte missing at the end": (EXPLICIT, lambda uid: wire.data_set(uid, explicit(0x00100010, "PN", b"A^B", 4))),
    "undefined length outside a sequence": (
        IMPLICIT, lambda uid: implicit_set(uid, implicit(0x00100010, b"A^B ", NEVER) + IMPLICIT_REST)
    ),
    "half an element at the end": (EXPLICIT, lambda uid: wire.data_set(uid, b"\x10\x00\x10\x00P")),
    "unknown VR": (EXPLICIT, lambda uid: wire.data_set(uid, b"\x10\x00\x10\x00\xff\xff\x04\x00A^B " + REST)),
    "no element at all": (EXPLICIT, lambda uid: b"\xff" * 100),
    "an item outside a sequence": (EXPLICIT, lambda uid: struct.pack("<HHI", 0xFFFE, 0xE000, 8) + REST),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_data_set_that_lies_about_lengths_is_kept_verbatim_and_flagged(box, name):
    """H10: the bytes are whole, so they are ours; that they cannot be followed is written on the label."""
    syntax, make = LIES[name]
    uid = new_uid(name)
    held = taken(box, uid, make(uid), syntax)
    assert held.label["header"]["parsable"] is False, "not flagged"


ODD = {
    "odd lengths": lambda uid: wire.data_set(uid, explicit(0x00100010, "PN", b"A^B") + REST),
    "tags out of order": lambda uid: wire.data_set(uid, REST + explicit(0x00080060, "CS", b"CT")),
    "an element of File Meta in front": lambda uid: explicit(0x00020010, "UI", even(EXPLICIT)) + wire.data_set(uid),
    "a File Meta group length in front": lambda uid: explicit(0x00020000, "UL", b"\xff\xff\0\0") + wire.data_set(uid),
    "trailing garbage": lambda uid: wire.data_set(uid, REST + b"\xde\xad\xbe\xef" * 9),
    "DICM in front": lambda uid: bytes(128) + b"DICM" + wire.data_set(uid),
    "a single byte": lambda uid: b"\x02",
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_an_odd_data_set_is_kept_and_handed_on_verbatim(box, name):
    """H10: odd lengths, order, and data sets that could be mistaken for a part of the file's own header."""
    uid = new_uid(name)
    taken(box, uid, ODD[name](uid))


@pytest.mark.parametrize("depth", [10_000, 1_000_000])
@pytest.mark.parametrize("place", ["in front", "behind the UIDs"])
def test_deep_nesting_is_neither_followed_nor_feared(box, depth, place):
    """H11: a scanner with a depth, no recursion; kept, and flagged."""
    nested = (implicit(0x00081140, b"", NEVER) + struct.pack("<HHI", 0xFFFE, 0xE000, NEVER)) * depth
    uid = new_uid(depth, place)
    body = nested + implicit_set(uid, b"") if place == "in front" else implicit_set(uid, nested)
    held = taken(box, uid, body, IMPLICIT)
    assert held.label["header"]["parsable"] is False


@pytest.mark.parametrize("megabytes", [16, 4096])
def test_a_deflated_bomb_is_stored_as_it_came(box, megabytes):
    """H12: a thousand to one, up to 4 GB; the receiver keeps the small form."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    uid = new_uid("bomb", megabytes)
    head = packer.compress(wire.data_set(uid)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(16 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    taken(box, uid, head + block * (megabytes // 16) + packer.flush(), wire.DEFLATED)


def image(uid: str, frames: bytes, bits: int, side: int, pixels: bytes) -> bytes:
    return wire.data_set(
        uid,
        explicit(0x00280008, "IS", frames)
        + explicit(0x00280010, "US", wire.us(side))
        + explicit(0x00280011, "US", wire.us(side))
        + explicit(0x00280100, "US", wire.us(bits))
        + pixels,
    )


def encapsulated(*fragments: bytes) -> bytes:
    parts = (struct.pack("<HHI", 0xFFFE, 0xE000, len(one)) + one for one in (b"", *fragments))
    return explicit(0x7FE00010, "OB", b"", NEVER) + b"".join(parts) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


BOMBS = {
    "65535 x 65535 x a million frames": (EXPLICIT, b"1000000 ", 16, 65535, explicit(0x7FE00010, "OW", b"\0" * 64)),
    "minus one frame": (EXPLICIT, b"-1", 16, 512, explicit(0x7FE00010, "OW", b"\0" * 64)),
    "no bits": (EXPLICIT, b"1 ", 0, 512, explicit(0x7FE00010, "OW", b"\0" * 64)),
    "255 bits": (EXPLICIT, b"1 ", 255, 512, explicit(0x7FE00010, "OW", b"\0" * 64)),
    "JPEG 2000 of garbage": (J2K, b"9 ", 16, 65535, encapsulated(b"\xff\x4f\xff\x51\x00\x2f" + b"\xff" * 500)),
    "JPEG-LS of garbage": (JPEG_LS, b"9 ", 16, 65535, encapsulated(b"\xff\xd8\xff\xf7" + b"\xff" * 500)),
    "RLE of 4 GB segments": (RLE, b"9 ", 16, 65535, encapsulated(b"\x0f\0\0\0" + b"\xff" * 60 + b"\x81\0" * 99)),
    "many scans": (PROGRESSIVE, b"1 ", 8, 65535, encapsulated(b"\xff\xd8" + b"\xff\xda\0\x08\1\1\0\0\x3f\0" * 99)),
    "a fragment over the end": (J2K, b"1 ", 8, 8, explicit(0x7FE00010, "OB", b"\xfe\xff\0\xe0\xff\xff\xff\x7f", NEVER)),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_codec_bomb_is_bytes_to_the_receiver(box, name):
    """H13: nothing is decoded on the way in, whatever rows, columns, bits and frames claim."""
    syntax, *facts = BOMBS[name]
    uid = new_uid(name)
    taken(box, uid, image(uid, *facts), syntax)


@pytest.mark.parametrize(
    "magic", [b"MZ\x90\x00", b"\x7fELF\x02\x01", b"\xcf\xfa\xed\xfe", b"#!/bin/sh\n", b"<html>", b"PK\3\4"]
)
def test_what_begins_like_a_program_lies_behind_our_own_empty_preamble(box, magic):
    """H14: over DIMSE there is no preamble; ours is 128 zero bytes, so that no file of ours runs or renders."""
    held = taken(box, new_uid(magic), magic + b"\0" * 300)
    assert held.preamble == bytes(128)
    assert held.path.stat().st_mode & 0o111 == 0


NAMES = {
    "path upwards": "../../etc/cron.d/x",
    "absolute path": "/etc/cron.d/x",
    "NUL inside": "1.2\0.3.4",
    "command": "1.2;$(reboot)",
    "leading zeros": "1.02.003.0004",
    "letters": "not-a-uid",
    "bytes over 127": "1.2.\xff\xfe.\xe9",
    "line break": "1.2\r\naccepted object=x",
    "SQL": "1.2'); DROP TABLE instance; --",
    "64 characters": "1." + "9" * 62,
    "65 characters": "1." + "9" * 63,
    "100 characters": "1." + "9" * 98,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_uid_is_a_name_and_never_a_path(box, name):
    """H15: usable though invalid: accepted, kept as received, forwarded; our files have names of our own."""
    uid = NAMES[name]
    held = taken(box, uid, wire.data_set(uid, sop_class=CT))
    assert held.label["sop_instance_uid"] == uid
    assert len(held.path.stem) == 32
    assert set(held.path.stem) <= set("0123456789abcdef")
    assert not any(line.strip() == "accepted object=x" for line in box.log().splitlines())


def is_flagged(box, name: str) -> bool:
    """True when an invalid UID is accepted, and the label or a warning in the log says so."""
    uid, before = NAMES[name], len(box.log())
    body = wire.data_set(uid, explicit(0x00081030, "LO", b"flag me "))
    with wire.Wire(box.port) as line:
        line.associate().store(uid, body)
    held = wire.shelves(box.folder / "data").get(hashlib.sha256(body).hexdigest())
    if held is None:
        return False
    flags = {**held.label, **held.label["header"]}
    warned = any("uid" in line and "conflict" not in line for line in box.log()[before:].splitlines())
    return flags["parsable"] is False or flags.get("uid_valid") is False or warned


def test_a_broken_uid_is_flagged(box):
    """H15: somebody may have to look, so it is written down."""
    assert [name for name in NAMES if name != "64 characters" and not is_flagged(box, name)] == []


@pytest.mark.parametrize("padding", ["\0", " ", "\0\0\0", "   "], ids=repr)
def test_a_padded_uid_is_the_same_uid(box, padding):
    """H15: padding is no part of the name (PS3.5 6.2), and stays in the bytes."""
    uid = new_uid("padding", padding)
    body = explicit(0x00080018, "UI", (uid + padding).encode()) + explicit(0x00080016, "UI", even(CT))
    assert taken(box, uid + padding, body).label["sop_instance_uid"] == uid


@pytest.mark.parametrize("uid", [None, "", "\0\0", "  "], ids=repr)
def test_an_object_without_a_name_is_refused(box, uid):
    """H15: empty or missing is 0xA900 or 0xC000, and the association goes on."""
    with guarded(box) as watch:
        line = watch.connect().associate()
        assert line.store(uid, wire.data_set("1.2")) in (0xA900, 0xC000)
        assert line.send(wire.echo()).status() == 0


SECRET = "Sekret^Geheim"
TEXTS = {
    "unknown character set": explicit(0x00080005, "CS", b"ISO_IR 999"),
    "escape at the end": explicit(0x00080005, "CS", b"\\ISO 2022 IR 87") + explicit(0x00100010, "PN", b"A\x1b$B"),
    "invalid UTF-8": explicit(0x00080005, "CS", b"ISO_IR 192") + explicit(0x00100010, "PN", b"\xc3\x28\xff^\x80\x80"),
    "a name of a megabyte": explicit(0x00100010, "UT", b"N" * (1 << 20)),
    "script in a name": explicit(0x00100010, "PN", b"<script>alert(1)</script>^"),
    "log line in a name": explicit(0x00100010, "PN", b"\r\naccepted object=0 \r\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_never_decoded_and_never_told(box, name):
    """H17: bytes pass as they are; nothing of a patient reaches log or status."""
    uid, before = new_uid(name), len(box.log())
    body = wire.data_set(uid, TEXTS[name] + explicit(0x00100020, "LO", SECRET.encode() + b" "))
    taken(box, uid, body)
    told = box.log()[before:] + repr(box.ask("status")) + repr(box.ask("queue_list"))
    for secret in (SECRET, "script", "accepted object=0 ", "NNNN"):
        assert secret not in told


def test_the_same_object_again_and_again_is_kept_once(box):
    """H18, D4: a storm of duplicates is answered with success and costs no copy."""
    uid = new_uid("storm")
    body = wire.data_set(uid, REST)
    times, before = 400, box.ask("status")["duplicates"]
    with guarded(box) as watch:
        watch.rows = 1
        lines = [watch.connect().associate() for _ in range(4)]
        for _ in range(times // len(lines)):
            for number, line in enumerate(lines):
                line.send(*wire.store(uid, body, message_id=number + 1))
            assert [line.status() for line in lines] == [0] * len(lines)
    assert box.ask("status")["duplicates"] - before == times - 1
    copies = [one for one in (box.folder / "data" / "objects").rglob("*.dcm") if wire.read_custody(one).body == body]
    assert len(copies) == 1


def test_one_uid_with_different_bytes_is_kept_twice_and_alarms(box):
    """H18, D4: from one scanner or from two, never an overwrite; both go on; somebody is told."""
    uid = new_uid("collision")
    bodies = [wire.data_set(uid, explicit(0x00081030, "LO", text)) for text in (b"one ", b"two ", b"three ")]
    alarms = box.ask("status")["alarms"].get("uid_conflict", 0)
    with guarded(box) as watch:
        watch.rows = 3
        one, two = watch.connect().associate(), watch.connect("127.0.0.3").associate(calling="OTHER")
        assert [line.store(uid, body) for line, body in zip((one, one, two), bodies, strict=True)] == [0, 0, 0]
    for body in bodies:
        is_kept(box, body)
    assert box.ask("status")["alarms"]["uid_conflict"] > alarms
