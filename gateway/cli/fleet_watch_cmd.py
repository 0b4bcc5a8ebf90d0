"""`dicom-gateway fleet watch`: all boxes at a terminal."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gateway.cli.fleet_context import FleetConfig, Tenant, tenant_of
from gateway.fleet.settings import load
from gateway.fleet.watch import Line, Watch

FRAME = 6
"""Lines of the terminal that are no boxes: the head of the table, the sums, a spare one."""
COLUMNS = {"box": 0, "presence": 8, "status": 8, "worst reason": 0, "unsent": 6, "version": 7}
"""With the width that each needs; 0: a share of what is left."""
STYLES = ("bold red", "magenta", "yellow", "")
"""By urgency; the words say the same, colour is never the only sign."""


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds else "-"


def _plain(line: Line) -> str:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return f"{stamp} {line.tenant}/{line.box} {line.presence} {line.status} {line.version} {line.reason or '-'}"


def _screen(watch: Watch, rows: int) -> Group:
    table = Table(expand=True, box=None, header_style="bold", pad_edge=False)
    for name, width in COLUMNS.items():
        table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=None if width else 1, min_width=width)
    lines = watch.lines()
    several = len({line.tenant for line in lines}) > 1
    for line in lines[:rows]:
        name = f"{line.tenant}/{line.box}" if several else line.box
        cells = (name, line.presence, line.status, line.reason, _age(line.oldest_unsent_s), line.version)
        table.add_row(*map(Text, cells), style=STYLES[line.urgency])
    said = "  ".join(f"{count} {name}" for name, count in watch.sums().items())
    more = f"  ({len(lines) - rows} more below)" if len(lines) > rows else ""
    trouble = Text(f"NO LINE TO THE BROKER: {watch.trouble}", style="bold red") if watch.trouble else Text("")
    return Group(table, Text(said + more), trouble)


@click.command()
@FleetConfig
@Tenant
@click.option("--once", is_flag=True, help="Show the fleet as it is, and end.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each box that changes.")
@click.pass_context
def watch(ctx: click.Context, path: Path, tenant: str | None, once: bool, as_json: bool) -> None:
    """Show all boxes, the most urgent first. Piped, or with --json: a line for each change.

    With --once exit code 1 when a box is critical or not online.
    """
    settings = load(path)
    tenants = [tenant_of(settings, tenant)] if tenant else settings.tenants
    watching, stop, console = Watch(settings, tenants), threading.Event(), Console()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)

    def tell() -> None:
        for line in watching.changes():
            click.echo(json.dumps(asdict(line)) if as_json else _plain(line))
        sys.stdout.flush()

    if as_json or not sys.stdout.isatty():
        watching.run(stop, tell, once=once)
    elif once:
        watching.run(stop, lambda: console.print(_screen(watching, sys.maxsize)), once=True)
    else:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            watching.run(
                stop, lambda: live.update(_screen(watching, max(1, console.size.height - FRAME)), refresh=True)
            )
    sums = watching.sums()
    if once and (sums["critical"] or sums["online"] < sums["boxes"]):
        ctx.exit(1)
