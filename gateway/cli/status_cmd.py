"""`dicom-gateway status`: what is here, and what waits."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from gateway.cli.context import echo_table, print_json
from gateway.cli.local import ask_or_look, ask_service, ledger_of, settings_of
from gateway.cli.receipt_cmd import receipt
from gateway.model.errors import NotRunning
from gateway.report import MAX_STUDIES, report, study_rows
from gateway.spool.capacity import Room, look

STATES = ("queued", "sending", "sent", "confirmed", "held")

NO_ROOM = {
    Room.TIGHT: "new associations are rejected",
    Room.FULL: "nothing is received (0xA700)",
}
FREE_SPACE = "free space on the disk of data_dir; receiving begins again by itself"
ASK_DOCTOR = "`dicom-gateway doctor` says what ails the disk"
GOES_ON = "delivery goes on, nothing accepted is dropped"

MONITOR = {
    "online": "a fleet monitor watches",
    "offline": "UNMONITORED: the fleet monitor is away",
    "unknown": "no fleet monitor has said that it watches",
}

HELP = {
    "study_short": " studies, see `status studies --short`",
    "ledger_rot": " checks found bits of the ledger changed: stop the service, move ledger.db* away, start it again",
    "custody_rot": " objects changed on the disk, see `queue list --quarantined`",
}


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Show what is in custody, what waits for whom and why. Exit code 69 when the service is not running."""
    if ctx.invoked_subcommand is not None:
        return
    settings = settings_of(ctx)
    try:
        answer = ask_service(settings, {"do": "status"})
    except NotRunning:
        with ledger_of(settings) as reader:
            spool = settings.spool
            capacity = look(settings.gateway.data_dir, spool.reserve_bytes, spool.high_water_percent)
            answer = report(reader, capacity, spool.study_short_alarm_s)
    if as_json:
        print_json(answer)
    else:
        _print(answer)
    if not answer["running"]:
        ctx.exit(NotRunning.exit_code)


