"""What a simulated box is like: who it is, what becomes of it, and the payloads it would send. Pure.

Written from the schemas and from what real boxes were seen to do, not with the code of the box: a monitor that is tried
only on its own code's messages is not tried. Everything follows from seed and number, so that a run can be repeated.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from random import Random
from typing import Any

from gateway.fleet.wire import Publication

OLD_VERSION, NEW_VERSION = "0.8.2", "0.9.0"
DAY_S = 86400.0
VERBS = ("health.report", "rebirth", "queue.retry", "destination.test")
MODELS = (("Raspberry Pi 4 Model B Rev 1.4", 0.4), ("Raspberry Pi 5 Model B Rev 1.0", 0.75), ("IPC-3400", 1.0))
"""With the share of the fleet up to and including each."""
SCANNERS = ("ct", "mr", "cr", "us", "mg")


class Fate(StrEnum):
    """What becomes of a box during a day of its life."""

    STEADY = "steady"
    FLAPPING = "flapping"
    """Its line breaks again and again."""
    DYING = "dying"
    """Its disk wears out, turns read-only, and then the box is gone."""
    BACKLOGGED = "backlogged"
    """Its archive does not answer for half of the day."""
    SILENT = "silent"
    """Its scanner sends nothing any more."""
    UNSYNCED = "unsynced"
    UNDERVOLTAGE = "undervoltage"
    EXPIRING = "expiring"
    """Its certificate ends soon, and then ends."""


SHARES = {
    Fate.FLAPPING: 0.02,
    Fate.DYING: 0.01,
    Fate.BACKLOGGED: 0.03,
    Fate.SILENT: 0.02,
    Fate.UNSYNCED: 0.01,
    Fate.UNDERVOLTAGE: 0.005,
    Fate.EXPIRING: 0.01,
}
"""Of the fleet; all others are steady."""

SEVERITY = {
    "disk_worn": "warning",
    "disk_read_only": "critical",
    "destination_ill": "warning",
    "backlog_old": "warning",
    "backlog_very_old": "critical",
    "modality_silent": "warning",
    "clock_unsynced": "warning",
    "undervoltage": "critical",
    "certificate_expiring": "warning",
    "certificate_expired": "critical",
}
"""Of the codes that a simulated box can have; a test holds them against those of real boxes."""


def _fate(luck: float) -> Fate:
    for fate, share in SHARES.items():
        if luck < share:
            return fate
        luck -= share
    return Fate.STEADY


@dataclass(frozen=True, slots=True)
class State:
    """How a box is at one moment of its day."""

    wear_pct: float
    read_only: bool
    oldest_age_s: int
    queued: int
    certificate_days: float
    wrong: dict[str, str]
    """Code -> component."""
    gone: bool = False


class Likeness:
    """One simulated box."""

    def __init__(
        self, number: int, seed: int, tenant: str, interval_s: float, began: float, *, steady: bool = False
    ) -> None:
        """`began`: wall clock of the start of its day; `steady`: nothing befalls it."""
        luck = Random(f"{seed}/{number}")
        self.luck = luck
        self.fate = _fate(1.0 if steady else luck.random())
        scanner = luck.choice(SCANNERS)
        self.id = f"sim-{number:05d}-{scanner}"
        self.modalities = [f"{scanner}1", *([f"{scanner}2"] if luck.random() < 0.2 else [])]
        self.destinations = ["pacs", *(["cloud"] if luck.random() < 0.3 else [])]
        share = luck.random()
        self.model = next(name for name, until in MODELS if share <= until)
        self.version, self.slot = OLD_VERSION, "A"
        self.rolls_back = luck.random() < 0.02
        """It will not like its update."""
        self._prefix = f"gw/v1/{tenant}/{self.id}"
        self._interval_s = interval_s
        self._began = began
        self._phase = luck.uniform(0.05, 0.4)
        self._wear, self._fill, self._days = luck.uniform(3, 70), luck.uniform(5, 70), luck.uniform(60, 700)
        self._boot_id = _uuid(luck)
        self._usual = luck.uniform(5, 60)
        self.studies = int(self._usual * luck.uniform(0.2, 0.9))
        self._accepted = self.studies * luck.randint(20, 400)
        self._last_object = began - luck.uniform(60, 7200)
        self.session, self.seq = "", 0

    def begin_session(self) -> None:
        """Count messages anew, as with each connection."""
        self.session, self.seq = f"{self.luck.getrandbits(128):032x}", 0

    def state(self, now: float, hasten: float) -> State:
        """Return how it is; its fate takes a day, in `hasten` times the speed of the wall clock `now`."""
        progress = max(0.0, (now - self._began) * hasten / DAY_S - self._phase) / (1 - self._phase)
        wrong: dict[str, str] = {}
        wear, read_only, oldest_s, queued, days, gone = self._wear, False, 0, 0, self._days, False
        if self.fate is Fate.DYING:
            wear = min(100.0, 78 + 40 * progress)
            read_only, gone = progress > 0.6, progress > 0.9
            wrong |= {"disk_worn": "disk"} if wear > 80 else {}
            wrong |= {"disk_read_only": "disk"} if read_only else {}
        elif self.fate is Fate.BACKLOGGED and 0 < progress < 0.7:
            oldest_s, queued = int(progress * DAY_S * 1.8), 1 + int(progress * 900)
            wrong["destination_ill"] = "pacs"
            if oldest_s > 3600:
                wrong["backlog_very_old" if oldest_s > DAY_S else "backlog_old"] = "pacs"
        elif self.fate is Fate.SILENT and progress > 0:
            wrong["modality_silent"] = self.modalities[0]
        elif self.fate is Fate.UNSYNCED and progress > 0:
            wrong["clock_unsynced"] = "clock"
        elif self.fate is Fate.UNDERVOLTAGE and int(progress * 20) % 2:
            wrong["undervoltage"] = "power"
        elif self.fate is Fate.EXPIRING:
            days = 29 - 35 * progress
            wrong["certificate_expiring" if days > 0 else "certificate_expired"] = "mqtt"
        return State(wear, read_only, oldest_s, queued, days, wrong, gone)

    def study(self, now: float) -> None:
        """A study came."""
        self.studies += 1
        self._accepted += self.luck.randint(20, 400)
        self._last_object = now

    def until_next_study_s(self) -> float:
        """Return how long the next study takes, by the scanner's usual number a day; infinite for a silent one."""
        if self.fate is Fate.SILENT:
            return math.inf
        return self.luck.expovariate(self._usual / (DAY_S / 2))

    def reboot_into(self, version: str) -> None:
        """Run another version, from the other slot."""
        self.version, self.slot = version, "B" if self.slot == "A" else "A"
        self._boot_id = _uuid(self.luck)

    def _say(self, topic: str, schema: str, body: dict[str, Any], now: float, **more: Any) -> Publication:
        stamp = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        head = {"v": 1, "ts": stamp, "session": self.session, "seq": self.seq}
        self.seq += 1
        payload = json.dumps({**head, **body}, separators=(",", ":")).encode()
        return Publication(f"{self._prefix}/{topic}", payload, schema, **more)

    def will(self, now: float) -> Publication:
        """What the broker says when the line breaks."""
        will = self._say("session", "session", {"state": "offline", "reason": "will"}, now)
        self.seq = 0
        return will

    def said(self, state: str, reason: str, now: float) -> Publication:
        """Online or offline."""
        return self._say("session", "session", {"state": state, "reason": reason}, now)

    def greeting(self, now: float, hasten: float) -> list[Publication]:
        """Everything that a connection begins with."""
        state = self.state(now, hasten)
        birth = {
            "gateway_version": self.version,
            "model": self.model,
            "serial": sha256(self.id.encode()).hexdigest()[:16],
            "os": "Debian GNU/Linux 12 (bookworm)",
            "slot": self.slot,
            "boot_id": self._boot_id,
            "reset_reason": "power or reboot",
            "config_digest": sha256(f"config of {self.id}".encode()).hexdigest(),
            "sbom_digest": sha256(self.version.encode()).hexdigest(),
            "destinations": self.destinations,
            "modalities": self.modalities,
            "cmd": list(VERBS),
        }
        return [
            self.said("online", "connect", now),
            self._say("birth", "birth", birth, now),
            self.health(state, now),
            *(
                self._say(f"svc/{name}/health", "svc", {"status": "up"}, now)
                for name in ("receiver", "forwarder", "confirmer", "keeper", "spool")
            ),
            *self.rooms(state, now),
            *(self.alarm(code, state, now) for code in state.wrong),
        ]

    def rooms(self, state: State, now: float) -> list[Publication]:
        """Its destinations and scanners."""
        found = []
        for name in self.destinations:
            ill = state.wrong.get("destination_ill") == name
            queued = state.queued if ill else 0
            body: dict[str, Any] = {
                "breaker": "open" if ill else "closed",
                "accepted": self._accepted,
                "queued": queued,
                **dict.fromkeys(("sending", "sent", "held", "retired"), 0),
                "confirmed": self._accepted - queued,
                "oldest_age_s": state.oldest_age_s if ill else 0,
                "last_success": _stamp(now - state.oldest_age_s if ill else self._last_object),
                "last_error": "no_answer" if ill else "none",
            }
            found.append(self._say(f"dst/{name}/health", "dst", body, now))
        for name in self.modalities:
            body = {
                "last_object": _stamp(self._last_object),
                "studies_today": self.studies,
                "usual_by_now": round(self._usual / 2, 1),
                "silent": state.wrong.get("modality_silent") == name,
                "idle_s": max(0, round(now - self._last_object)),
                "rejected": {},
            }
            found.append(self._say(f"mod/{name}/health", "mod", body, now))
        return found

    def alarm(self, code: str, state: State, now: float) -> Publication:
        """An alarm that holds, or an empty payload for one that does not."""
        if code not in state.wrong:
            return Publication(f"{self._prefix}/a/{code}", b"")
        since = _stamp(self._began)
        body = {"code": code, "severity": SEVERITY[code], "since": since, "components": [state.wrong[code]]}
        return self._say(f"a/{code}", "a", body, now)

    def health(self, state: State, now: float) -> Publication:
        """How it is."""
        severities = {SEVERITY[code] for code in state.wrong}
        status = "critical" if "critical" in severities else "degraded" if severities else "ok"
        since = _stamp(self._began)
        body = {
            "status": status,
            "reasons": [
                {"code": code, "severity": SEVERITY[code], "since": since, "component": component}
                for code, component in state.wrong.items()
            ],
            "sums": {
                "accepted": self._accepted,
                "held": state.queued,
                "released": self._accepted - state.queued,
                **dict.fromkeys(("quarantined", "retired", "duplicates", "unrouted"), 0),
                "agree": True,
            },
            "queue": {
                "objects": state.queued,
                "bytes": state.queued * 527_000,
                "oldest_age_s": state.oldest_age_s,
                "dead": 0,
            },
            "disk": {
                "used_pct": round(self._fill, 1),
                "free_bytes": int((100 - self._fill) * 640_000_000),
                "wear_pct": round(state.wear_pct),
                "read_only": state.read_only,
                "encrypted": True,
            },
            "clock": {
                "source": "chrony",
                "synced": "clock_unsynced" not in state.wrong,
                "offset_ms": round(self.luck.gauss(0, 2), 3),
            },
            "power": {
                "temp_c": round(52 + self.luck.gauss(0, 3), 1),
                "throttled": False,
                "undervoltage": "undervoltage" in state.wrong,
                "on_battery": "unknown",
            },
            "certificates": [{"name": "mqtt", "days_left": round(state.certificate_days, 1)}],
            "load1": round(abs(self.luck.gauss(0.4, 0.2)), 2),
            "memory_available_pct": round(self.luck.uniform(60, 70), 1),
            "rss_bytes": 58_000_000 + self.luck.randrange(4_000_000),
            "uptime_s": round(now - self._began + 86400),
            "service_uptime_s": round(now - self._began + 3600),
            "watchdog": "fed",
            "interval_s": self._interval_s,
        }
        return self._say("health", "health", body, now, expiry_s=max(1, int(3 * self._interval_s)))


def _stamp(wall: float) -> str:
    return datetime.fromtimestamp(max(0.0, wall), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _uuid(luck: Random) -> str:
    digits = f"{luck.getrandbits(128):032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
