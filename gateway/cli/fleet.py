"""`dicom-gateway fleet`: what central IT runs, on a machine of its own."""

from __future__ import annotations

import click

from gateway.cli.lazy import Lazy

COMMANDS = {
    "serve": ("gateway.cli.fleet_serve_cmd:serve", "Watch the boxes: one page, and /metrics for Prometheus."),
}


@click.group(cls=Lazy, table=COMMANDS)
def fleet() -> None:
    """Central IT: watch many boxes."""
