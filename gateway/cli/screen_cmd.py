"""`dicom-gateway screen`: the box's own screen."""

from __future__ import annotations

import time
from pathlib import Path

import click

from gateway.cli.confirm_cmd import unconfigured
from gateway.cli.context import config_path
from gateway.cli.local import ask_service
from gateway.config.load import load
from gateway.model.errors import ConfigError, GatewayError
from gateway.onsite.addresses import addresses
from gateway.onsite.folder import RESULT
from gateway.onsite.screen import Facts, page, paint

HIDE, SHOW, CLEAR, NEVER_BLANK = "\x1b[?25l", "\x1b[?25h", "\x1b[2J", "\x1b[9;0]"
"""The last is the kernel's console's own (console_codes(4))."""


@click.command()
@click.option("--every", "every_s", type=click.FloatRange(1), default=5.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Print it once, without colours.")
@click.pass_context
def screen(ctx: click.Context, every_s: float, once: bool) -> None:
    """Show address, what to type into a scanner, state and last study, over and over."""
    path = config_path(ctx)
    if once:
        click.echo("\n".join(text.rstrip() for _, text in page(look(path))))
        return
    click.echo(HIDE + NEVER_BLANK + CLEAR, nl=False)
    try:
        while True:
            click.echo(paint(page(look(path))), nl=False)
            time.sleep(every_s)
    finally:
        click.echo(SHOW)


def look(path: Path) -> Facts:
    """Return what is to be shown; what cannot be had is left out."""
    settings, status, study = None, None, None
    try:
        settings = load(path).settings
        status = ask_service(settings, {"do": "status"})
        study = next(iter(ask_service(settings, {"do": "studies", "limit": 1})), None)
    except (ConfigError, GatewayError):
        pass
    try:
        answer = (path.absolute().parent / RESULT).read_text(errors="replace")
    except OSError:
        answer = ""
    return Facts(settings, not unconfigured(path), status, study, addresses(), answer, time.time())
