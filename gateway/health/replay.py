"""Which commands were taken already, durably: what was obeyed once is never obeyed again, restarts included.

One small file, written whole under another name, flushed, renamed. While it cannot be written no command is taken.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gateway.health.envelope import Command
from gateway.model.errors import GatewayError
from gateway.spool.files import replace_file

KEPT = 256
"""Commands whose result is remembered, the latest; older ones are refused by their number all the same."""
PENDING = ("accepted", "executing")


class ReplayUnsafe(GatewayError):
    """It cannot be told which commands were taken already."""


@dataclass(slots=True)
class Taken:
    """One command that was taken, and how far it is."""

    verb: str
    kid: str
    digest: str
    status: str = "accepted"
    code: str = "accepted"
    values: dict[str, Any] = field(default_factory=dict)


class ReplayStore:
    """Threads may share it."""

    def __init__(self, path: Path) -> None:
        """Read what is there; a file that cannot be read makes every question raise ReplayUnsafe."""
        self._path = path
        self._lock = threading.Lock()
        self._seqs: dict[str, int] = {}
        self._taken: dict[str, Taken] = {}
        self._desired = 0
        self._broken = ""
        try:
            found = json.loads(path.read_bytes())
            self._seqs = {str(kid): int(seq) for kid, seq in found["seqs"].items()}
            self._taken = {str(name): Taken(**facts) for name, facts in found["taken"].items()}
            self._desired = int(found["desired"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            self._broken = type(error).__name__

    def _check(self) -> None:
        if self._broken:
            raise ReplayUnsafe(f"{self._path.name}: {self._broken}")

    def known(self, command_id: str) -> Taken | None:
        """Return a command that was taken; raises ReplayUnsafe."""
        with self._lock:
            self._check()
            return self._taken.get(command_id)

    def fresh(self, command: Command) -> bool:
        """True when its number is above all that its key has used; raises ReplayUnsafe."""
        with self._lock:
            self._check()
            return command.seq > self._seqs.get(command.kid, 0)

    def take(self, command: Command) -> None:
        """Write down that it is taken; durable after return, else raises ReplayUnsafe and nothing is taken."""
        with self._lock:
            self._check()
            seqs = {**self._seqs, command.kid: command.seq}
            taken = {**self._taken, command.id: Taken(command.verb, command.kid, command.digest)}
            while len(taken) > KEPT:
                taken.pop(next(iter(taken)))
            self._write(seqs, taken, self._desired)
            self._seqs, self._taken = seqs, taken

    def mark(self, command_id: str, status: str, code: str, values: Mapping[str, Any]) -> None:
        """Write down how far a command is; raises ReplayUnsafe, the status is remembered until the restart then."""
        with self._lock:
            if (taken := self._taken.get(command_id)) is not None:
                taken.status, taken.code, taken.values = status, code, dict(values)
                self._write(self._seqs, self._taken, self._desired)

    def pending(self) -> dict[str, Taken]:
        """Return what was taken and has no end: an earlier life was interrupted in it."""
        with self._lock:
            return {name: taken for name, taken in self._taken.items() if taken.status in PENDING}

    @property
    def desired(self) -> int:
        """The newest version of a desired state that was taken; raises ReplayUnsafe."""
        with self._lock:
            self._check()
            return self._desired

    def take_desired(self, version: int) -> None:
        """Write down that a version of a desired state is taken; raises ReplayUnsafe."""
        with self._lock:
            self._check()
            self._write(self._seqs, self._taken, version)
            self._desired = version

    def _write(self, seqs: Mapping[str, int], taken: Mapping[str, Taken], desired: int) -> None:
        facts = {"seqs": seqs, "taken": {name: asdict(one) for name, one in taken.items()}, "desired": desired}
        try:
            replace_file(self._path, json.dumps(facts))
        except OSError as error:
            raise ReplayUnsafe(f"{self._path.name} cannot be written: {error.strerror}") from error
