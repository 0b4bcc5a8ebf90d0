"""Every code that an alarm or a reason can have, with meaning and remedy. The table in README.md is made from this."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.model.health import Severity

WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL


@dataclass(frozen=True, slots=True)
class Code:
    """One thing that can be wrong."""

    severity: Severity
    meaning: str
    remedy: str
    raise_after_s: float = 0.0
    """It must hold for so long before it is told."""
    clear_after_s: float = 0.0
    """It must be gone for so long before it is cleared, so that a flapping line is one alarm."""


CODES: dict[str, Code] = {
    "sums_disagree": Code(CRITICAL, "What was accepted is not all accounted for.", "Call for service; keep the disk."),
    "custody_loss": Code(
        CRITICAL, "The ledger knows an object whose file is gone.", "Send the study again; check disk."
    ),
    "ledger_fault": Code(CRITICAL, "The ledger cannot be written; nothing is received.", "Check the disk: `doctor`."),
    "ledger_rot": Code(
        CRITICAL,
        "Bits of the ledger changed on the disk.",
        "Stop the service, move `ledger.db*` away, start it; replace the disk.",
    ),
    "room_late": Code(CRITICAL, "A thread stands still; the watchdog will restart the service.", "Send the log."),
    "disk_full": Code(
        CRITICAL, "The reserve is reached: scanners are refused.", "Make destinations take; free space.", 0, 60
    ),
    "disk_tight": Code(
        CRITICAL,
        "Above high_water_percent: new associations are rejected.",
        "Make destinations take; free space.",
        0,
        60,
    ),
    "disk_filling": Code(WARNING, "More than 80 % of the disk is used.", "See which destination does not take.", 0, 60),
    "disk_read_only": Code(CRITICAL, "The data partition is mounted read-only.", "The disk is failing: replace it."),
    "disk_worn": Code(WARNING, "80 % of the disk's life is spent.", "Plan to replace it."),
    "scrub_overdue": Code(
        WARNING,
        "What is held was not read again within scrub_days.",
        "The disk is too slow or too busy: `status`, `doctor`.",
        600,
    ),
    "quarantined": Code(WARNING, "Objects in quarantine.", "`queue list --quarantined`; send the study again."),
    "uid_conflict": Code(
        WARNING, "In the last day a UID came again with other bytes; both are kept.", "Ask who changes images."
    ),
    "unrouted": Code(WARNING, "Objects that no route sends anywhere.", "`route explain`; add a route.", 60),
    "study_short": Code(WARNING, "A study stays incomplete or unconfirmed.", "`status studies --short`."),
    "destination_ill": Code(
        WARNING, "A destination does not answer; its objects wait.", "`doctor`; ask the archive's keeper.", 30, 30
    ),
    "destination_paused": Code(
        WARNING, "An operator paused a destination.", "`queue.resume`, or wait: it ends by itself."
    ),
    "backlog_old": Code(
        WARNING, "The oldest unsent object waits for more than an hour.", "See the line and the archive."
    ),
    "backlog_very_old": Code(
        CRITICAL, "The oldest unsent object waits for more than a day.", "See the line and the archive."
    ),
    "dead_letters": Code(
        WARNING, "A destination refuses objects; they wait for a person.", "`queue list`, `queue show ID`."
    ),
    "modality_silent": Code(
        WARNING,
        "A scanner sends nothing although it usually does at this hour.",
        "Ask there; look at its send queue.",
        0,
        60,
    ),
    "clock_unsynced": Code(WARNING, "The clock follows no time server.", "Let NTP through, or set a server.", 300),
    "clock_off": Code(WARNING, "The clock is more than a second off.", "Check the time server.", 60, 60),
    "certificate_expiring": Code(WARNING, "A certificate ends in less than 30 days.", "Renew it."),
    "certificate_expired": Code(CRITICAL, "A certificate has ended.", "Renew it; what is received is kept meanwhile."),
    "certificate_unreadable": Code(CRITICAL, "A certificate cannot be read.", "Check its path and rights."),
    "hot": Code(WARNING, "The processor is hotter than 80 °C.", "Clean the vents; move the box.", 30, 60),
    "throttled": Code(
        WARNING, "The processor was slowed down for heat or want of power.", "Cooling, power supply.", 0, 300
    ),
    "undervoltage": Code(
        CRITICAL, "The supply voltage is too low: disks lose data this way.", "Replace the supply.", 0, 300
    ),
    "on_battery": Code(WARNING, "Mains power is gone; the UPS feeds the box.", "Restore power."),
    "memory_short": Code(WARNING, "Less than 5 % of the memory is available.", "See what else runs here.", 60, 60),
    "command_rejected": Code(
        WARNING,
        "In the last hour a command was refused: forged, replayed, or not allowed.",
        "See the events; check the keys.",
    ),
}


def table() -> str:
    """Return the table of codes in Markdown."""
    rows = ["| code | severity | meaning | remedy |", "|---|---|---|---|"]
    return "\n".join(rows + [f"| `{n}` | {c.severity} | {c.meaning} | {c.remedy} |" for n, c in CODES.items()])
