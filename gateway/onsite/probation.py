"""Whether an update may stay. It is judged by what worked before it, not by what should work.

Before an update is installed, what is reached is written down; the box that starts afterwards must reach the same
within ten minutes. If it does not, its slot is not marked good, and the boot loader goes back to the other.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway.config.schema import ListenerSettings, Settings
from gateway.dicom.requestor import Peer, PeerFailed, Requestor
from gateway.model.errors import GatewayError, NotRunning
from gateway.model.transfer_syntax import IMPLICIT_LE, VERIFICATION_SOP_CLASS
from gateway.spool.files import fsync_directory, replace_file

VERIFICATION = (VERIFICATION_SOP_CLASS, IMPLICIT_LE)
WITHIN_S = 600.0
PAUSE_S = 5.0
ECHO_S = 5.0
RECORD, LAST = "update.json", "update-last.json"

Ask = Callable[[Mapping[str, Any]], Any]
"""Asks the running service; raises NotRunning, GatewayError."""


@dataclass(frozen=True, slots=True)
class Before:
    """What worked when the update was installed."""

    slot: str
    """Boot name of the slot that it went to."""
    version: str
    reached: tuple[str, ...]
    """Destinations that answered."""
    connected: bool
    """The broker was reached."""


def remember(data_dir: Path, slot: str, version: str, ask: Ask) -> Before:
    """Write down, durably, what is reached now; nothing is when the service does not run. Raises OSError."""
    try:
        status = ask({"do": "status"})
        reached = tuple(name for name in status["destinations"] if _reaches(ask, name))
        connected = bool((status.get("mqtt") or {}).get("connected"))
    except NotRunning:
        reached, connected = (), False
    before = Before(slot, version, reached, connected)
    replace_file(data_dir / RECORD, json.dumps(asdict(before)))
    return before


def recall(data_dir: Path) -> Before | None:
    """Return what was written down, unless no update waits to be judged."""
    try:
        facts = json.loads((data_dir / RECORD).read_bytes())
        return Before(**{**facts, "reached": tuple(facts["reached"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def close(data_dir: Path, before: Before, outcome: str) -> None:
    """The update was judged: `kept` or `went back`. It is remembered for `update status`; raises OSError."""
    replace_file(data_dir / LAST, json.dumps({"version": before.version, "outcome": outcome}))
    (data_dir / RECORD).unlink(missing_ok=True)
    fsync_directory(data_dir)


def last(data_dir: Path) -> dict[str, str] | None:
    """Return version and outcome of the update that was judged last."""
    try:
        facts = json.loads((data_dir / LAST).read_bytes())
        return {name: str(facts[name]) for name in ("version", "outcome")}
    except (OSError, ValueError, TypeError, KeyError):
        return None


def complaints(settings: Settings, before: Before | None, ask: Ask) -> Iterable[str]:
    """Yield what does not work, in words: first the box itself, then what it reached before."""
    try:
        status = ask({"do": "status"})
    except GatewayError as error:
        yield f"the service does not answer: {error.detail}"
        return
    if status.get("ledger_fault"):
        yield f"the ledger cannot be written: {status['ledger_fault']}"
    if not status["sums_agree"]:
        yield "the sums of the ledger do not agree"
    for listener in settings.listener:
        fault = echo_to_itself(listener, settings.gateway.ae_title)
        if fault:
            yield f"port {listener.port} does not answer: {fault}"
    if before is None:
        return
    known = {destination.name for destination in settings.destination}
    for name in before.reached:
        if name in known and not _reaches(ask, name):
            yield f"{name} was reached before the update, and is not now"
    if before.connected and settings.mqtt and not (status.get("mqtt") or {}).get("connected"):
        yield "the broker was reached before the update, and is not now"


def judge(
    look: Callable[[], Iterable[str]],
    tell: Callable[[str], None],
    within_s: float = WITHIN_S,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Look until there is nothing to complain about, for so long at most; `tell` hears each complaint once."""
    deadline, told = clock() + within_s, set[str]()
    while True:
        found = list(look())
        if not found:
            return True
        for complaint in found:
            if complaint not in told:
                told.add(complaint)
                tell(complaint)
        if clock() >= deadline:
            return False
        sleep(PAUSE_S)


def _reaches(ask: Ask, name: str) -> bool:
    try:
        return bool(ask({"do": "echo", "destination": name})["outcome"] == "accepted")
    except GatewayError:
        return False


def echo_to_itself(listener: ListenerSettings, ae_title: str) -> str:
    """Return "" when a listener of ours answers C-ECHO, or refuses us by a rule of its own; else what went wrong.

    With TLS only the connection is tried: we have no certificate that our own listener would take.
    """
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listener.address, listener.address)
    if listener.tls:
        try:
            socket.create_connection((host, listener.port), ECHO_S).close()
        except OSError as error:
            return error.strerror or type(error).__name__
        return ""
    called = listener.called_ae_titles[0] if listener.called_ae_titles else ae_title
    try:
        requestor = Requestor(Peer(host, listener.port, called, ae_title, ECHO_S), [VERIFICATION])
        try:
            status = requestor.echo(requestor.accepted.get(VERIFICATION, 1))
        finally:
            requestor.release()
    except PeerFailed as error:
        return "" if str(error).startswith("association rejected") else str(error)
    return "" if status == 0 else f"C-ECHO answered 0x{status:04X}"
