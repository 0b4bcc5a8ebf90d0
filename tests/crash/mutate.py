"""Valid streams of PDUs, and many ways to break them. Pure: the same luck breaks them in the same way."""

from __future__ import annotations

import struct
from random import Random

from tests import wire
from tests.wire import COMMAND, CT, EXPLICIT, IMPLICIT, LAST, VERIFICATION

FIND = "1.2.840.10008.5.1.4.1.2.1.1"
CONTEXTS = (*wire.STORAGE, (7, "1.3.46.670589.2.5.1.1", (EXPLICIT,)), (9, FIND, (IMPLICIT,)))
MANY_CONTEXTS = tuple((2 * n + 1, (CT, VERIFICATION, FIND)[n % 3], (EXPLICIT, IMPLICIT)) for n in range(60))
RELEASE, ABORT = wire.pdu(wire.RELEASE_RQ), wire.pdu(wire.ABORT)
BYTES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 0x7F, 0x80, 0xFE, 0xFF)
NUMBERS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0xFFFFFF, 0x1000001, 0x7FFFFFFF)
LARGE = (0x80000000, 0xFFFFFFF0, 0xFFFFFFFA, 0xFFFFFFFE, 0xFFFFFFFF)
MAX_BYTES = 1 << 20
MAX_WRITES = 40


def recordings(luck: Random) -> list[list[bytes]]:
    """One of each kind of association, as PDUs; the objects are new ones or such as came before."""

    def uid() -> str:
        return f"1.2.826.99.{luck.randrange(500)}"

    def body(name: str, size: int) -> bytes:
        return wire.data_set(name, wire.explicit(0x00204000, "UT", Random(name).randbytes(size)))

    one, two, three = uid(), uid(), uid()
    small, large = body(one, 200), body(two, 40_000)
    at_once = [(COMMAND | LAST, wire.store_command(three)), (0, small[:9]), (0, b""), (LAST, small[9:])]
    start = wire.associate_rq(CONTEXTS)
    find = wire.p_data(wire.pdv(9, COMMAND | LAST, wire.plain_command(wire.C_FIND_RQ, 7, FIND)))
    cancel = wire.p_data(wire.pdv(1, COMMAND | LAST, wire.plain_command(wire.C_CANCEL_RQ, 1, CT)))
    halves = [wire.plain_command()[:20], wire.plain_command()[20:]]
    return [
        [start, wire.echo(), RELEASE],
        [start, *(wire.p_data(wire.pdv(5, flags, half)) for flags, half in zip((1, 3), halves, strict=True)), ABORT],
        [start, *wire.store(one, small), RELEASE],
        [start, *wire.store(one, small, piece=7), RELEASE],
        [start, *wire.store(two, large), *wire.store(one, small, 3, 2, 100), wire.echo(message_id=3), RELEASE],
        [start, wire.p_data(*(wire.pdv(1, flags, part) for flags, part in at_once)), RELEASE],
        [start, *wire.store(three, body(three, 900), 7, 9, 300, "1.3.46.670589.2.5.1.1"), ABORT],
        [start, *wire.store(one, small, 9, 4), *wire.store(two, small, 1, 5), RELEASE],
        [start, cancel, find, wire.echo(), *wire.store(three, small, message_id=6), RELEASE],
        [wire.associate_rq(MANY_CONTEXTS), *wire.store(one, small), wire.echo(3), RELEASE],
    ]  # fmt: skip


def _flip(luck: Random, block: bytearray) -> None:
    for _ in range(luck.choice((1, 1, 2, 8))):
        at = luck.randrange(len(block))
        block[at] ^= 1 << luck.randrange(8)


def _overwrite(luck: Random, block: bytearray) -> None:
    block[luck.randrange(len(block))] = luck.choice(BYTES)


