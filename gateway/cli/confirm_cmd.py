"""`dicom-gateway confirm`: after a start, judge whether this version may stay."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from gateway.cli.context import config_path
from gateway.cli.local import ask_service
from gateway.cli.update_cmd import restart, settings_or_defaults
from gateway.config.load import load
from gateway.model.errors import ConfigError
from gateway.onsite import probation, rauc


@click.command()
@click.option("--within", "within_s", type=float, default=probation.WITHIN_S, show_default=True, help="Seconds.")
@click.option("--reboot", is_flag=True, help="An update that fails is left by a restart; the boot loader goes back.")
@click.pass_context
def confirm(ctx: click.Context, within_s: float, reboot: bool) -> None:
    """Mark this version good when the box answers itself and reaches what it reached before an update.

    A box without a configuration has nothing to be judged by, and is good. Exit code 1: it was not marked.
    """
    path = config_path(ctx)
    slots = rauc.slots() if shutil.which("rauc") else None
    data_dir = settings_or_defaults(ctx).gateway.data_dir
    before = probation.recall(data_dir)
    if before and slots and slots.booted and slots.booted.bootname != before.slot:
        click.echo(f"the update to version {before.version} went back to slot {slots.booted.bootname}", err=True)
        probation.close(data_dir, before, "went back")
        before = None

    def look() -> list[str]:
        try:
            settings = load(path).settings
        except ConfigError as error:
            return [f"the configuration cannot be used: {error.detail}"]
        return list(probation.complaints(settings, before, lambda asked: ask_service(settings, asked)))

    good = unconfigured(path) or probation.judge(look, lambda text: click.echo(text, err=True), within_s)
    if not good:
        click.echo("not marked good", err=True)
        if before and reboot:
            restart()
        ctx.exit(1)
    if slots:
        rauc.mark("good", "booted")
    if before:
        probation.close(data_dir, before, "kept")
    click.echo("good: " + ("there is no configuration yet" if unconfigured(path) else "the box does what it did"))


def unconfigured(path: Path) -> bool:
    """True while nothing but comments is in the file, or there is none: the service does not start then."""
    try:
        return not any(line.lstrip().startswith("[") for line in path.read_text(errors="replace").splitlines())
    except OSError:
        return True
