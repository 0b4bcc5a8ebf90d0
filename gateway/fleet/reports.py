"""From a payload to what is kept of it, or to the reason why not; pure. Nothing that a box says is trusted: it is held
against its JSON Schema, lists are cut, numbers that no machine can mean are dropped."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.model.health import Severity, Status
from gateway.model.payloads import faults, readable

MAX_BYTES = 65536
MAX_NAMES = 64
"""Destinations, modalities and alarms of one box."""
HUGE = 1e18
MIN_INTERVAL_S, MAX_INTERVAL_S = 1.0, 3600.0


ESSENTIAL = {
    "session": ("v", "session", "state", "reason"),
    "health": ("v", "session", "status", "reasons", "interval_s"),
    "birth": ("v", "gateway_version"),
    "mod": ("v", "last_object"),
    "dst": ("v", "breaker"),
    "a": ("v", "code", "severity", "since", "components"),
    "e": ("v", "event"),
    "res": ("v", "status"),
}
"""What is needed of each payload. The rest may be missing: boxes of several versions report to one monitor."""


class Unreadable(ValueError):
    """A payload is not what its topic promises; the text says where, and holds nothing of the payload."""


@dataclass(frozen=True, slots=True)
class Session:
    """Whether the box is connected, in its own or its broker's words."""

    online: bool
    reason: str
    session: str


@dataclass(frozen=True, slots=True)
class Complaint:
    """One reason for a status."""

    code: str
    severity: Severity
    component: str
    since: float | None
    """By the box's clock."""


@dataclass(frozen=True, slots=True)
class Health:
    """How a box is. None: unknown."""

    session: str
    status: Status
    complaints: tuple[Complaint, ...]
    """Worst first, as the box orders them."""
    interval_s: float
    agree: bool
    objects: float
    bytes: float
    oldest_age_s: float
    dead: float
    disk_pct: float | None
    read_only: bool | None
    encrypted: bool | None
    wear_pct: float | None
    clock_source: str | None
    clock_synced: bool | None
    clock_offset_ms: float | None
    temp_c: float | None
    throttled: bool | None
    undervoltage: bool | None
    on_battery: bool | None
    certificate: str
    """The one that ends first; empty: none is known."""
    certificate_days: float | None
    memory_pct: float | None
    uptime_s: float | None


@dataclass(frozen=True, slots=True)
class Birth:
    """Who a box is."""

    version: str
    slot: str | None
    model: str | None
    serial: str | None
    os: str | None
    reset_reason: str | None
    config_digest: str
    sbom_digest: str


@dataclass(frozen=True, slots=True)
class Modality:
    """One scanner."""

    last_object: float | None
    """By the box's clock."""
    studies_today: float
    usual_by_now: float | None
    silent: bool


@dataclass(frozen=True, slots=True)
class Destination:
    """One archive."""

    breaker: str
    queued: float
    held: float
    oldest_age_s: float
    last_success: float | None
    last_error: str


