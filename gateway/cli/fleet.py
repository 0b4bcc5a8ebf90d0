"""`dicom-gateway fleet`: what central IT runs, on a machine of its own."""

from __future__ import annotations

import click

from gateway.cli.lazy import Lazy

COMMANDS = {
    "serve": ("gateway.cli.fleet_serve_cmd:serve", "Watch the boxes: one page, and /metrics for Prometheus."),
    "watch": ("gateway.cli.fleet_watch_cmd:watch", "All boxes at a terminal; a line for each change when piped."),
    "command": ("gateway.cli.fleet_command_cmd:command", "Sign a command, send it to boxes, follow it to its end."),
    "desire": ("gateway.cli.fleet_command_cmd:desire", "Let boxes have a configuration, now or when they come back."),
    "keys": ("gateway.cli.fleet_keys_cmd:keys", "Make, list and revoke operators' keys."),
    "simulate": ("gateway.cli.fleet_simulate_cmd:simulate", "Thousands of boxes that are none."),
}


@click.group(cls=Lazy, table=COMMANDS)
def fleet() -> None:
    """Central IT: watch many boxes, and command them."""
