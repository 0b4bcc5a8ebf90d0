"""How long a scanner waits: from its last data byte to the C-STORE-RSP, and for a C-ECHO beside others' full speed."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import threading
import time
from pathlib import Path

from material import make_ct
from peers import STORESCU, TUNED, Gateway

from gateway.dicom.requestor import Peer, Requestor

CT, EXPLICIT_LE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
VERIFICATION = ("1.2.840.10008.1.1", "1.2.840.10008.1.2")
OBJECT_BYTES, ROW_BYTES = 525_000, 40_000
"""A CT image, and what one ledger transaction writes."""


def quantiles(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * q))] * 1000 for q in (0.5, 0.99))
    return f"p50 {p50:6.2f} ms  p99 {p99:6.2f} ms"


class TimedRequestor(Requestor):
    """Knows when the last byte of a data set was given to the kernel."""

    def __init__(self, peer: Peer) -> None:
        super().__init__(peer, [(CT, EXPLICIT_LE)])
        self.waits: list[float] = []

    def _reply(self) -> tuple[int, str]:
        started = time.perf_counter()
        answer = super()._reply()
        self.waits.append(time.perf_counter() - started)
        return answer


def _sender(port: int, number: int, count: int, results: multiprocessing.Queue) -> None:
    content = os.urandom(OBJECT_BYTES)
    requestor = TimedRequestor(Peer("127.0.0.1", port, "GW", "BENCH", 30.0))
    for image in range(count):
        status, _ = requestor.store(1, CT, f"1.2.3.{number}.{image}", [image.to_bytes(4, "big") + content])
        if status not in (0x0000, 0xB007):
            raise SystemExit(f"refused: 0x{status:04X}")
    requestor.release()
    results.put(requestor.waits)


def response_time(work: Path, quick: bool) -> None:
    for associations in (1, 4):
        gateway = Gateway(work / f"gw{associations}")
        context = multiprocessing.get_context("spawn")
        results = context.Queue()
        senders = [
            context.Process(target=_sender, args=(gateway.port, n, (100 if quick else 400) // associations, results))
            for n in range(associations)
        ]
        for sender in senders:
            sender.start()
        waits = [wait for _ in senders for wait in results.get(timeout=120)]
        for sender in senders:
            sender.join(30)
        gateway.stop()
        print(f"last data byte to C-STORE-RSP, {associations} assoc.     {quantiles(waits)}", flush=True)
    print(f"the flushes of one image alone            {quantiles(_flushes(work, 200))}", flush=True)


def _flushes(work: Path, count: int) -> list[float]:
    """What the disk takes for one image's two flushes: its bytes in a new file, a ledger transaction in an old one."""
    content, row = os.urandom(OBJECT_BYTES), os.urandom(ROW_BYTES)
    journal = os.open(work / "journal", os.O_RDWR | os.O_CREAT)
    os.write(journal, row)
    os.fsync(journal)
    waits = []
    for number in range(count):
        file = os.open(work / f"flush{number}", os.O_RDWR | os.O_CREAT)
        os.write(file, content)
        started = time.perf_counter()
        os.fdatasync(file)
        os.pwrite(journal, row, 0)
        os.fdatasync(journal)
        waits.append(time.perf_counter() - started)
        os.close(file)
    os.close(journal)
    return waits


def echo_beside_load(work: Path, quick: bool) -> None:
    """A C-ECHO every 100 ms on its own association while four others send at full speed."""
    folders = [make_ct(work / f"m{n}", 100, 80 + n) for n in range(4)]
    gateway = Gateway(work / "gw")
    requestor = Requestor(Peer("127.0.0.1", gateway.port, "GW", "BENCH", 30.0), [VERIFICATION])
    over = threading.Event()

    def load() -> None:
        for _ in range(3 if quick else 10):  # the same images again: the same work up to the ledger
            senders = [
                subprocess.Popen([STORESCU, "+sd", "127.0.0.1", str(gateway.port), str(folder)], env=TUNED)
                for folder in folders
            ]
            for sender in senders:
                sender.wait()
        over.set()

    loader = threading.Thread(target=load)
    loader.start()
    waits = []
    while not over.is_set():
        started = time.perf_counter()
        assert requestor.echo(1) == 0
        waits.append(time.perf_counter() - started)
        time.sleep(0.1)
    loader.join()
    requestor.release()
    gateway.stop()
    print(f"C-ECHO beside four full senders, n={len(waits):4}    {quantiles(waits)}  target p99 <= 50 ms", flush=True)
