"""Central IT's side: thousands of simulated boxes on one mosquitto, and `fleet serve` watching them.

Plain TCP on this machine: TLS between broker and boxes is the broker's work, not the monitor's. Broker and simulator
share the processors with the monitor; only what is said of the monitor is its own.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from latency import quantiles
from peers import listens

from gateway.fleet.likeness import Likeness
from gateway.fleet.line import Broker, Line
from gateway.fleet.wire import Publication, connect
from tests.ports import free_port

LIMITS = "max_packet_size 131072\nmax_queued_messages 200000\nmax_inflight_messages 1000\nset_tcp_nodelay true\n"
"""As in gateway/fleet/examples/mosquitto.conf."""
PROBE = 'gateway="sim-99999'


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int, field: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+)", status, re.MULTILINE)[1]) / 1024


class Fleet:
    """Broker, monitor and simulator."""

    def __init__(self, work: Path) -> None:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the broker inherits it
        self.port, self.page = free_port(), free_port()
        self._conf, self._toml, self.work = work / "mosquitto.conf", work / "fleet.toml", work
        self._conf.write_text(
            f"user root\nlistener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n{LIMITS}"
        )
        self._toml.write_text(
            f'tenants = ["simulated"]\n[broker]\nhost = "127.0.0.1"\nport = {self.port}\n'
            f'[page]\nport = {self.page}\n[store]\npath = "{work}/fleet.db"\n'
        )
        self.broker = self.start_broker()
        self.monitor = self._ours("serve", "-q")
        listens(self.page)
        self.simulator: subprocess.Popen | None = None

    def start_broker(self) -> subprocess.Popen:
        self.broker = subprocess.Popen(
            ["/usr/sbin/mosquitto", "-c", str(self._conf)],
            stderr=subprocess.DEVNULL,
        )
        listens(self.port)
        return self.broker

    def _ours(self, *words: str) -> subprocess.Popen:
        with open(self.work / f"{words[0]}.log", "ab") as log:
            command = [sys.executable, "-m", "gateway", "fleet", *words, "--config", str(self._toml)]
            return subprocess.Popen(command, stdout=log, stderr=log)

    def simulate(self, boxes: int, *more: str) -> float:
        """Start so many boxes; return seconds until the monitor shows all of them online."""
        began = time.perf_counter()
        self.simulator = self._ours("simulate", "-n", str(boxes), "--json", *more)
        self.wait(lambda: self.shown()["online"] >= 0.97 * boxes, 600, "not all boxes are shown")
        connected = 'dicom_fleet_connected{tenant="simulated"} 1.0'
        self.wait(lambda: connected in self.metrics(), 300, "the monitor has not heard all that is retained")
        return time.perf_counter() - began

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.page}/metrics", timeout=60) as answer:
            return answer.read().decode()

    def shown(self) -> dict[str, int]:
        pairs = re.findall(r'^dicom_fleet_boxes{presence="(\w+)",tenant="simulated"} ([\d.]+)$', self.metrics(), re.M)
        return {presence: int(float(count)) for presence, count in pairs}

    def heard_since(self, wall: float) -> int:
        """Return how many boxes said something since then; for what the broker kept that is known to a second."""
        times = re.findall(r"^dicom_fleet_box_heard_timestamp_seconds{[^}]*} ([\d.e+]+)$", self.metrics(), re.MULTILINE)
        return sum(float(at) > wall for at in times)

    def wait(self, done, patience_s: float, complaint: str) -> float:
        began = time.perf_counter()
        while not done():
            if time.perf_counter() - began > patience_s:
                raise SystemExit(f"{complaint}: {self.shown()}")
            time.sleep(0.25)
        return time.perf_counter() - began

    def stop(self) -> None:
        for process in (self.simulator, self.monitor, self.broker):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(60)

    def numbers(self) -> dict:
        """What the simulator said last."""
        return json.loads((self.work / "simulate.log").read_text().splitlines()[-1])


class Probe:
    """One more box, that is driven by hand."""

    def __init__(self, fleet: Fleet, number: int, will_delay_s: int) -> None:
        self.likeness = Likeness(number, 1, "simulated", 60.0, time.time(), steady=True)
        self.likeness.begin_session()
        greeting = connect(self.likeness.id, 60, 600, self.likeness.will(time.time()), will_delay_s)
        self.line = Line(Broker(("127.0.0.1", fleet.port)), greeting)
        self.turn(lambda: self.line.up)
        self.line.say(*self.likeness.greeting(time.time(), 1.0))
        self.turn(lambda: self.line.idle)

    def turn(self, done) -> None:
        deadline = time.monotonic() + 30
        while not done():
            list(self.line.ready())
            if time.monotonic() > deadline:
                raise SystemExit("the broker does not answer the probe")
            time.sleep(0.001)

    def tell(self, objects: int) -> float:
        """Say that so many objects wait; return when."""
        now = time.time()
        told = self.likeness.health(self.likeness.state(now, 1.0), now)
        body = json.loads(told.payload)
        body["queue"]["objects"] = objects
        at = time.perf_counter()
        self.line.say(Publication(told.topic, json.dumps(body).encode(), told.schema, expiry_s=told.expiry_s))
        self.line.flush()
        return at


def _latency(fleet: Fleet, count: int) -> list[float]:
    probe, waits = Probe(fleet, 99999, 30), []
    for number in range(1, count + 1):
        at = probe.tell(number)
        shown = re.compile(rf"^dicom_fleet_box_unsent_objects{{[^}}]*{PROBE}[^}}]*}} {number}\.0$", re.MULTILINE)
        while not shown.search(fleet.metrics()):
            if time.perf_counter() - at > 90:
                raise SystemExit(f"message {number} of the probe never came to /metrics")
        waits.append(time.perf_counter() - at)
        probe.turn(lambda: probe.line.idle)
        time.sleep(0.5)
    probe.line.close()
    return waits


def _hard_cuts(fleet: Fleet, delay_s: int, count: int) -> list[float]:
    waits = []
    for number in range(count):
        probe = Probe(fleet, 99990 - number, delay_s)
        label = f'gateway="{probe.likeness.id}"'
        online, offline = (re.compile(rf"^dicom_fleet_box_online{{[^}}]*{label}[^}}]*}} {n}\.0$", re.M) for n in (1, 0))
        fleet.wait(lambda online=online: online.search(fleet.metrics()), 30, "the probe is not shown")
        cut_at = time.perf_counter()
        probe.line.close()
        fleet.wait(lambda offline=offline: offline.search(fleet.metrics()), 60, "a cut box stays online")
        waits.append(time.perf_counter() - cut_at - delay_s)
    return waits


def fleet(work: Path, quick: bool) -> None:
    boxes, watch_s, samples = (1000, 20, 40) if quick else (10_000, 120, 120)
    run = Fleet(work)
    try:
        seconds = run.simulate(boxes, "--hasten", "1", "--ramp", "100" if quick else "150")
        print(
            f"{boxes} simulated boxes are all shown after {seconds:.0f} s (they connect at a bounded pace)", flush=True
        )
        time.sleep(5 if quick else 60)
        pid, began_cpu, began = run.monitor.pid, cpu_s(run.monitor.pid), time.perf_counter()
        heard, scrapes = _heard(run), []
        while time.perf_counter() - began < watch_s:
            time.sleep(min(15, watch_s))
            asked_at = time.perf_counter()
            size = len(run.metrics())
            scrapes.append(time.perf_counter() - asked_at)
        span = time.perf_counter() - began
        share, rate = 100 * (cpu_s(pid) - began_cpu) / span, (_heard(run) - heard) / span
        print(
            f"fleet serve with {boxes} boxes, {rate:.0f} messages/s, /metrics of {size / 1e6:.1f} MB every 15 s "
            f"in {max(scrapes):.1f} s at most: "
            f"{share:.1f} % of a core (target <= 50), RSS {memory_mb(pid, 'VmRSS'):.0f} MB, "
            f"peak {memory_mb(pid, 'VmHWM'):.0f} MB (target <= 400)",
            flush=True,
        )
        print(
            f"publish to /metrics, n={samples}: {quantiles(_latency(run, samples))}  target p99 <= 2000 ms", flush=True
        )
        cuts = _hard_cuts(run, 2, 3)
        print(f"hard cut to offline, after the will delay of 2 s: worst {max(cuts):.2f} s  target <= 2", flush=True)
        print(f"the simulator: {json.dumps(run.numbers())}", flush=True)
    finally:
        run.stop()
    restart(work, quick)


def _heard(run: Fleet) -> float:
    return float(re.search(r"^dicom_fleet_messages_total ([\d.e+]+)", run.metrics(), re.MULTILINE)[1])


def restart(work: Path, quick: bool) -> None:
    """The broker is killed with all boxes connected, and comes back knowing nothing."""
    boxes = 500 if quick else 2000
    place = work / "restart"
    place.mkdir()
    run = Fleet(place)
    try:
        run.simulate(boxes, "--steady", "--ramp", "200")
        run.wait(lambda: run.shown()["online"] == boxes, 120, "not all boxes are online")
        run.broker.kill()
        run.broker.wait()
        time.sleep(5)
        run.start_broker()
        back_at = time.time()
        everybody = {"online": boxes, "stale": 0, "offline": 0}
        seconds = run.wait(
            lambda: run.heard_since(back_at - 3) == boxes and run.shown() == everybody, 180, "boxes are stuck"
        )
        print(
            f"broker restart with {boxes} boxes: all heard again and shown right after {seconds:.1f} s (target <= 60)",
            flush=True,
        )
    finally:
        run.stop()
