"""From what is known to what is told: topics and payloads (schemas in `gateway/model/schemas/`). Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from gateway.health.alarms import by_code
from gateway.health.observer import Observation
from gateway.model import topics
from gateway.model.codes import CODES
from gateway.model.health import UNKNOWN, DestinationReport, Identity, ModalityReport

EVENT_EXPIRY_S = 7 * 86400
COUNTERS_EXPIRY_S = 300


@dataclass(frozen=True, slots=True)
class Message:
    """One message on its way to the broker; session and number are given to it when it is sent."""

    topic: str
    schema: str
    body: Mapping[str, Any] | None
    """None: an empty payload, which takes a retained message back."""
    qos: int = 1
    retain: bool = True
    expiry_s: int | None = None
    at: float = 0.0
    """Wall clock."""
    bare: bool = field(default=False)
    """Not one of our schemas: sent as it is."""

    @property
    def numbered(self) -> bool:
        """True when the payload holds a number: what takes a message back, or is bare, uses none up."""
        return self.body is not None and not self.bare

    def payload(self, session: str, seq: int) -> bytes:
        """Return the bytes to publish."""
        if self.body is None:
            return b""
        head = {"v": 1, "ts": timestamp(self.at), "session": session, "seq": seq} if self.numbered else {}
        return json.dumps({**head, **self.body}, separators=(",", ":"), allow_nan=False).encode()


def timestamp(wall: float) -> str:
    """Return RFC 3339 in UTC."""
    return datetime.fromtimestamp(max(0.0, wall), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def told(value: Any) -> Any:
    """Return a value as it is told: what is not known is said to be unknown."""
    return UNKNOWN if value is None else value


@dataclass(frozen=True, slots=True)
class Speaker:
    """Words messages for one box."""

    tenant: str
    gateway: str

    @property
    def prefix(self) -> str:
        """Return what every topic of this box begins with."""
        return topics.box(self.tenant, self.gateway)

    @property
    def desired(self) -> str:
        """Return the topic of the state that central IT wants."""
        return topics.desired(self.tenant, self.gateway)

    def _message(self, topic: str, schema: str, body: Mapping[str, Any] | None, at: float, **more: Any) -> Message:
        return Message(f"{self.prefix}/{topic}", schema, body, at=at, **more)

    def session(self, state: str, reason: str, at: float) -> Message:
        """Whether we are connected; also the will."""
        return self._message("session", "session", {"state": state, "reason": reason}, at)

    def birth(self, identity: Identity, verbs: list[str], at: float) -> Message:
        """Who we are."""
        body = {
            "gateway_version": identity.version,
            **{
                name: told(getattr(identity, name))
                for name in ("model", "serial", "os", "slot", "boot_id", "reset_reason")
            },
            "config_digest": identity.config_digest,
            "sbom_digest": identity.sbom_digest,
            "destinations": list(identity.destinations),
            "modalities": list(identity.modalities),
            "cmd": verbs,
        }
        return self._message("birth", "birth", body, at)

    def capability(self, verb: str, roles: list[str], at: float) -> Message:
        """Tell a command that we obey."""
        body = {"verb": verb, "schema": "body.v1", "roles": roles, "needs_local_confirm": False}
        return self._message(f"cap/{verb}", "cap", body, at)

    def health(self, seen: Observation) -> Message:
        """How we are."""
        sums, host, destinations = seen.custodian.sums, seen.host, seen.custodian.destinations
        body = {
            "status": seen.status.value,
            "reasons": [
                {
                    "code": reason.code,
                    "severity": reason.severity.value,
                    "since": timestamp(reason.since),
                    "component": reason.component,
                }
                for reason in seen.reasons[:64]
            ],
            "sums": {
                name: getattr(sums, name)
                for name in (
                    "accepted",
                    "held",
                    "released",
                    "quarantined",
                    "retired",
                    "duplicates",
                    "unrouted",
                    "agree",
                )
            },
            "queue": {
                "objects": sums.held,
                "bytes": sums.held_bytes,
                "oldest_age_s": max((oldest_age_s(d, seen.at) for d in destinations), default=0),
                "dead": sum(destination.held for destination in destinations),
            },
            "disk": _known(host.disk),
            "clock": _known(host.clock),
            "power": _known(host.power),
            "certificates": [{"name": c.name, "days_left": told(c.days_left)} for c in host.certificates],
            "load1": told(host.load1),
            "memory_available_pct": told(host.memory_available_pct),
            "rss_bytes": told(host.rss_bytes),
            "uptime_s": told(host.uptime_s),
            "service_uptime_s": seen.uptime_s,
            "watchdog": "fed" if all(seen.custodian.services.values()) else "starved",
            "interval_s": seen.interval_s,
        }
        return self._message("health", "health", body, seen.at, expiry_s=max(1, int(3 * seen.interval_s)))

    def rooms(self, seen: Observation) -> Iterator[Message]:
        """Yield services, destinations and modalities."""
        for name, fresh in seen.custodian.services.items():
            yield self._message(f"svc/{name}/health", "svc", {"status": "up" if fresh else "late"}, seen.at)
        for destination in seen.custodian.destinations:
            yield self._message(f"dst/{destination.name}/health", "dst", _destination(destination, seen.at), seen.at)
        for modality in seen.modalities:
            yield self._message(f"mod/{modality.name}/health", "mod", _modality(modality, seen), seen.at)

    def alarms(self, seen: Observation) -> Iterator[Message]:
        """Yield one message per code: an alarm, or nothing to take it back."""
        holding = by_code(seen.reasons)
        for code in CODES:
            body = None
            if code in holding:
                reason, components = holding[code]
                body = {
                    "code": code,
                    "severity": reason.severity.value,
                    "since": timestamp(reason.since),
                    "components": list(components[:64]),
                }
            yield self._message(f"a/{code}", "a", body, seen.at)

    def counters(self, seen: Observation) -> Iterator[Message]:
        """Yield numbers for charts."""
        for group, values in counters(seen).items():
            yield self._message(
                f"m/{group}", "m", {"values": values}, seen.at, qos=0, retain=False, expiry_s=COUNTERS_EXPIRY_S
            )

    def event(self, kind: str, at: float, **facts: str) -> Message:
        """Something happened."""
        return self._message(f"e/{kind}", "e", {"event": kind, **facts}, at, retain=False, expiry_s=EVENT_EXPIRY_S)

    def result(self, verb: str, command_id: str, body: Mapping[str, Any], at: float) -> Message:
        """What became of a command."""
        return self._message(f"res/{verb}/{command_id}", "res", body, at, retain=False, expiry_s=EVENT_EXPIRY_S)


def oldest_age_s(destination: DestinationReport, wall: float) -> int:
    """Return for how long the oldest instance waits; 0 when nothing does."""
    since = destination.oldest_waiting_since
    return 0 if since is None else max(0, round(wall - since))


def counters(seen: Observation) -> dict[str, dict[str, float]]:
    """Return flat numbers by group; Prometheus shows the same. A group of which nothing is known yet is left out."""
    custodian, sums = seen.custodian, seen.custodian.sums
    destinations, stays_s = custodian.destinations, custodian.stays_s
    found: dict[str, dict[str, float]] = {
        "receive": {
            "objects": sums.accepted,
            "duplicates": sums.duplicates,
            "uid_conflicts": sums.uid_conflicts,
            "associations": custodian.associations,
            **{f"rejected_{reason}": count for reason, count in sorted(custodian.rejected.items())},
        },
        "forward": {
            "confirmed": sum(d.confirmed + d.retired for d in destinations),
            "waiting": sum(d.queued + d.sending for d in destinations),
            "held": sum(d.held for d in destinations),
            "saved_bytes": custodian.saved_bytes,
            "workers_lost": custodian.workers_lost,
        },
        "codec": {
            f"{codec.replace('-', '_')}_{what}": number
            for codec, numbers in sorted(custodian.codecs.items())
            for what, number in zip(("objects", "bytes", "sent_bytes"), numbers, strict=True)
        },
        "latency": {
            f"p{percent}_s": round(stays_s[len(stays_s) * percent // 100], 3) for percent in (50, 95, 99) if stays_s
        },
    }
    return {group: values for group, values in found.items() if values}


def _known(facts: Any) -> dict[str, Any]:
    return {name: told(getattr(facts, name)) for name in type(facts).__slots__}


def _destination(report: DestinationReport, wall: float) -> dict[str, Any]:
    return {
        "breaker": report.breaker,
        **{
            name: getattr(report, name)
            for name in ("accepted", "queued", "sending", "sent", "confirmed", "held", "retired")
        },
        "oldest_age_s": oldest_age_s(report, wall),
        "last_success": UNKNOWN if report.last_success is None else timestamp(report.last_success),
        "last_error": report.last_error or "none",
    }


def _modality(report: ModalityReport, seen: Observation) -> dict[str, Any]:
    return {
        "last_object": UNKNOWN if report.last_object is None else timestamp(report.last_object),
        "studies_today": report.studies_today,
        "usual_by_now": told(report.usual_by_now),
        "silent": report.silent,
        "idle_s": UNKNOWN if report.last_object is None else max(0, round(seen.at - report.last_object)),
        "rejected": seen.custodian.refused.get(report.name, {}),
    }
