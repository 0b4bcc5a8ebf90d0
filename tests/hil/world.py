"""What stands around the box: an archive behind a line that can be bad, a broker behind another, and who listens."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.emulator.line import Line
from gateway.emulator.pacs import Pacs
from gateway.emulator.rules import Rule
from gateway.emulator.shelf import Received, Shelf
from gateway.emulator.wan import Wan
from tests.broker import Record
from tests.conftest import until
from tests.hil.rig import Rig, split
from tests.hil.timeline import Timeline
from tests.hil.verdict import Object

REFUSED_S = 1.0
"""A broker that does not answer says so within this time, mostly."""
TRUSTED_S = 10.0
"""So long may it take until something is heard or refused: the one who listens has to start first."""


class World:
    """The surroundings that a rig describes, from `start` to `stop`."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self.rig, self.folder = rig, folder
        self.kept = folder / "archive"
        """Files of what arrived, until the case that it belongs to has passed."""
        self.kept.mkdir(parents=True)
        self.before: set[Object] = set()
        """What the archive has from earlier runs."""
        path = rig.archive.journal or folder / "archive.jsonl"
        self._log = open(path, "a+")  # noqa: SIM115 (closed by stop)
        self._log.seek(0)
        for text in self._log:
            one = Received(**json.loads(text))
            if one.kept:
                self.before.add((one.sop_instance_uid, one.sha256))
        self.shelf = Shelf(self.kept, self._log)
        self.archive = Pacs(ae_title=rig.archive.ae_title, shelf=self.shelf)
        self.timeline = Timeline(lambda: self.shelf.received)
        self.line: Wan
        self.broker_line: Wan | None = None
        self._lines: list[Wan] = []
        self.heard: Record | None = None
        self._ear: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Listen. Raises OSError when a place of the rig is taken."""
        self.archive.start()
        host, port = split(self.rig.archive.listen)
        self.line = Wan(Line(), ("127.0.0.1", self.archive.port), address=host, port=port)
        self.line.start()
        self._lines.append(self.line)
        if self.rig.broker is not None:
            host, port = split(self.rig.broker.listen)
            self.broker_line = Wan(Line(), split(self.rig.broker.to), address=host, port=port)
            self.broker_line.start()
            self._lines.append(self.broker_line)
            self._listen()

    def _listen(self) -> None:
        assert self.rig.broker is not None
        host, port = split(self.rig.broker.to)
        path = self.folder / "mqtt.jsonl"
        topic = f"gw/v1/{self.rig.box.tenant}/{self.rig.box.mqtt_id}/#"
        words = ["mosquitto_sub", "-V", "5", "-h", host, "-p", str(port), *self.rig.broker.options]
        with open(path, "wb") as file, open(self.folder / "mqtt.log", "wb") as log:
            self._ear = subprocess.Popen([*words, "-q", "1", "-F", "%j", "-t", topic], stdout=file, stderr=log)
        self.heard = Record(path)
        try:
            self._ear.wait(REFUSED_S)
        except subprocess.TimeoutExpired:
            pass  # it listens

    def deaf(self) -> str:
        """Say why nothing is heard by MQTT; empty when something could be."""
        ear, heard = self._ear, self.heard
        if ear is None or heard is None:
            return ""
        until(lambda: ear.poll() is not None or heard.text(), TRUSTED_S)
        if ear.poll() is not None:
            return "the suite cannot listen at the broker: " + (self.folder / "mqtt.log").read_text().strip()
        return ""

    def known(self) -> set[Object]:
        """Return all that the archive has, from earlier runs too."""
        return self.timeline.arrived() | self.before

    @contextmanager
    def archive_that(self, *rules: Rule) -> Iterator[Pacs]:
        """While this lasts, another archive with these habits stands in the place of the usual one."""
        usual, port = self.archive, self.archive.port
        usual.stop()
        self.archive = Pacs(port, ae_title=self.rig.archive.ae_title, shelf=self.shelf, rules=rules)
        self.archive.start()
        try:
            yield self.archive
        finally:
            self.archive.stop()
            self.archive = usual
            usual.start()

    @contextmanager
    def no_archive(self) -> Iterator[None]:
        """While this lasts, the archive is switched off."""
        self.archive.stop()
        try:
            yield
        finally:
            self.archive.start()

    def stop(self) -> None:
        """End all of it."""
        self.timeline.close()
        if self._ear is not None:
            self._ear.kill()
            self._ear.wait(10)
        for line in self._lines:
            line.close()
        self.archive.stop()
        self._log.close()


@contextmanager
def bad(line: Wan, how: Line) -> Iterator[None]:
    """While this lasts, a line is another one; what was open on it is cut."""
    line.set_line(how)
    line.cut()
    try:
        yield
    finally:
        line.set_line(Line())
