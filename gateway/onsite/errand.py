"""What the service, which may nothing, asks of root: an update, a restart of the box. It lays a request into its own
folder; a unit of root sees it, does it, and answers in a folder of root's.

Root takes from it one of five verbs and a version in plain letters, nothing else: the service may have been taken over.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from gateway.model.errors import GatewayError
from gateway.spool.files import replace_file

REQUEST = Path("/run/dicom-gateway/update.request")
ANSWER = Path("/run/dicom-gateway-update/answer.json")
VERBS = ("check", "install", "confirm", "reboot", "poweroff")
MAX_BYTES = 1024
PAUSE_S = 0.2
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Errand:
    """One request."""

    verb: str
    version: str
    number: str
    """By which the answer is known."""


def send(errand: Errand, within_s: float) -> str:
    """Ask, and return what was done, in words; raises GatewayError with the reason why not."""
    try:
        replace_file(REQUEST, json.dumps({"verb": errand.verb, "version": errand.version, "number": errand.number}))
    except OSError as error:
        raise GatewayError(f"{REQUEST} cannot be written: {error.strerror}") from error
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            facts = json.loads(ANSWER.read_bytes())
        except (OSError, ValueError):
            facts = {}
        if facts.get("number") == errand.number:
            if facts.get("good"):
                return str(facts.get("text", ""))
            raise GatewayError(str(facts.get("text", "")))
        time.sleep(PAUSE_S)
    raise GatewayError("nobody answered", hint="is dicom-gateway-update.path enabled?")


def receive(request: Path) -> Errand | None:
    """Take the request, which is gone then; None when there is none that makes sense."""
    try:
        with os.fdopen(os.open(request, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError:
        content = b""
    request.unlink(missing_ok=True)
    try:
        facts = json.loads(content[:MAX_BYTES])
        found = Errand(str(facts["verb"]), str(facts["version"]), str(facts["number"])[:64])
    except (ValueError, KeyError, TypeError):
        return None
    fits = found.verb in VERBS and (not found.version or VERSION.fullmatch(found.version))
    return found if fits else None


def reply(errand: Errand, *, good: bool, text: str) -> None:
    """Answer; raises OSError."""
    replace_file(ANSWER, json.dumps({"number": errand.number, "good": good, "text": text}), 0o644)