@dataclass(frozen=True, slots=True)
class Alarm:
    """A condition that holds."""

    code: str
    severity: Severity
    since: str
    """In the box's own words: what tells one occurrence from the next."""
    components: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened."""

    kind: str
    code: str
    verb: str
    kid: str


def read(name: str, payload: bytes) -> dict[str, Any]:
    """Return a payload that keeps the schema `name`; raises Unreadable."""
    if len(payload) > MAX_BYTES:
        raise Unreadable("too long")
    try:
        body = json.loads(payload, parse_constant=_never)
    except (ValueError, RecursionError):
        raise Unreadable("no JSON") from None
    if not readable(name, body):
        raise Unreadable(f"breaks its schema at {(faults(name, body) or ['/'])[0][:80]}")
    missing = [key for key in ESSENTIAL[name] if key not in body]
    if missing:
        raise Unreadable(f"lacks {missing[0]}")
    found: dict[str, Any] = body
    return found


def session_of(payload: bytes) -> Session:
    """Read a session message or a will; raises Unreadable."""
    body = read("session", payload)
    return Session(body["state"] == "online", sys.intern(body["reason"]), body["session"])


def health_of(payload: bytes) -> Health:
    """Read a health message; raises Unreadable."""
    body = read("health", payload)
    queue, disk, clock, power = (body.get(name, {}) for name in ("queue", "disk", "clock", "power"))
    days, certificate = _first_to_end(body.get("certificates", []))
    return Health(
        session=body["session"],
        status=Status(body["status"]),
        complaints=tuple(_complaint(reason) for reason in body["reasons"] if "code" in reason),
        interval_s=min(max(number(body["interval_s"]) or 0.0, MIN_INTERVAL_S), MAX_INTERVAL_S),
        agree=body.get("sums", {}).get("agree", True),
        objects=_count(queue, "objects"),
        bytes=_count(queue, "bytes"),
        oldest_age_s=_count(queue, "oldest_age_s"),
        dead=_count(queue, "dead"),
        disk_pct=number(disk.get("used_pct")),
        read_only=_known(disk.get("read_only")),
        encrypted=_known(disk.get("encrypted")),
        wear_pct=number(disk.get("wear_pct")),
        clock_source=_known(clock.get("source")),
        clock_synced=_known(clock.get("synced")),
        clock_offset_ms=number(clock.get("offset_ms")),
        temp_c=number(power.get("temp_c")),
        throttled=_known(power.get("throttled")),
        undervoltage=_known(power.get("undervoltage")),
        on_battery=_known(power.get("on_battery")),
        certificate=certificate,
        certificate_days=days,
        memory_pct=number(body.get("memory_available_pct")),
        uptime_s=number(body.get("uptime_s")),
    )


def birth_of(payload: bytes) -> Birth:
    """Read a birth message; raises Unreadable."""
    body = read("birth", payload)
    facts = {name: _known(body.get(name)) for name in ("slot", "model", "serial", "os", "reset_reason")}
    digests = {name: body.get(name, "") for name in ("config_digest", "sbom_digest")}
    return Birth(version=sys.intern(body["gateway_version"]), **digests, **facts)


def modality_of(payload: bytes) -> Modality:
    """Read what a box says of a scanner; raises Unreadable."""
    body = read("mod", payload)
    silent = body.get("silent", False)
    return Modality(
        moment(body["last_object"]), _count(body, "studies_today"), number(body.get("usual_by_now")), silent
    )


def destination_of(payload: bytes) -> Destination:
    """Read what a box says of an archive; raises Unreadable."""
    body = read("dst", payload)
    return Destination(
        breaker=sys.intern(body["breaker"]),
        queued=_count(body, "queued"),
        held=_count(body, "held"),
        oldest_age_s=_count(body, "oldest_age_s"),
        last_success=moment(body.get("last_success", "")),
        last_error=sys.intern(body.get("last_error", "none")),
    )


def alarm_of(payload: bytes) -> Alarm:
    """Read an alarm; raises Unreadable."""
    body = read("a", payload)
    return Alarm(sys.intern(body["code"]), Severity(body["severity"]), body["since"], tuple(body["components"]))


def event_of(payload: bytes) -> Event:
    """Read an event; raises Unreadable."""
    body = read("e", payload)
    return Event(body["event"], *(body.get(name, "") for name in ("code", "verb", "kid")))


def result_of(payload: bytes) -> str:
    """Read what became of a command: its status; raises Unreadable."""
    return sys.intern(read("res", payload)["status"])


def number(value: Any) -> float | None:
    """Return a number that a machine can mean, else None."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) and abs(found) < HUGE else None


def moment(text: str) -> float | None:
    """Return seconds since 1970 of a time of our schemas, or None: a box may say 2026-02-31."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return None


def _known(value: Any) -> Any:
    return None if value == "unknown" else sys.intern(value) if isinstance(value, str) else value


def _count(body: dict[str, Any], name: str) -> float:
    return number(body.get(name)) or 0.0


def _complaint(reason: dict[str, Any]) -> Complaint:
    severity, since = Severity(reason.get("severity", "warning")), moment(reason.get("since", ""))
    return Complaint(sys.intern(reason["code"]), severity, sys.intern(reason.get("component", "box")), since)


def _first_to_end(certificates: list[dict[str, Any]]) -> tuple[float | None, str]:
    known = [
        (days, entry["name"])
        for entry in certificates
        if "name" in entry and (days := number(entry.get("days_left"))) is not None
    ]
    return min(known, default=(None, ""))


def _never(word: str) -> None:
    raise ValueError(word)
