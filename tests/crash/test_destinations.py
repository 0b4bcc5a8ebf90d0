"""Destinations misbehave in every way that was thought of: nothing is lost or taken for delivered, and none sticks.

The long form sends for CAMPAIGN_SECONDS to archives that change their mind each second; a retry waits for at most
0.2 s where a box waits for 300 s, so that each second stands for 25 minutes.
"""

from __future__ import annotations

import random
import struct
import time
from dataclasses import dataclass
from itertools import pairwise

import pytest

from tests import wire
from tests.crash.archive import PIECE, Behaviour, DimseArchive, Line, Over, Server, accept, good, response
from tests.crash.campaign import Scanner, count_of, done_already, kept_on_failure, prove, report, seed_of
from tests.crash.web_archive import WebArchive, outcome, reply

BIG = (200_000, 200_000)
"""More than fits into the sockets' buffers of one PDU, so that `in the middle` is in the middle."""


def at(point: str, act, after: int = 0) -> Behaviour:
    """Do something at a point, once so many bytes have come."""

    def behaviour(line: Line, here: str) -> None:
        if here == point and line.carried >= after:
            act(line)

    return behaviour


def say(make, then=Line.close):
    """Send something that is made from the line, then do the next thing."""

    def act(line: Line) -> None:
        line.send(make(line) if callable(make) else make)
        then(line)

    return act


def slowly(make, pause_s: float):
    """Say the same again and again, each time before anybody's patience is over."""

    def act(line: Line) -> None:
        line.met()
        for _ in range(200):
            line.send(make(line))
            time.sleep(pause_s)
        raise Over

    return act


def too_late(line: Line) -> None:
    """Answer when nobody waits for it any more."""
    line.sock.recv(PIECE)  # the abort
    line.met()
    line.send(line.store_response(0))
    raise Over


def full_and_deaf(line: Line, here: str) -> None:
    if here == "whole":
        line.answer(line.store_response(0xA700))
    elif here == "echo":
        line.answer(response(line, wire.C_ECHO_RQ, wire.VERIFICATION, status=0x0110))


def rejected(result: int, source: int, reason: int) -> bytes:
    return wire.pdu(wire.ASSOCIATE_RJ, bytes((0, result, source, reason)))


def accepts(max_pdu: int = 16384, result: int = 0) -> Behaviour:
    """Accept the association with another maximum PDU length, or with every context refused (PS3.8 table 9-18)."""

    def behaviour(line: Line, here: str) -> None:
        if here != "associate":
            return
        line.met()
        contexts = b"".join(
            wire.item(0x21, bytes((number, 0, result, 0)) + wire.item(0x40, wire.IMPLICIT.encode()))
            for number in range(1, 256, 2)
        )
        user = wire.item(0x50, wire.item(0x51, struct.pack(">I", max_pdu)))
        line.send(wire.pdu(wire.ASSOCIATE_AC, b"\0\1" + bytes(66) + contexts + user))
        line.hang(reading=True)

    return behaviour


def status(code: int) -> Behaviour:
    return at("whole", lambda line: line.answer(line.store_response(code)))


def response_of(code: int = 0, step: int = 0):
    return lambda line: line.store_response(code, line.message_id + step)


