"""Hostile clients of the network: each ends its own connection, in its time, and nothing else (H1 to H6, H8, H9)."""

from __future__ import annotations

import ssl
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import trustme

from tests import wire
from tests.conftest import Box, free_port, until
from tests.guard import MAX_ECHO_S, guarded, least_echo, threads
from tests.wire import ABORT, ASSOCIATE_RJ, COMMAND, LAST, NEVER, RELEASE_RQ, Wire

PER_ADDRESS, IN_ALL = 8, 64
IDLE_S, ARTIM_S, PDU_S, REPLY_S, SLACK_S = 5, 10, 30, 30, 10
MAX_OBJECT = 1 << 20
INVALID_PDU, NOT_A_PDU, UNEXPECTED_PDU = (2, 6), (2, 1), (2, 2)
CONFIG = f"idle_timeout_s = {IDLE_S}\nmax_associations = {IN_ALL}\nmax_associations_per_address = {PER_ADDRESS}\n"


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def box(tmp_path_factory, authority):
    folder = tmp_path_factory.mktemp("hostile")
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    tls_port = free_port()
    tls = f'tls = {{ cert_file = "{folder}/cert.pem", key_file = "{folder}/key.pem", require_client_cert = false }}'
    second = f'[[listener]]\naddress = "127.0.0.1"\nport = {tls_port}\n{CONFIG}{tls}'
    box = Box(folder, second, f"[admit]\nmax_object_bytes = {MAX_OBJECT}", CONFIG)
    box.tls_port = tls_port
    yield box.start()
    box.stop()


