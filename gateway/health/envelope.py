"""A signed command, from the bytes that a broker handed over to a command that may be obeyed. Pure.

The broker and everything on the way may be hostile: TLS protects the channel, the signature protects the action.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.identity.keyring import Key
from gateway.model.payloads import faults

MAX_BYTES = 65536
MAX_LIFE_S = 900
SKEW_S = 30
"""A box's clock may be behind by so much."""

NEEDS = {
    "health.report": "viewer",
    "rebirth": "viewer",
    "queue.pause": "operator",
    "queue.resume": "operator",
    "queue.retry": "operator",
    "destination.test": "operator",
    "log.level": "operator",
    "diag.bundle": "operator",
    "config.apply": "admin",
    "update.check": "operator",
    "update.install": "admin",
    "update.confirm": "admin",
    "service.restart": "admin",
    "reboot": "admin",
}
"""Least role of each verb: the closed list. There is no shell, no file access and nothing that deletes."""


@dataclass(frozen=True, slots=True)
class Command:
    """What somebody whom we know asks of this very box; not yet: for the first time."""

    id: str
    verb: str
    args: Mapping[str, Any]
    kid: str
    seq: int
    digest: str
    """SHA-256 of what was signed, hex."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why it is not obeyed."""

    code: str
    id: str = ""
    verb: str = ""
    kid: str = ""
    """All three are empty unless the signature is good: an answer to a stranger goes nowhere."""


@dataclass(frozen=True, slots=True)
class Me:
    """Whom a command must be for, exactly."""

    tenant: str
    gateway: str


def opened(payload: bytes, keyring: Mapping[str, Key]) -> tuple[Key, bytes] | Rejection:
    """Return who signed an envelope, and the bytes that were signed."""
    if len(payload) > MAX_BYTES:
        return Rejection("oversized")
    envelope = _json(payload)
    if envelope is None or faults("cmd", envelope):
        return Rejection("malformed")
    key = keyring.get(envelope["kid"])
    if key is None or key.revoked:
        return Rejection("unknown_key")
    try:
        body, signature = (base64.b64decode(envelope[part], validate=True) for part in ("body", "sig"))
    except ValueError:
        return Rejection("malformed")
    if not key.signed(body, signature):
        return Rejection("bad_signature")
    return key, body


def command(
    topic: str, payload: bytes, retained: bool, keyring: Mapping[str, Key], me: Me, now: float
) -> Command | Rejection:
    """Judge a message that came on one of our command topics; `now` is the wall clock."""
    if retained:
        return Rejection("retained")
    found = opened(payload, keyring)
    if isinstance(found, Rejection):
        return found
    key, signed = found
    body = _json(signed)
    if body is None or faults("body", body):
        return Rejection("malformed")
    command_id, verb = body["id"], body["type"]

    def refuse(code: str) -> Rejection:
        return Rejection(code, command_id, verb, key.kid)

    if (body["tenant"], body["target"]) != (me.tenant, me.gateway):
        return Rejection("misaddressed")
    if topic != f"gw/v1/{me.tenant}/{me.gateway}/cmd/{verb}/{command_id}":
        return Rejection("misaddressed")
    if not key.may(NEEDS[verb]):
        return refuse("wrong_role")
    if not 0 < body["exp"] - body["iat"] <= MAX_LIFE_S:
        return refuse("lives_too_long")
    if now > body["exp"]:
        return refuse("expired")
    if body["iat"] - SKEW_S > now:
        return refuse("not_yet_valid")
    digest = hashlib.sha256(signed).hexdigest()
    return Command(command_id, verb, body["args"], key.kid, body["seq"], digest)


def desired(signed: bytes) -> dict[str, Any] | None:
    """Return the desired state in the bytes that were signed, or None."""
    body: dict[str, Any] | None = _json(signed)
    return None if body is None or faults("desired", body) else body


def _json(text: bytes) -> Any:
    """Return what a text holds, or None; a name that is there twice is no JSON of ours."""
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_never)
    except (ValueError, RecursionError):
        return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _never(word: str) -> None:
    raise ValueError(word)
