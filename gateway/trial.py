"""A configuration that came from far away is on trial: unless the box still reaches who it reached before, the old one
comes back by itself. A trial outlives a restart."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from gateway.config.load import load, parse
from gateway.health.commands import Done
from gateway.model.errors import ConfigError, GatewayError
from gateway.model.verdict import Outcome
from gateway.send.couriers import COURIERS
from gateway.spool.files import replace_file

if TYPE_CHECKING:
    from gateway.app import Gateway

log = logging.getLogger("gateway.trial")

CONFIRM_S = 120
RELOAD_S = 30.0
PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class _Record:
    """What must be known to go back, or to stay."""

    command_id: str
    before: str
    """Text of the file that was in force."""
    reached: list[str]
    """Destinations that answered before."""
    connected: bool
    """The broker was reached before."""
    confirm_s: float


class Trial:
    """One at a time."""

    def __init__(self, gateway: Gateway, finish: Callable[[str, Done], None]) -> None:
        """`finish` hears how a trial ended, by the id of its command."""
        self._gateway = gateway
        self._finish = finish
        self._path = gateway.settings.gateway.data_dir / "config-trial.json"
        self.busy = False
        """A configuration is on trial."""

    def begin(self, command_id: str, text: str, sha256: str, confirm_s: float = CONFIRM_S) -> Done:
        """Put a configuration on trial, or say why not."""
        gateway = self._gateway
        if gateway.config_path is None:
            return Done(False, "no_file")
        if self.busy:
            return Done(False, "busy")
        if hashlib.sha256(text.encode()).hexdigest() != sha256:
            return Done(False, "digest_differs")
        try:
            new, before = parse(text, gateway.config_path).settings, gateway.config_path.read_text()
        except ConfigError:
            return Done(False, "not_valid")
        except (OSError, ValueError):
            return Done(False, "no_file")
        if before == text:
            return Done(True, "unchanged")
        if any(getattr(gateway.settings, name) != getattr(new, name) for name in gateway.FIXED):
            return Done(False, "needs_restart")
        self.busy = True
        gateway.supervisor.spawn("trial", lambda: self._run(command_id, text, before, confirm_s))
        return Done(True, later=True)

    def resume(self) -> None:
        """Go on with a trial that a restart interrupted."""
        try:
            record = _Record(**json.loads(self._path.read_bytes()))
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError):
            log.error("trial_unreadable")
            return
        self.busy = True
        self._gateway.supervisor.spawn("trial", lambda: self._judge(record))

    def _run(self, command_id: str, text: str, before: str, confirm_s: float) -> None:
        reached = [name for name in list(self._gateway.lanes) if self._reaches(name)]
        record = _Record(command_id, before, reached, self._connected(), confirm_s)
        try:
            replace_file(self._path, json.dumps(asdict(record)))
            self._put(text)
        except OSError as error:
            log.error("trial_failed reason=%s", error.strerror)
            self._end(record, Done(False, "not_written"))
            return
        self._judge(record)

    def _judge(self, record: _Record) -> None:
        """Stay as soon as all who were reached are reached; go back when that takes too long."""
        deadline = time.monotonic() + record.confirm_s
        while time.monotonic() < deadline:
            time.sleep(PAUSE_S)
            known = [name for name in record.reached if name in self._gateway.lanes]
            reached = (self._connected() or not record.connected) and all(self._reaches(name) for name in known)
            if reached and self._in_force():
                log.warning("trial_passed")
                self._end(record, Done(True, "applied"))
                return
        log.error("trial_rolled_back")
        try:
            self._put(record.before)
        except OSError as error:
            log.error("trial_failed reason=%s", error.strerror)
        self._end(record, Done(False, "rolled_back"))

    def _put(self, text: str) -> None:
        """Put a file in force, and wait until it is."""
        path = self._gateway.config_path
        assert path is not None
        replace_file(path, text)
        reloads = self._gateway.reloads
        self._gateway.request_reload()
        deadline = time.monotonic() + RELOAD_S
        while self._gateway.reloads == reloads and time.monotonic() < deadline:
            time.sleep(0.1)

    def _end(self, record: _Record, done: Done) -> None:
        self._path.unlink(missing_ok=True)
        self.busy = False
        self._finish(record.command_id, done)

    def _in_force(self) -> bool:
        """True when the gateway works by the file: one that it could not use must not wait for the next restart."""
        path = self._gateway.config_path
        assert path is not None
        try:
            return load(path).settings == self._gateway.settings
        except ConfigError:
            return False

    def _connected(self) -> bool:
        rooms = self._gateway.health
        return bool(rooms and rooms.publisher and rooms.publisher.connected)

    def _reaches(self, name: str) -> bool:
        lane = self._gateway.lanes.get(name)
        if lane is None:
            return False
        try:
            courier = COURIERS[lane.settings.kind](lane.settings, self._gateway.settings.gateway.ae_title)
            try:
                return courier.probe().outcome is Outcome.ACCEPTED
            finally:
                courier.close()
        except GatewayError:
            return False