@status.command()
@click.option("--study", "study_uid", help="Only this Study Instance UID.")
@click.option("--short", "only_short", is_flag=True, help="Only those that raise the alarm study_short.")
@click.option("--limit", type=click.IntRange(1, MAX_STUDIES), default=20, show_default=True, help="Studies on a page.")
@click.option("--page", type=click.IntRange(1), default=1, show_default=True, help="Which page.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@click.pass_context
def studies(ctx: click.Context, study_uid: str | None, only_short: bool, limit: int, page: int, as_json: bool) -> None:
    """Show studies, newest first: what was announced, received, delivered and confirmed, in instances.

    Works with or without the service. Exit code 1 when one that is asked for is not known here.
    """
    request: dict[str, Any] = {"do": "studies", "study": study_uid, "limit": limit, "offset": (page - 1) * limit}
    if only_short:
        request["short_for_s"] = settings_of(ctx).spool.study_short_alarm_s
    rows = ask_or_look(ctx, request, study_rows, request)
    if as_json:
        print_json(rows)
    else:
        _print_studies(rows)
    if study_uid and not rows:
        ctx.exit(1)


status.add_command(receipt)


def _print_studies(rows: list[dict[str, Any]]) -> None:
    table = []
    for row in rows:
        facts = [
            row["study_uid"] or "(not known)",
            _minute(row["last_at"]),
            "-" if row["expected"] is None else str(row["expected"]),
            str(row["received"]),
            str(row["missing"]),
        ]
        state = "complete" if row["complete"] else f"SHORT since {_minute(row['short_since'])}"
        if row["quarantined"]:
            state += f", {row['quarantined']} in quarantine"
        for name, tally in sorted(row["destinations"].items()) or [("(none)", None)]:
            counts = [str(tally[key]) for key in ("delivered", "confirmed")] if tally else ["-", "-"]
            table.append([*facts, name, *counts, state])
            facts, state = [""] * len(facts), ""
    echo_table(
        table,
        ["study", "last", "announced", "received", "missing", "destination", "delivered", "confirmed", "state"],
    )


def _minute(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def _scrub_line(scrub: dict[str, Any]) -> str:
    at = scrub["last_full_pass_at"]
    last = "not yet" if at is None else _minute(at)
    now = f", {scrub['percent']:.0f} % of the next" if scrub["running"] else ""
    return f"everything read again and compared: {last}{now}"


def _size(count: float) -> str:
    return f"{count / 1e6:.1f} MB"


def _age(seconds: float) -> str:
    """Say how old something is, in the largest unit of which it is at least two."""
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"


def _pace(row: Mapping[str, Any], box: Mapping[str, Any]) -> list[str]:
    """Say how a destination gets on; `box` is the bandwidth of all together. Empty when there is nothing to say."""
    said = []
    if row.get("backlog_objects"):
        said.append(f"{row['backlog_objects']} wait ({_size(row['backlog_bytes'])})")
        said.append(f"the oldest for {_age(row['oldest_age_s'])}")
    if "rate" not in row:
        return said
    if row["rate"]["bytes_per_s"]:
        said.append(f"{_size(row['rate']['bytes_per_s'])}/s, {row['rate']['objects_per_s']} objects/s")
    if row["limited_by"]:
        bytes_per_s = (row["bandwidth"] if row["limited_by"] == "destination" else box)["limit_bytes_per_s"]
        rate = f"held to {bytes_per_s * 8 / 1e6:g} Mbit/s" if bytes_per_s else "closed at this hour"
        said.append(f"{rate} by the bandwidth of the {row['limited_by']}")
    codec = row["compression"]
    if row["rate"]["bytes_per_s"] and codec["configured"] != "off":
        said.append(f"codec now: {codec['choice']} ({codec['why']})")
    if codec["renditions"]:
        said.append(f"{codec['renditions']} went compressed, {_size(codec['saved_bytes'])} saved")
    if codec["passed_on"]:
        said.append(f"{codec['passed_on']} could not be compressed")
    return said


def _print(answer: dict[str, Any]) -> None:
    if answer["running"]:
        ports = ", ".join(f"{row['port']} ({row['associations']} open)" for row in answer["listeners"])
        click.echo(f"running for {answer['uptime_s']:.0f} s, listening on {ports or 'no port'}")
    else:
        click.echo("NOT RUNNING - what follows is what the disk says")
    click.echo(
        f"in custody {answer['held']} ({answer['held_bytes'] / 1e6:.1f} MB)  released {answer['released']}  "
        f"retired {answer['retired']}  quarantined {answer['quarantined']}  duplicates {answer['duplicates']}"
    )
    disk = answer["disk"]
    click.echo(f"disk {disk['used_percent']} % used, {disk['free_bytes'] / 1e9:.1f} GB free, room {disk['room']}")
    if disk["reason"]:
        fix = ASK_DOCTOR if disk["read_only"] else FREE_SPACE
        click.echo(f"ALARM disk: {disk['reason']}; {NO_ROOM[disk['room']]}, {GOES_ON}\n    fix: {fix}")
    click.echo(_scrub_line(answer["scrub"]))
    rows = []
    for name, row in sorted(answer["destinations"].items()):
        health = "" if "well" not in row else "well" if row["well"] else f"ILL: {row['reason']}"
        if row.get("paused_for_s"):
            health = f"PAUSED for {row['paused_for_s']:.0f} s more; {health}"
        if not row.get("configured", True) and any(row[state] for state in ("queued", "sent", "held")):
            health = f"NOT CONFIGURED: nobody sends to it; `queue move {name} TO` gives to another what waits"
        if row.get("unanswered"):
            health = f"{health}; no evidence: {row['unanswered']}"
        rows.append([name, *(str(row.get(state, 0)) for state in STATES), health])
    echo_table(rows, ["destination", *STATES, "health"])
    for name, row in sorted(answer["destinations"].items()):
        if said := _pace(row, answer.get("bandwidth", {})):
            click.echo(f"{name}: {', '.join(said)}")
    if answer.get("mqtt") and answer["mqtt"]["configured"]:
        line = answer["mqtt"]
        click.echo(
            f"mqtt connected; {MONITOR[line['monitor']]}"
            if line["connected"]
            else f"mqtt NOT CONNECTED: {line['reason']}"
        )
    for row in answer["commitment"]:
        told = f"report not taken {row['attempts']} times: {row['reason']}" if row["attempts"] else "to be reported"
        click.echo(
            f"storage commitment asked by {row['calling_ae_title'] or row['address']}: {row['instances']} instances, "
            f"{told if row['decided'] else 'open'}"
        )
    if answer["unrouted"]:
        click.echo(f"ALARM unrouted: {answer['unrouted']} objects match no route; they are kept")
    for name, count in answer["alarms"].items():
        click.echo(f"ALARM {name}: {count}{HELP.get(name, '')}")
    if answer.get("ledger_fault"):
        click.echo(f"ALARM ledger: {answer['ledger_fault']}; {NO_ROOM[Room.FULL]}, {GOES_ON}\n    fix: {ASK_DOCTOR}")
    if not answer["sums_agree"]:
        wrong = [name for name, row in sorted(answer["destinations"].items()) if not row.get("sums_agree", True)]
        where = f"; deliveries to {', '.join(wrong)}" if wrong else ""
        click.echo(f"ALARM sums: accepted is not what is held, released, quarantined and retired together{where}")
