"""`dicom-gateway run`: the service in the foreground."""

from __future__ import annotations

import logging
import sys

import click
import sdnotify

from gateway.cli.context import config_path
from gateway.config.load import load


@click.command()
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
@click.option("-q", "--quiet", is_flag=True, help="Log warnings and errors only.")
@click.pass_context
def run(ctx: click.Context, verbose: bool, quiet: bool) -> None:
    """Run the gateway until SIGTERM; SIGHUP reads the configuration again."""
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
    logging.getLogger("gateway").setLevel(level)
    path = config_path(ctx)
    settings = load(path).settings
    from gateway.app import serve

    notifier = sdnotify.SystemdNotifier()
    sys.exit(serve(settings, path, notifier.notify))
