"""The whole life of a few objects in one thread: accept, commit, send, confirm, retire, and recovery at its beginning.

Run as a program with a data directory: `python life.py DATA [OBJECTS]`. It says on standard output what a scanner and
an archive would write down, each line when it happened, so that whoever kills it, breaks its system calls or rebuilds
the disk as it was at some moment knows what was promised by then. Every second object is owed to a destination that
never answers, and is held at the end. Exit code 75: the disk did not let it go on; it is to be started again.

`LIFE_SABOTAGE=no-flush` leaves out the flush of the data, `no-names` that of folders: either must be noticed.
`LIFE_SHORT_WRITE=N`: the kernel takes only half of what the Nth write of an object gives it, as it may.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gateway.config.schema import SpoolSettings
from gateway.confirm.evidence import Findings, settle
from gateway.model.errors import Refused, SpoolError
from gateway.model.instance import Door, Header, Origin, Priority
from gateway.model.verdict import Verdict
from gateway.model.way import Way
from gateway.retire.sweeper import Sweeper
from gateway.spool.spool import Spool
from tests import wire

T = TypeVar("T")
ATTEMPTS = 6
DESTINATION = "pacs"


def body_of(number: int) -> tuple[str, bytes]:
    """The same number is the same object, whoever asks."""
    uid = f"1.2.826.0.1.3680043.8.498.{number + 1}"
    noise = hashlib.shake_128(uid.encode()).digest(3000 + 700 * number)
    return uid, wire.data_set(uid, wire.explicit(0x7FE00010, "OW", noise))


Say = Callable[[str], None]


def say(line: str) -> None:
    """On standard output at once, so that the line's place among the system calls is when it happened."""
    os.write(1, f"{line}\n".encode())


def again(step: Callable[[], T]) -> T:
    """A fault of the disk passes, or it does not: then the next start must put things right."""
    for _ in range(ATTEMPTS):
        try:
            return step()
        except (SpoolError, Refused):
            time.sleep(0.01)
    raise SystemExit(75)


def accept(spool: Spool, number: int, say: Say = say) -> None:
    uid, content = body_of(number)
    identity = (wire.CT, uid, wire.EXPLICIT)

    def take() -> None:
        part = spool.new_part(identity)
        try:
            part.write(content)
        except OSError as error:
            part.drop()
            raise SpoolError(str(error)) from error
        spool.take(part, Header(wire.CT, uid, "1.2.3", "1.2.4", "CT"), Origin(Door.IMPORT), identity)

    sha256 = hashlib.sha256(content).hexdigest()
    say(f"sent {uid} {sha256}")
    again(take)
    say(f"acknowledged {uid} {sha256}")


def deliver(spool: Spool, say: Say = say) -> None:
    """Carry what is due, as a lane does: claimed, read with its proof, told to the archive, written down."""
    for claim in again(lambda: spool.claim(DESTINATION, Priority.NORMAL, 100, 1.0)):
        content = again(lambda claim=claim: b"".join(spool.body(claim.held)))
        say(f"delivered {claim.held.instance.sop_instance_uid} {hashlib.sha256(content).hexdigest()}")
        again(lambda claim=claim: spool.record(claim, Verdict.accepted(0), 0.0, suffices=False).outcome())


def confirm(spool: Spool) -> None:
    """Ask for commitment about what is SENT, and settle it."""
    sent = again(lambda: spool.reader.to_be_evidenced(DESTINATION, time.time() + 1, 3600.0, 100))
    seqs = [one.seq for one in sent]
    if seqs:
        again(lambda: spool.change(lambda ledger: ledger.ask(seqs, DESTINATION, 0.0, f"2.25.{time.time_ns()}")))
        again(lambda: settle(spool, DESTINATION, Findings(kept=seqs), "storage commitment", 0.0))


def retire(spool: Spool) -> None:
    sweeper, settings = Sweeper(spool), SpoolSettings(retention_days=0)
    while again(lambda: sweeper.sweep(settings, time.time() + 1)):
        pass


def live(data: Path, objects: int, say: Say = say) -> None:
    spool = Spool(data, 0, 100, router)
    for number in range(objects):
        accept(spool, number, say)
        if number % 4 == 3:
            deliver(spool, say)
            confirm(spool)
            retire(spool)
    deliver(spool, say)
    confirm(spool)
    retire(spool)
    spool.close()


def router(instance, _beginning) -> dict[str, Way]:
    last = int(instance.sop_instance_uid.rpartition(".")[2])
    return {DESTINATION: Way(), **({"never": Way()} if last % 2 else {})}


def cut_short(nth: int) -> None:
    """Let the Nth write take half; says `cut short` when it came to that."""
    honest, count = os.pwrite, 0

    def pwrite(fd: int, block: memoryview, at: int) -> int:
        nonlocal count
        count += 1
        if count == nth:
            say("cut short")
            block = block[: (len(block) + 1) // 2]
        return honest(fd, block, at)

    os.pwrite = pwrite


if __name__ == "__main__":
    cut_short(int(os.environ.get("LIFE_SHORT_WRITE", "0")))
    sabotage = os.environ.get("LIFE_SABOTAGE")
    if sabotage == "no-flush":
        os.fdatasync = lambda fd: None
    elif sabotage == "no-names":
        os.fsync = lambda fd: None
    try:
        live(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 4)
    except SpoolError as error:
        print(error.detail, file=sys.stderr)
        raise SystemExit(75) from error