def _number(luck: Random, block: bytearray) -> None:
    """An interesting number where a length may be: in the heads of PDU, PDV and item, or anywhere."""
    order, width = luck.choice("<>"), luck.choice((2, 4))
    at = luck.choice((2, 6, 18, 20, 24, 32, 76, luck.randrange(len(block)), luck.randrange(len(block))))
    value = luck.choice(NUMBERS + LARGE) & (256**width - 1)
    block[at : at + width] = struct.pack(order + {2: "H", 4: "I"}[width], value)


def _remove(luck: Random, block: bytearray) -> None:
    at = luck.randrange(len(block))
    del block[at : at + luck.choice((1, 2, 4, 8, 100))]


def _repeat(luck: Random, block: bytearray) -> None:
    at = luck.randrange(len(block))
    block[at:at] = block[at : at + luck.choice((1, 4, 16, 200))] * luck.choice((1, 1, 3, 50))


def _insert(luck: Random, block: bytearray) -> None:
    at = luck.randrange(len(block) + 1)
    block[at:at] = luck.randbytes(luck.choice((1, 2, 4, 6, 64, 1000)))


def _cut(luck: Random, block: bytearray) -> None:
    del block[luck.randrange(len(block)) :]


IN_A_PDU = (_flip, _flip, _overwrite, _overwrite, _number, _number, _number, _remove, _repeat, _insert, _cut)


def _drop_pdu(luck: Random, pdus: list[bytes], other: list[bytes]) -> None:
    del pdus[luck.randrange(len(pdus))]


def _double_pdu(luck: Random, pdus: list[bytes], other: list[bytes]) -> None:
    at = luck.randrange(len(pdus))
    pdus[at:at] = [pdus[at]] * luck.choice((1, 1, 5))


def _swap_pdus(luck: Random, pdus: list[bytes], other: list[bytes]) -> None:
    one, two = luck.randrange(len(pdus)), luck.randrange(len(pdus))
    pdus[one], pdus[two] = pdus[two], pdus[one]


def _foreign_pdu(luck: Random, pdus: list[bytes], other: list[bytes]) -> None:
    pdus.insert(luck.randrange(len(pdus) + 1), luck.choice(other))


def _splice(luck: Random, pdus: list[bytes], other: list[bytes]) -> None:
    pdus[luck.randrange(len(pdus)) :] = other[luck.randrange(len(other)) :]


AMONG_PDUS = (_drop_pdu, _double_pdu, _swap_pdus, _foreign_pdu, _splice)


def mutated(luck: Random) -> bytes:
    """The bytes of one association, broken in up to four places; one in twenty is left whole."""
    streams = recordings(luck)
    pdus, other = list(luck.choice(streams)), luck.choice(streams)
    if luck.random() < 0.05:
        return b"".join(pdus)
    for _ in range(luck.choice((1, 1, 1, 2, 4))):
        if luck.random() < 0.35:
            luck.choice(AMONG_PDUS)(luck, pdus, other)
        else:  # seldom in the request: behind a broken one nothing else is looked at
            at = luck.randrange(len(pdus)) if luck.random() < 0.2 or len(pdus) < 2 else luck.randrange(1, len(pdus))
            block = bytearray(pdus[at] or b"\0")
            luck.choice(IN_A_PDU)(luck, block)
            pdus[at] = bytes(block)
        pdus = pdus or [RELEASE]
    return b"".join(pdus)[:MAX_BYTES]


def writes(luck: Random, content: bytes) -> list[bytes]:
    """How the bytes are cut into TCP segments: in one, in a few, or a drip at the start."""
    kind = luck.random()
    if kind < 0.4:
        return [content]
    if kind < 0.5:
        return [*(content[at : at + 1] for at in range(min(MAX_WRITES, len(content)))), content[MAX_WRITES:]]
    places = sorted(luck.randrange(len(content) + 1) for _ in range(luck.choice((1, 2, 10, MAX_WRITES))))
    return [content[a:b] for a, b in zip([0, *places], [*places, len(content)], strict=True)]
