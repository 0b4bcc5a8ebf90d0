"""`dicom-gateway status`: what is here, and what waits."""

from __future__ import annotations

import time
from typing import Any

import click

from gateway.cli.context import echo_table, print_json
from gateway.cli.local import ask_service, ledger_of, settings_of
from gateway.model.errors import NotRunning
from gateway.report import report
from gateway.spool.capacity import look

STATES = ("queued", "sending", "sent", "confirmed", "held")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Show what is in custody, what waits for whom and why. Exit code 69 when the service is not running."""
    settings = settings_of(ctx)
    try:
        answer = ask_service(settings, {"do": "status"})
    except NotRunning:
        with ledger_of(settings) as reader:
            spool = settings.spool
            capacity = look(settings.gateway.data_dir, spool.reserve_bytes, spool.high_water_percent)
            answer = report(reader, capacity)
    if as_json:
        print_json(answer)
    else:
        _print(answer)
    if not answer["running"]:
        ctx.exit(NotRunning.exit_code)


def _scrub_line(scrub: dict[str, Any]) -> str:
    at = scrub["last_full_pass_at"]
    last = "not yet" if at is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
    now = f", {scrub['percent']:.0f} % of the next" if scrub["running"] else ""
    return f"everything read again and compared: {last}{now}"


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
    click.echo(_scrub_line(answer["scrub"]))
    rows = []
    for name, row in sorted(answer["destinations"].items()):
        health = "" if "well" not in row else "well" if row["well"] else f"ILL: {row['reason']}"
        rows.append([name, *(str(row.get(state, 0)) for state in STATES), health])
    echo_table(rows, ["destination", *STATES, "health"])
    if answer["unrouted"]:
        click.echo(f"ALARM unrouted: {answer['unrouted']} objects match no route; they are kept")
    for name, count in answer["alarms"].items():
        click.echo(f"ALARM {name}: {count}")
    if answer.get("ledger_fault"):
        click.echo(f"ALARM ledger: {answer['ledger_fault']}")
    if not answer["sums_agree"]:
        wrong = [name for name, row in sorted(answer["destinations"].items()) if not row.get("sums_agree", True)]
        where = f"; deliveries to {', '.join(wrong)}" if wrong else ""
        click.echo(f"ALARM sums: accepted is not what is held, released, quarantined and retired together{where}")