@pytest.fixture(scope="module")
def trust(authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def drip(line: Wire, content: bytes, each_s: float, until_s: float) -> None:
    """Send byte by byte until the peer has had enough, or it is time to stop."""
    deadline = time.monotonic() + until_s
    for at in range(len(content)):
        if time.monotonic() > deadline or not line.try_send(content[at : at + 1]):
            return
        time.sleep(each_s)


def how_it_ends(line: Wire, within_s: float) -> tuple[float, tuple[int, int] | None]:
    """Seconds until the peer's A-ABORT or close, whichever is first, and the A-ABORT's source and reason."""
    started = time.monotonic()
    got = line.read(within_s)
    while got is not None and got[0] != ABORT:
        got = line.read(max(0.01, started + within_s - time.monotonic()))
    return time.monotonic() - started, wire.abort_reason(got)


def silent(line: Wire):
    return how_it_ends(line, ARTIM_S + SLACK_S)


def half_a_header(count: int):
    def attack(line: Wire):
        return how_it_ends(line.send(wire.associate_rq()[:count]), PDU_S + SLACK_S)

    return attack


def half_a_header_later(count: int):
    def attack(line: Wire):
        return how_it_ends(line.associate().send(wire.echo()[:count]), PDU_S + SLACK_S)

    return attack


def dripping(content: bytes, established: bool):
    def attack(line: Wire):
        if established:
            line.associate()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(drip, line, content, 1.0, PDU_S + SLACK_S)
            return how_it_ends(line, PDU_S + SLACK_S)

    return attack


def fallen_silent(line: Wire):
    """An idle scanner is asked to release (Q16: some take an abort for a failed study)."""
    started = time.monotonic()
    got = line.associate().read(IDLE_S + SLACK_S)
    return time.monotonic() - started, "asked for release" if got and got[0] == RELEASE_RQ else got


def deaf(line: Wire):
    """Asks and asks, and never reads the answers: the gateway must not wait for ever with its reply in its hand."""
    line.associate()
    line.socket.settimeout(1)
    started = time.monotonic()
    while time.monotonic() - started < REPLY_S + SLACK_S:
        try:
            line.socket.sendall(wire.echo() * 1000)
        except TimeoutError:
            continue  # it waits, as it may for so long
        except OSError:
            return time.monotonic() - started, None
    return time.monotonic() - started, "still there"


def handshake(content: bytes):
    def attack(line: Wire):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(drip, line, content, 5.0, ARTIM_S + SLACK_S)
            return how_it_ends(line, ARTIM_S + SLACK_S)

    return attack


SMALL_STORE = b"".join(wire.store("1.2.3", b"x" * 600, piece=1))
TIMED = {
    "H1 says nothing": (silent, ARTIM_S, None),
    **{f"H3 {n} bytes of its first header": (half_a_header(n), PDU_S, None) for n in range(1, 6)},
    **{f"H3 {n} bytes of a later header": (half_a_header_later(n), PDU_S, (2, 0)) for n in range(1, 6)},
    "H3 request at one byte a second": (dripping(wire.associate_rq(), False), PDU_S, None),
    "H3 body at one byte a second": (
        dripping(SMALL_STORE[:140] + wire.p_data(wire.pdv(1, 0, b"x" * 9000)), True), PDU_S, (2, 0)
    ),
    "H3 object in whole PDUs of one byte, one a second": (
        dripping(b"".join(wire.store("1.2.3", b"x" * 600, piece=1)), True), PDU_S, (2, 0)
    ),
    "H3 never reads": (deaf, REPLY_S, None),
    "H4 opens an association and falls silent": (fallen_silent, IDLE_S, "asked for release"),
}  # fmt: skip
TLS_TIMED = {
    "H2 no ClientHello": (handshake(b""), ARTIM_S, None),
    "H2 a ClientHello at a byte in five seconds": (handshake(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"), ARTIM_S, None),
}


def test_silent_and_slow_clients_are_let_go_at_their_deadlines(box, trust):
    """H1, H2, H3, H4: absolute deadlines, all at once, while others are served on both ports."""
    cases = [(name, *case, box.port) for name, case in TIMED.items()]
    cases += [(name, *case, box.tls_port) for name, case in TLS_TIMED.items()]
    with guarded(box) as watch:
        lines = [watch.connect(f"127.0.0.{10 + n}", case[-1]) for n, case in enumerate(cases)]
        with ThreadPoolExecutor(len(cases)) as pool:
            ends = [pool.submit(case[1], line) for case, line in zip(cases, lines, strict=True)]
            assert least_echo(box.tls_port, tls=trust) < MAX_ECHO_S
            faults = []
            for (name, _, limit_s, reason, _), end in zip(cases, ends, strict=True):
                error = end.exception(90)
                took, told = (0.0, error) if error else end.result()
                if error or took > limit_s + SLACK_S or told != reason:
                    faults.append(f"{name}: {told} after {took:.1f} s")
        assert faults == []


def test_an_honest_slow_line_is_no_attack(box):
    """H3, the other side: twice the least pace is enough, for longer than any deadline of silence."""
    with guarded(box) as watch:
        watch.rows = 1
        body = wire.data_set("1.2.826.2.1", b"\0" * 16000)
        for _ in range(3):
            line = watch.connect().associate()
            answer, gap_s = sends_slowly(line, wire.store("1.2.826.2.1", body, piece=1024))
            if gap_s < 1.5:  # else it was we who paused, and cutting us off is right
                break
        assert answer == 0


def sends_slowly(line: Wire, blocks: list[bytes]) -> tuple[object, float]:
    """The status or what came instead of it, and the longest time between two sends of our own."""
    gap_s, sent_at = 0.0, time.monotonic()
    try:
        for block in blocks:
            line.send(block)
            gap_s, sent_at = max(gap_s, time.monotonic() - sent_at), time.monotonic()
            time.sleep(0.5)
        return line.status(), gap_s
    except (OSError, AssertionError) as error:
        return error, max(gap_s, time.monotonic() - sent_at)


def test_five_hundred_silent_clients_of_one_address_get_eight_threads(box):
    """H1: the cap comes before the thread; who is over it is told so, and everybody is gone at ARTIM."""
    with guarded(box) as watch:
        lines = [watch.connect() for _ in range(500)]
        turned_away = lines[PER_ADDRESS:]
        assert all(line.read() == (ASSOCIATE_RJ, bytes((0, 2, 3, 2))) for line in turned_away)
        assert all(line.read() is None for line in turned_away)
        deadline = time.monotonic() + ARTIM_S + SLACK_S
        assert all(line.read(deadline - time.monotonic()) is None for line in lines[:PER_ADDRESS])
    assert watch.threads_peak <= watch.before[0] + PER_ADDRESS + 1, "one more is the bystander's"


def test_the_cap_over_all_addresses_holds_and_room_comes_back(box):
    """H1: sixty-four in all; the echo pauses while the house is full, and is served as before afterwards."""
    with guarded(box) as watch:
        with watch.echoing:
            watch.bystanders = False
        assert until(lambda: threads(watch.pid) <= watch.before[0])
        lines = [watch.connect(f"127.0.1.{n % 16 + 1}") for n in range(IN_ALL + 36)]
        over = lines[IN_ALL:]
        assert all(line.read() == (ASSOCIATE_RJ, bytes((0, 2, 3, 2))) for line in over)
        assert watch.threads_peak <= watch.before[0] + IN_ALL
        for line in lines:
            line.close()
        assert until(lambda: not any(row["associations"] for row in box.ask("status")["listeners"]))


OVERSIZED = {
    "P-DATA-TF of 4 GB": wire.pdu(4, b"x" * 1000, NEVER),
    "P-DATA-TF over the hard cap": wire.pdu(4, b"x" * 1000, (1 << 24) + 1),
    "A-RELEASE-RQ of 4 GB": wire.pdu(5, b"x" * 1000, NEVER),
}
BROKEN = {
    "PDV of length 0": wire.pdu(4, struct.pack(">IBB", 0, 1, 3)),
    "PDV of length 1": wire.pdu(4, struct.pack(">IBB", 1, 1, 3)),
    "P-DATA-TF without a PDV": wire.pdu(4, b""),
    "PDV over its PDU": wire.p_data(wire.pdv(1, 3, b"x" * 100, 4000)),
    "PDV of 4 GB": wire.p_data(wire.pdv(1, 3, b"x" * 100, NEVER)),
    "even context id": wire.echo(2),
    "context id 0": wire.echo(0),
    "unknown context": wire.echo(99),
    "unknown context of a C-STORE": b"".join(wire.store("1.2.3", b"x" * 100, 99)),
    "command in 10 000 fragments": b"".join(wire.p_data(wire.pdv(5, COMMAND, b"\0\0")) for _ in range(10_000)),
    "command over 16 KiB": wire.p_data(
        wire.pdv(5, COMMAND | LAST, wire.plain_command() + wire.implicit(0x5110, bytes(1 << 14)))
    ),
    "empty fragments of a command": wire.p_data(wire.pdv(5, COMMAND, b"")) * 10,
    "command without a command field": wire.p_data(wire.pdv(5, COMMAND | LAST, wire.command((0x0110, b"\1\0")))),
    "command element over the command": wire.p_data(
        wire.pdv(5, COMMAND | LAST, struct.pack("<HHI", 0, 0x100, 0x7FFFFFFF))
    ),
    "data before a command": wire.p_data(wire.pdv(1, LAST, b"x" * 100)),
    "two commands for one data set": wire.store("1.2.3", b"x")[0] * 2,
    "data set in another context": wire.store("1.2.3", b"x")[0] + wire.p_data(wire.pdv(3, LAST, b"x" * 100)),
    "request inside an association": wire.associate_rq(),
    "unknown PDU type": wire.pdu(0x42),
}  # fmt: skip
OTHER_REASON = {"request inside an association": UNEXPECTED_PDU, "unknown PDU type": NOT_A_PDU}


@pytest.mark.parametrize("name", [*OVERSIZED, *BROKEN])
def test_nonsense_in_an_association_is_aborted(box, name):
    """H5 and H6, in an association: A-ABORT, and no answer before it."""
    with guarded(box) as watch:
        line = watch.connect().associate()
        line.try_send({**OVERSIZED, **BROKEN}[name])
        assert wire.abort_reason(line.read()) == OTHER_REASON.get(name, INVALID_PDU)
        line.half_close()
        assert line.rest() == []
        assert line.answered == []


def test_a_second_last_fragment_ends_the_association_and_not_the_object(box):
    """H6: the object was whole at its first last fragment, and stays."""
    with guarded(box) as watch:
        watch.rows = 1
        line = watch.connect().associate()
        uid = "1.2.826.6.1"
        line.send(*wire.store(uid, wire.data_set(uid)), wire.p_data(wire.pdv(1, LAST, b"more")))
        assert line.status() == 0
        assert wire.abort_reason(line.read()) == INVALID_PDU


def test_an_endless_data_set_is_refused_at_the_limit_and_ended(box):
    """H8: 0xA700 and A-ABORT soon after max_object_bytes, not when the sender gets tired."""
    with guarded(box) as watch:
        line = watch.connect().associate()
        line.send(wire.store("1.2.826.8.1", b"")[0])
        block = wire.p_data(wire.pdv(1, 0, bytes(65536)))
        sent = 0
        while sent < 64 * MAX_OBJECT and line.try_send(block):
            sent += len(block)
        try:
            got = line.rest(ARTIM_S + SLACK_S)
        except TimeoutError:
            got = []
        assert [answer.status for answer in line.answered] == [0xA700], f"after {sent >> 20} MiB without an end"
        assert got[-1][0] == ABORT


def test_a_data_set_over_the_limit_that_ends_is_refused(box):
    """H8: with an end it is an answer like any other, and the association goes on."""
    with guarded(box) as watch:
        watch.rows = 1
        line = watch.connect().associate()
        assert line.store("1.2.826.8.2", bytes(MAX_OBJECT + 2)) == 0xA700
        assert line.store("1.2.826.8.2", wire.data_set("1.2.826.8.2", bytes(MAX_OBJECT // 2))) == 0


@pytest.mark.parametrize("end", ["FIN", "RST"])
def test_a_data_set_cut_at_any_byte_is_no_object(box, end):
    """H9: at every byte boundary of a small object; only the whole of it is answered."""
    uid = f"1.2.826.9.{sum(end.encode())}"
    whole = b"".join(wire.store(uid, wire.data_set(uid, b"body"), piece=40))
    with guarded(box) as watch:
        for at in range(len(whole)):
            line = Wire(box.port, f"127.0.2.{at % 200 + 1}").associate().send(whole[:at])
            watch.wires.append(line)
            if end == "RST":
                line.reset()
            else:
                line.half_close()
                assert line.rest() == [], f"an answer after {at} of {len(whole)} bytes"
                line.close()
    with guarded(box) as watch:
        watch.rows = 1
        assert watch.connect().associate().send(whole).status() == 0
