"""What the box shows on its own screen, 80 by 25: how it is, what to type into a scanner, what came last.

No patient data, no study's UID, and no words of a peer: anybody may stand before it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway import __version__
from gateway.config.schema import Settings
from gateway.onsite.words import for_the_scanner

WIDTH, HEIGHT = 80, 25
MOST_DESTINATIONS, MOST_LISTENERS, MOST_WORDS = 5, 3, 6
GREEN, YELLOW, RED, BLUE, PLAIN, HEAD = "30;42", "30;43", "97;41", "97;44", "0", "7"
"""Codes of ECMA-48 (SGR), of those that the kernel's console knows."""
LATE_S = 3600.0
BAD = ("custody_loss", "custody_rot", "ledger_rot")
"""Alarms about what is kept."""

Row = tuple[str, str]
"""(colour, text)."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What can be known from outside the service."""

    settings: Settings | None
    """None: there is no configuration that can be used."""
    configured: bool
    """Somebody has written one, good or bad."""
    status: Mapping[str, Any] | None
    """None: the service does not answer."""
    study: Mapping[str, Any] | None
    """The one that came last."""
    addresses: Mapping[str, str]
    answer: str
    """What `result.txt` said last; empty: nobody brought a configuration."""
    now: float


def state(facts: Facts) -> Row:
    """Return the one sentence that matters, and its colour; words and colour say the same."""
    status = facts.status
    if not facts.configured:
        return BLUE, "NO CONFIGURATION YET: bring gateway.toml on a stick labelled CONFIG"
    if facts.settings is None:
        return RED, "BAD CONFIGURATION: the service does not start; see below, or config check"
    if status is None:
        return RED, "NOT RUNNING: the service starts, or cannot; nothing is received"
    if status.get("ledger_fault"):
        return RED, "THE DISK FAILS: nothing is received; what is here is kept and sent on"
    if status["disk"]["room"] == "full":
        return RED, "THE DISK IS FULL: nothing is received; what is here is kept and sent on"
    if not status["sums_agree"] or any(name in status["alarms"] for name in BAD):
        return RED, "SOMETHING IS WRONG WITH WHAT IS KEPT: call for help"
    ill = [name for name, row in sorted(status["destinations"].items()) if row.get("well") is False]
    if ill:
        return YELLOW, f"WAITING FOR {', '.join(ill)}: images are received and kept"
    if any(row.get("held") for row in status["destinations"].values()):
        return YELLOW, "SOME IMAGES ARE HELD: somebody must look (queue list)"
    if status["disk"]["room"] != "open" or status["alarms"]:
        return YELLOW, "WORKS, BUT SOMEBODY SHOULD LOOK: " + (", ".join(sorted(status["alarms"])) or "little room")
    return GREEN, "WELL: images are received and sent on"


def page(facts: Facts) -> list[Row]:
    """Return the rows, each as wide as the screen at most and as many as it has."""
    name = facts.settings.gateway.id if facts.settings else "gateway"
    left, right = f" DICOM edge gateway  {name}", time.strftime("%Y-%m-%d %H:%M UTC ", time.gmtime(facts.now))
    colour, sentence = state(facts)
    rows: list[Row] = [
        (HEAD, left.ljust(WIDTH - len(right)) + right),
        (PLAIN, ""),
        (colour, f"  {sentence}".ljust(WIDTH)),
        (PLAIN, ""),
        *((PLAIN, f" {text}") for text in _body(facts)),
    ]
    foot = f" version {__version__}"
    rows = rows[: HEIGHT - 2] + [(PLAIN, "")] * max(0, HEIGHT - 2 - len(rows)) + [(HEAD, foot.ljust(WIDTH))]
    return [(colour, text[:WIDTH]) for colour, text in rows]


def _body(facts: Facts) -> Iterator[str]:
    if not facts.configured:
        yield "On a laptop, `dicom-gateway provision FOLDER` makes what goes on the stick."
    elif facts.settings:
        yield from for_the_scanner(facts.settings, facts.addresses.values())[: 1 + MOST_LISTENERS]
    yield "Network: " + (", ".join(f"{name} {ip}" for name, ip in sorted(facts.addresses.items())) or "no address yet")
    yield ""
    if facts.status:
        yield from _work(facts.status, facts.study, facts.now)
    if facts.answer.startswith("NOT TAKEN"):
        yield "The configuration that was brought last was not taken:"
        yield from [f"  {row}" for row in facts.answer.splitlines()[4:] if row.strip()][:MOST_WORDS]


def _work(status: Mapping[str, Any], study: Mapping[str, Any] | None, now: float) -> Iterator[str]:
    if study:
        count = f"{study['received']} objects" + (f" of {study['expected']}" if study["expected"] else "")
        sent = "confirmed by every destination" if study["complete"] else "not yet confirmed by every destination"
        yield f"Last study: {ago(now - study['last_at'])} ago, {count}, {sent}"
    else:
        yield "Last study: none yet"
    yield f"Received {status['accepted']} objects; {status['held']} of them are not yet confirmed"
    disk = status["disk"]
    yield f"Disk: {disk['used_percent']:.0f} % used, {disk['free_bytes'] / 1e9:.1f} GB free"
    mqtt = status.get("mqtt") or {}
    if mqtt.get("configured"):
        yield f"Monitoring: {'connected' if mqtt['connected'] else 'NOT CONNECTED'}"
    yield ""
    rows = sorted(status["destinations"].items())
    for name, row in rows[:MOST_DESTINATIONS]:
        health = "well" if row.get("well", True) else "DOES NOT ANSWER OR REFUSES"
        waiting = row.get("queued", 0) + row.get("sending", 0)
        age = f", the oldest for {ago(row['oldest_age_s'])}" if waiting and row.get("oldest_age_s") else ""
        held = f", {row['held']} HELD" if row.get("held") else ""
        yield f"{name[:24]:<24} {waiting} wait{age}{held}; {health}"
    if len(rows) > MOST_DESTINATIONS:
        yield f"and {len(rows) - MOST_DESTINATIONS} more destinations"


def ago(seconds: float) -> str:
    """Say a time in words; a clock that was set back makes it no shorter than nothing."""
    seconds = max(0.0, seconds)
    for unit, length_s in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def paint(rows: list[Row]) -> str:
    """Return what makes a terminal show the rows in place of the ones before."""
    lines = [f"\x1b[{colour}m{text}\x1b[0m\x1b[K" for colour, text in rows]
    return "\x1b[H" + "\r\n".join(lines) + "\x1b[J"
