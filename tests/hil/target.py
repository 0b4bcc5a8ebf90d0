"""What is tested: a process on this machine, or what answers at an address. The image in QEMU is in `machine.py`."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Protocol

from gateway.emulator.services import Peer
from tests.broker import Broker
from tests.conftest import Box, until
from tests.hil.rig import ArchiveTable, BoxTable, BrokerTable, Rig, box_config, split
from tests.hil.verdict import Failed
from tests.ports import free_port

LIBFAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
COMMAND_S = 120


class Target(Protocol):
    """A box that the suite can reach, and what can be done to it. `why_not` answers for broker, commitment, folder,
    kill, power, clock and log: why this cannot be, or an empty text."""

    kind: str
    rig: Rig

    @property
    def place(self) -> Peer: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def why_not(self, what: str) -> str: ...
    def kill(self) -> None: ...
    def cut_power(self) -> None: ...
    def restore(self) -> None: ...
    def set_clock(self, offset_s: int) -> None: ...
    def log(self) -> str: ...


RETRIES = "retry_first_s = 0.1\nretry_ceiling_s = 0.5"
IDLE_S = {True: 10.0, False: 60.0}
"""In the short form nobody waits a minute for a scanner to be released; in the full one, scanners take their time.

It is the pace within a message as well: with less, the box gives up a suite that the machine held up for a moment."""
OF_THE_RIG = {"broker": "[broker]", "commitment": "`commitment` in [box]", "folder": "`folder` in [box]"}


def why_not(rig: Rig, what: str) -> str:
    """Say what a rig lacks for this; empty when it lacks nothing."""
    has = {"broker": rig.broker, "commitment": rig.box.commitment, "folder": rig.box.folder}
    return f"the rig has no {OF_THE_RIG[what]}" if what in has and not has[what] else ""


class ProcessTarget:
    """`dicom-gateway run` in a folder of its own, and a broker beside it."""

    kind = "process"

    def __init__(self, folder: Path, *, short: bool) -> None:
        folder.mkdir(parents=True)
        idle_timeout_s = IDLE_S[short]
        self._folder = folder
        (folder / "inbox").mkdir()
        self._broker = Broker(folder / "broker").start()
        archive, mqtt = (f"127.0.0.1:{free_port()}" for _ in range(2))
        to = f"127.0.0.1:{self._broker.port}"
        user = self._broker.as_user("monitor")
        self.rig = Rig(
            name="this machine",
            fresh=True,
            box=BoxTable(commitment=True, folder=folder / "inbox", idle_timeout_s=idle_timeout_s, patience_s=60),
            archive=ArchiveTable(listen=archive, box_sees=archive),
            broker=BrokerTable(listen=mqtt, box_sees=mqtt, to=to, options=user[user.index("--cafile") :], interval_s=2),
        )
        tls = self._broker.table().partition("tls = ")[2]
        told = box_config(self.rig, mqtt_tls=f"tls = {tls}", retries=RETRIES)
        inbox = '[[folder]]\npath = "inbox"\nsettle_s = 0.5'
        self._box = Box(folder, told, inbox, f"idle_timeout_s = {idle_timeout_s:g}")
        self._env: dict[str, str] = {}

    @property
    def place(self) -> Peer:
        return Peer("127.0.0.1", self._box.port, self.rig.box.ae_title)

    def start(self) -> None:
        self._box.start(env=self._env, patience_s=60)

    def stop(self) -> None:
        self._box.stop()
        self._broker.stop()

    def why_not(self, what: str) -> str:
        if what == "power":
            return "a process has no plug; `kill` ends it, and tests/crash replays power cuts"
        if what == "clock" and LIBFAKETIME is None:
            return "libfaketime is not installed: apt-get install faketime"
        return why_not(self.rig, what)

    def kill(self) -> None:
        self._box.kill()

    def cut_power(self) -> None:
        raise NotImplementedError(self.why_not("power"))

    def restore(self) -> None:
        self.start()

    def set_clock(self, offset_s: int) -> None:
        """The process is started anew below libfaketime the first time, and without it for an offset of 0."""
        file = self._folder / "clock"
        fresh = file.with_suffix(".new")
        fresh.write_text(f"{offset_s:+d}\n")
        fresh.rename(file)
        told = {
            "LD_PRELOAD": str(LIBFAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        wanted = told if offset_s else {}
        if wanted != self._env:
            self._env = wanted
            self._box.kill()
            self.start()

    def log(self) -> str:
        return self._box.log()


class AddressTarget:
    """A box at an address; what can be done to it is what its rig file names."""

    kind = "box"

    def __init__(self, place: str, rig: Rig) -> None:
        """Raises ValueError when `place` is not HOST:PORT."""
        self.rig = rig
        self._host, self._port = split(place)

    @property
    def place(self) -> Peer:
        return Peer(self._host, self._port, self.rig.box.ae_title)

    def start(self) -> None:
        if not until(lambda: answers(self.place), 20):
            raise Failed(f"nothing answers a C-ECHO at {self._host}:{self._port}; is the address right, is the box on?")

    def stop(self) -> None:
        """The box goes on."""

    def why_not(self, what: str) -> str:
        if what == "kill":
            return "the service of a box is not ours to kill; `power-cut` is"
        lacking = {"power": not self.rig.power, "clock": not self.rig.clock, "log": not self.rig.box.log}
        return f"the rig has no [{what}]" if lacking.get(what) else why_not(self.rig, what)

    def kill(self) -> None:
        raise NotImplementedError(self.why_not("kill"))

    def cut_power(self) -> None:
        assert self.rig.power is not None
        _run(self.rig.power.cut)

    def restore(self) -> None:
        assert self.rig.power is not None
        _run(self.rig.power.restore)
        if not until(lambda: answers(self.place), self.rig.power.boot_s):
            raise Failed(f"the box did not come back within {self.rig.power.boot_s:g} s")

    def set_clock(self, offset_s: int) -> None:
        assert self.rig.clock is not None
        epoch = int(time.time()) + offset_s
        _run([word.replace("{epoch}", str(epoch)) for word in self.rig.clock.jump])

    def log(self) -> str:
        if not self.rig.box.log:
            return "the rig names no command that prints the box's log\n"
        try:
            done = subprocess.run(self.rig.box.log, capture_output=True, text=True, timeout=COMMAND_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"the rig's command {self.rig.box.log[0]} could not be run: {error}\n"
        return done.stdout + done.stderr


def _run(command: list[str]) -> None:
    """Do what the rig file says. Raises Failed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"the rig's command {command[0]} could not be run: {error}") from error
    if done.returncode:
        raise Failed(f"the rig's command {command[0]} ended with {done.returncode}: {done.stderr.strip()[:300]}")


def answers(peer: Peer) -> bool:
    """True when DCMTK's echoscu is answered."""
    words = ["echoscu", "-to", "5", "-ta", "5", "-aec", peer.ae_title, peer.host, str(peer.port)]
    return subprocess.run(words, capture_output=True, timeout=30).returncode == 0
