"""What it costs a box to tell how it is: processor, bytes on the line, the rate of receiving beside a bad broker."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from pathlib import Path
from statistics import median

from material import make_ct
from peers import Gateway, dcmtk, push
from reception import rates

from tests.broker import Broker


class Counter:
    """Passes bytes on between a box and its broker, and counts them: TLS records, without TCP and IP headers."""

    def __init__(self, broker: int) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._broker = broker
        self.bytes = 0
        self.blocks = 0
        """Reads: about the number of segments."""
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            here, _ = self._server.accept()
            there = socket.create_connection(("127.0.0.1", self._broker))
            threading.Thread(target=self._pass, args=(here, there), daemon=True).start()

    def _pass(self, here: socket.socket, there: socket.socket) -> None:
        with selectors.DefaultSelector() as selector, here, there:
            selector.register(here, selectors.EVENT_READ, there)
            selector.register(there, selectors.EVENT_READ, here)
            while True:
                for key, _ in selector.select():
                    try:
                        block = key.fileobj.recv(65536)
                        if not block:
                            return
                        self.bytes += len(block)
                        self.blocks += 1
                        key.data.sendall(block)
                    except OSError:
                        return


def _table(broker: Broker, port: int) -> str:
    """[mqtt] with every default."""
    lines = [line for line in broker.table().splitlines() if not line.startswith(("interval_s", "will_delay_s"))]
    return "\n".join(lines).replace(f"port = {broker.port}", f"port = {port}") + "\n"


def _scanner(gateway: Gateway, folder: Path, over: threading.Event) -> None:
    """A study every minute."""
    while not over.wait(60):
        push(gateway.port, [folder])


class Told:
    """A gateway with a broker of its own, and what passes between them."""

    def __init__(self, work: Path, archive: int) -> None:
        work.mkdir()
        self._broker = Broker(work / "broker").start()
        self.counter = Counter(self._broker.port)
        self.gateway = Gateway(work / "gateway", archive, tables=_table(self._broker, self.counter.port))
        self._before = (0, 0, 0.0)

    def begin(self) -> None:
        self._before = (self.counter.bytes, self.counter.blocks, self.gateway.cpu_s())

    def spent(self) -> tuple[int, int, float]:
        """Bytes, segments and seconds of a processor since `begin`."""
        now = (self.counter.bytes, self.counter.blocks, self.gateway.cpu_s())
        return tuple(after - before for after, before in zip(now, self._before, strict=True))

    def stop(self) -> None:
        self.gateway.stop()
        self._broker.stop()


def cost(work: Path, quick: bool) -> None:
    """An idle box, a busy one, and an idle one without [mqtt], all at once; after the greeting."""
    seconds = 240 if quick else 1800
    archive, study = dcmtk(work / "archive", "--fork"), make_ct(work / "study", 20, 5)
    idle, busy = Told(work / "idle", archive.port), Told(work / "busy", archive.port)
    plain, over = Gateway(work / "plain", archive.port), threading.Event()
    try:
        threading.Thread(target=_scanner, args=(busy.gateway, study, over), daemon=True).start()
        time.sleep(20)
        before = plain.cpu_s()
        idle.begin()
        busy.begin()
        time.sleep(seconds)
        alone_s, spent = plain.cpu_s() - before, {"idle": idle.spent(), "a study a minute": busy.spent()}
    finally:
        over.set()
        for each in (idle, busy, plain, archive):
            each.stop()
    mine_s = spent["idle"][2]
    print(
        f"health at the default interval: {100 * (mine_s - alone_s) / seconds:.2f} % of a core (target <= 0.5); "
        f"the whole idle gateway {100 * mine_s / seconds:.2f} %",
        flush=True,
    )
    for what, (size, segments, _) in spent.items():
        kilo = 3.6 / seconds
        print(
            f"on the line, {what}: {size * kilo:.0f} kB/h (target <= 100), "
            f"with 40 bytes of headers a segment {(size + 40 * segments) * kilo:.0f} kB/h",
            flush=True,
        )


def hanging(work: Path, quick: bool) -> None:
    """Receiving with a broker that takes the connection and says nothing, beside receiving without [mqtt]."""
    folders = [make_ct(work / "m", 200, 70)]
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        table = f'[mqtt]\nhost="127.0.0.1"\nport={silent.getsockname()[1]}\n'
        makers = [lambda place: Gateway(place / "gw", tables=table), lambda place: Gateway(place / "gw")]
        beside, alone = rates(work, makers, folders, 200, 3 if quick else 9)
    ratio = median(a / b for a, b in zip(beside, alone, strict=True))
    print(f"receiving with the broker hanging / without MQTT: {ratio:.3f}  target >= 0.98", flush=True)


def health(work: Path, quick: bool) -> None:
    for part in (hanging, cost):
        (work / part.__name__).mkdir()
        part(work / part.__name__, quick)