ABORT = wire.pdu(wire.ABORT)
HALF_ACCEPT = accept(bytes(68), [(1, wire.CT, wire.EXPLICIT)])[:40]
MIDDLE = 50_000
DIMSE: dict[str, Behaviour] = {
    "resets at once": at("connect", Line.reset),
    "closes at once": at("connect", Line.close),
    "is silent from the beginning": at("connect", Line.hang),
    "rejects for now": at("associate", say(rejected(2, 3, 2))),
    "rejects for good": at("associate", say(rejected(1, 1, 7))),
    "aborts the association request": at("associate", say(ABORT)),
    "speaks another protocol": at("associate", say(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
    "is silent to the association request": at("associate", Line.hang),
    "accepts by half": at("associate", say(HALF_ACCEPT, Line.hang)),
    "accepts with a lie about lengths": at("associate", say(wire.pdu(wire.ASSOCIATE_AC, b"\xff" * 90))),
    "takes PDUs of ten bytes": accepts(max_pdu=10),
    "is full (A700)": status(0xA700),
    "fails (0110)": status(0x0110),
    "does not authorise (0124)": status(0x0124),
    "answers what no standard knows (1234)": status(0x1234),
    "hangs in the middle of a PDU": at("piece", Line.hang, MIDDLE),
    "reads on and is silent": at("piece", lambda line: line.hang(reading=True), MIDDLE),
    "hangs before the answer": at("whole", Line.hang),
    "half-closes in the middle": at("piece", Line.half_close, MIDDLE),
    "half-closes instead of answering": at("whole", Line.half_close),
    "closes instead of answering": at("whole", Line.close),
    "resets instead of answering": at("whole", Line.reset),
    "aborts instead of answering": at("whole", say(ABORT)),
    "releases instead of answering": at("whole", say(wire.pdu(wire.RELEASE_RQ))),
    "answers by half": at("whole", say(lambda line: line.store_response(0)[:20], Line.hang)),
    "answers byte by byte": at("whole", lambda line: line.drip(line.store_response(0), 0.1)),
    "answers another message only": at("whole", say(response_of(step=1), Line.hang)),
    "answers other messages for ever": at("whole", lambda line: line.pour(line.store_response(0, line.message_id + 1))),
    "is pending for ever": at("whole", lambda line: line.pour(line.store_response(0xFF00))),
    "asks for ever instead of answering": at("whole", lambda line: line.pour(wire.echo(1))),
    "answers other messages slowly": at("whole", slowly(response_of(step=1), 0.2)),
    "is pending slowly": at("whole", slowly(response_of(0xFF00), 0.2)),
    "asks slowly instead of answering": at("whole", slowly(lambda line: wire.echo(1), 0.2)),
    "answers after the abort": at("whole", too_late),
    "stores, and answers after the abort": at("stored", too_late),
    "stores, and resets": at("stored", Line.reset),
    "sends a command without end": at("whole", lambda line: line.pour(wire.p_data(wire.pdv(1, 1, bytes(1000))))),
    "sends a data set without end": at("whole", lambda line: line.pour(wire.p_data(wire.pdv(1, 0, bytes(1000))))),
    "is full, and answers C-ECHO with a failure": full_and_deaf,
}
REFUSING: dict[str, Behaviour] = {
    "accepts no context": accepts(result=3),
    "says the data set does not match (A900)": status(0xA900),
    "says it cannot understand (C000)": status(0xC000),
    "does not support the SOP class (0122)": status(0x0122),
}


def web(code: int, make=b"", media_type: str = "application/dicom+json", *headers: str) -> Behaviour:
    def act(line: Line) -> None:
        line.answer(reply(code, make(line) if callable(make) else make, media_type, *headers))

    return at("whole", act)


def failed(reason: int):
    return lambda line: outcome(line.uid, reason)


CHUNK = b"3e8\r\n" + b" " * 1000 + b"\r\n"
PORTAL = b"<html><body>Welcome to the guest network</body></html>"


def begun(head: str) -> Behaviour:
    """Begin a reply whose body has no end."""
    raw = head.replace("\n", "\r\n").encode() + b"\r\n\r\n"
    return at("whole", say(raw, lambda line: line.pour(CHUNK if b"chunked" in raw else b" " * 1000)))


WEB: dict[str, Behaviour] = {
    "resets at once": at("connect", Line.reset),
    "is silent from the beginning": at("connect", Line.hang),
    "resets at the head": at("associate", Line.reset),
    "resets in the middle": at("piece", Line.reset, MIDDLE),
    "hangs in the middle": at("piece", Line.hang, MIDDLE),
    "half-closes in the middle": at("piece", Line.half_close, MIDDLE),
    "hangs before the answer": at("whole", Line.hang),
    "closes instead of answering": at("whole", Line.close),
    "stores, and closes": at("stored", Line.close),
    "answers nonsense": at("whole", say(b"\0\1\2\3 what?\r\n\r\n")),
    "answers by half": at("whole", say(lambda line: reply(200, outcome(line.uid))[:-9])),
    "answers by half and hangs": at("whole", say(lambda line: reply(200, outcome(line.uid))[:-9], Line.hang)),
    "answers byte by byte": at("whole", lambda line: line.drip(reply(200, outcome(line.uid)), 0.05)),
    "200, but the instance failed": web(200, failed(0xA700)),
    "200, but only another instance is named": web(200, lambda line: outcome("1.2.3")),
    "200 of a captive portal": web(200, PORTAL, "text/html"),
    "200 with a reply that cannot be read": web(200, b'{"00081199": {"vr": "SQ", "Val'),
    "200 without end": begun("HTTP/1.1 200 OK\nContent-Type: application/dicom+json\nTransfer-Encoding: chunked"),
    "200 without end or length": begun("HTTP/1.1 200 OK\nContent-Type: application/dicom+json"),
    "503 without end": begun("HTTP/1.1 503 Busy\nTransfer-Encoding: chunked"),
    "100 Continue for ever": at("whole", lambda line: line.pour(b"HTTP/1.1 100 Continue\r\n\r\n" * 20)),
    "headers without end": at("whole", say(b"HTTP/1.1 200 OK\r\n", lambda line: line.pour(b"X-More: 1\r\n" * 50))),
    "202 for a failure": web(202, failed(0xA700)),
    "202 without a word": web(202),
    "302 elsewhere": web(302, b"", "text/plain", "Location: http://127.0.0.1:1/studies"),
    "401": web(401),
    "404": web(404),
    "408": web(408),
    "409, and the instance shall come again": web(409, failed(0xA700)),
    "413 with Retry-After": web(413, b"", "text/plain", "Retry-After: 1"),
    "429 with Retry-After": web(429, b"", "text/plain", "Retry-After: 1"),
    "500": web(500),
    "502": web(502, PORTAL, "text/html"),
    "503 with Retry-After": web(503, b"", "text/plain", "Retry-After: Fri, 31 Dec 2100 23:59:59 GMT"),
    "504": web(504),
    "507": web(507),
}
WEB_REFUSING: dict[str, Behaviour] = {
    "200, but it cannot understand the instance": web(200, failed(0xC000)),
    "400": web(400),
    "409": web(409),
    "409 with a reason": web(409, failed(0x0110)),
    "413": web(413),
    "413 before the body was read": at("associate", say(reply(413, b"", "text/plain", "Connection: close"))),
}


def destination(archive: Server, ceiling_s: float = 0.2, timeout_s: float = 0.5, associations: int = 2) -> str:
    if isinstance(archive, WebArchive):
        place = f'kind = "stow"\nurl = "{archive.url}"'
    else:
        place = f'kind = "dimse"\nhost = "127.0.0.1"\nport = {archive.port}\nae_title = "ANY"\nlinger_s = 0.1'
    return (
        f'[[destination]]\nname = "pacs"\n{place}\nassociations = {associations}\ncompression = "off"\n'
        f"timeout_s = {timeout_s}\nretry_first_s = 0.05\nretry_ceiling_s = {ceiling_s}\n"
    )


@dataclass
class Scene:
    box: object
    archive: Server
    scanner: Scanner
    wait_until: object


@pytest.fixture
def scene(make_box, wait_until, request):
    """A gateway, an archive of the wanted kind, a scanner that has just sent two instances."""
    opened = []

    def make(kind, row: str, behaviour: Behaviour, sizes=BIG, **more: float) -> Scene:
        archive = kind()
        box = make_box(destination(archive, **more)).start()
        opened.append((archive, box))
        archive.behaviour = behaviour
        scanner = Scanner(seed_of(row), sizes=sizes)
        assert scanner.send(box.port, 2) == 2
        return Scene(box, archive, scanner, wait_until)

    yield make
    for archive, box in opened:
        box.kill()
        archive.close()


def it_waits_and_then_delivers(scene: Scene) -> None:
    """The gateway meets the misbehaviour, comes again, is not deceived, and delivers when it is over."""
    box, archive, wait_until = scene.box, scene.archive, scene.wait_until
    assert wait_until(lambda: archive.met >= 2), f"met {archive.met} times: the lane stands still\n{box.log()}"
    row = box.ask("status")["destinations"]["pacs"]
    assert (row["confirmed"], row["held"]) == (0, 0), row
    archive.behaviour = good
    assert wait_until(box.delivered_all), box.ask("status")
    prove(box, [scene.scanner], {"pacs": archive})


def a_person_must_release_it(scene: Scene) -> None:
    box, archive, wait_until = scene.box, scene.archive, scene.wait_until
    assert wait_until(lambda: box.ask("status")["destinations"]["pacs"]["held"] == 2), box.log()
    assert archive.received == set()
    archive.behaviour = good
    for _ in range(20):  # an association that is open still knows only what was agreed on it
        box.ask("queue_retry")
        if wait_until(box.delivered_all, 1):
            break
    assert box.delivered_all(), box.ask("status")
    prove(box, [scene.scanner], {"pacs": archive})


CASES = [
    *((DimseArchive, name, behaviour, it_waits_and_then_delivers) for name, behaviour in DIMSE.items()),
    *((DimseArchive, name, behaviour, a_person_must_release_it) for name, behaviour in REFUSING.items()),
    *((WebArchive, name, behaviour, it_waits_and_then_delivers) for name, behaviour in WEB.items()),
    *((WebArchive, name, behaviour, a_person_must_release_it) for name, behaviour in WEB_REFUSING.items()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name", "behaviour", "expected"), CASES, ids=[f"{kind.__name__}: {name}" for kind, name, *_ in CASES]
)
def test_an_archive_that(scene, tmp_path, kind, name, behaviour, expected):
    row = f"{kind.__name__} {name}"
    with kept_on_failure(tmp_path, "destination", seed_of(row)):
        expected(scene(kind, row, behaviour))


IN_2_S = "Date: Fri, 31 Dec 1999 23:59:58 GMT", "Retry-After: Sat, 01 Jan 2000 00:00:00 GMT"
"""By a clock of the service's own."""


@pytest.mark.parametrize(
    ("code", "headers"), [(429, ["Retry-After: 2"]), (503, IN_2_S)], ids=["429, in seconds", "503, as a date"]
)
def test_a_service_that_asks_to_be_left_alone_is(scene, tmp_path, code, headers):
    """Neither instance nor probe comes before the time is over (RFC 9110 10.2.3)."""
    row = f"Retry-After {code}"
    heard: list[float] = []

    def busy(line: Line, here: str) -> None:
        if here in ("whole", "echo"):
            heard.append(time.monotonic())
            line.answer(reply(code, b"", "text/plain", *headers))

    with kept_on_failure(tmp_path, "patience", seed_of(row)):
        # One courier with long patience: a second, or one that gave up, would not have heard what the first was told.
        seen = scene(WebArchive, row, busy, ceiling_s=20, timeout_s=30, associations=1)
        assert seen.wait_until(lambda: len(heard) >= 3, 30), seen.box.log()
        assert all(later - sooner >= 2 for sooner, later in pairwise(heard[:3])), heard
        seen.archive.behaviour = good
        assert seen.wait_until(seen.box.delivered_all, 30), seen.box.ask("status")
        prove(seen.box, [seen.scanner], {"pacs": seen.archive})


class Steps:
    """Resets after n bytes for each n in steps of 4 KiB, and is good when it is through."""

    def __init__(self, last: int) -> None:
        self.left = list(range(0, last, 4096))

    def __call__(self, line: Line, here: str) -> None:
        if here == "piece" and self.left and line.carried >= self.left[0]:
            self.left.pop(0)
            line.reset()


both = pytest.mark.parametrize("kind", [DimseArchive, WebArchive], ids=["dimse", "stow"])


def reset_at_every_step(scene, kind, row: str, size: int) -> Scene:
    steps = Steps(size)
    seen = scene(kind, row, steps, sizes=(size, size))
    assert seen.wait_until(lambda: not steps.left, 10 + size / 4096 * 1.5), f"stood still before {steps.left[0]} bytes"
    seen.archive.behaviour = good
    assert seen.wait_until(seen.box.delivered_all), seen.box.ask("status")
    prove(seen.box, [seen.scanner], {"pacs": seen.archive})
    return seen


@both
def test_a_line_that_is_reset_after_n_bytes_for_every_n(scene, tmp_path, kind):
    with kept_on_failure(tmp_path, "steps", seed_of("steps")):
        reset_at_every_step(scene, kind, "steps", 40_960)


@pytest.mark.long
@pytest.mark.timeout(3600)
@both
def test_a_line_that_is_reset_after_n_bytes_for_every_n_of_a_large_object(scene, tmp_path, kind):
    row = f"reset after n bytes ({kind.__name__})"
    if done_already(row):
        pytest.skip("this program has passed it already")
    with kept_on_failure(tmp_path, "steps-long", seed_of(row)):
        seen = reset_at_every_step(scene, kind, row, count_of("STEPS_BYTES", 1_048_576))
    report(row, resets=seen.archive.met, delivered=len(seen.archive.received))


@pytest.mark.long
@pytest.mark.timeout(7200)
@both
def test_an_archive_that_changes_its_mind_each_second_for_hours(scene, tmp_path, kind):
    row = f"destination misbehaves ({kind.__name__})"
    if done_already(row):
        pytest.skip("this program has passed it already")
    seconds, seed = count_of("SECONDS", 900), seed_of(row)
    every = list((DIMSE if kind is DimseArchive else WEB).values())
    luck, changes = random.Random(seed), 0
    with kept_on_failure(tmp_path, "destination-long", seed):
        seen = scene(kind, row, good)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            seen.archive.behaviour = luck.choice([good, *every])
            changes += 1
            seen.scanner.send(seen.box.port, luck.randint(0, 4))
            time.sleep(luck.uniform(0.2, 2.0))
        seen.archive.behaviour = good
        assert seen.wait_until(seen.box.delivered_all, 300), seen.box.ask("status")
        prove(seen.box, [seen.scanner], {"pacs": seen.archive})
    report(
        row,
        behaviours=changes,
        simulated_hours=round(seconds * 300 / 0.2 / 3600),
        acknowledged=len(seen.scanner.acknowledged),
        delivered=len(seen.archive.received),
    )
