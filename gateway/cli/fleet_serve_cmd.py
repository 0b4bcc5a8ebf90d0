"""`dicom-gateway fleet serve`: the fleet monitor in the foreground."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from types import FrameType

import click
import sdnotify

from gateway.cli.fleet_context import FleetConfig
from gateway.fleet.settings import load
from gateway.supervisor import Supervisor

STOP_S = 8.0


@click.command()
@FleetConfig
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
@click.option("-q", "--quiet", is_flag=True, help="Log warnings and errors only.")
def serve(path: Path, verbose: bool, quiet: bool) -> None:
    """Watch the boxes until SIGTERM: subscribe, remember, and serve one page and /metrics."""
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
    logging.getLogger("gateway").setLevel(level)
    settings = load(path)
    from gateway.fleet.monitor import Monitor

    supervisor = Supervisor(sdnotify.SystemdNotifier().notify)
    monitor = Monitor(settings, supervisor.spawn)

    def on_signal(number: int, frame: FrameType | None) -> None:
        supervisor.end()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    for name, run in monitor.rooms().items():
        supervisor.room(name, run)
    supervisor.watch(monitor.status_line)
    for prefix in ("page", "watch", "line", "store"):  # the store last, so that what was heard can be written down
        supervisor.finish(prefix, STOP_S / 4)
    monitor.close()
    sys.exit(supervisor.exit_code)
