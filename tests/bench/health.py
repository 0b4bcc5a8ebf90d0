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


def cost(work: Path, quick: bool) -> None:
    """CPU with and without [mqtt], in turn on two gateways at once; bytes on the line after the greeting."""
    seconds = 150 if quick else 900
    broker = Broker(work / "broker").start()
    counter, archive = Counter(broker.port), dcmtk(work / "archive", "--fork")
    study = make_ct(work / "study", 20, 5)
    told = [Gateway(work / name, archive.port, tables=_table(broker, counter.port)) for name in ("idle", "busy")]
    plain = Gateway(work / "plain", archive.port)
    over = threading.Event()
    counters = []
    try:
        threading.Thread(target=_scanner, args=(told[1], study, over), daemon=True).start()
        time.sleep(20)
        began = [gateway.cpu_s() for gateway in (told[0], plain)]
        counters.append((counter.bytes, counter.blocks))
        time.sleep(seconds)
        both = counter.bytes - counters[0][0]
        segments = counter.blocks - counters[0][1]
        spent = [gateway.cpu_s() - before for gateway, before in zip((told[0], plain), began, strict=True)]
    finally:
        over.set()
        for gateway in (*told, plain):
            gateway.stop()
        archive.stop()
        broker.stop()
    hour, whole = 3600 / seconds, both + 40 * segments
    print(
        f"health at the default interval: {100 * (spent[0] - spent[1]) / seconds:.2f} % of a core (target <= 0.5), "
        f"the whole idle gateway {100 * spent[0] / seconds:.2f} %",
        flush=True,
    )
    print(
        f"on the line, an idle and a busy box together: {both * hour / 1000:.0f} kB/h of TLS, "
        f"{segments * hour:.0f} segments/h (with 40 bytes of headers each {whole * hour / 1000:.0f} kB/h)",
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
