"""`dicom-gateway update`: the image's next version, from a file, a stick or an URL; and back."""

from __future__ import annotations

import subprocess
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

import click

from gateway.cli.context import config_path, echo_table, print_json
from gateway.cli.local import ask_service
from gateway.config.load import load
from gateway.config.schema import Settings
from gateway.config.update import STICK
from gateway.model.errors import ConfigError, GatewayError
from gateway.onsite import errand, probation, rauc
from gateway.onsite.rauc import UpdateError
from gateway.onsite.stick import STICKS, mounted

STICK_AT = Path("/run/dicom-gateway-update/stick")
TOLD_S = 15.0
"""Between the answer and the restart, so that the answer still reaches the broker."""

Reboot = click.option("--reboot", is_flag=True, help="Restart the box at once.")


def settings_or_defaults(ctx: click.Context) -> Settings:
    """A box whose configuration is bad can be updated as well."""
    try:
        return load(config_path(ctx)).settings
    except ConfigError:
        return Settings()


@click.group()
def update() -> None:
    """See, install and take back versions of the box's image. Exit code 1 when it was not done."""


@update.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Show both slots, which one runs, which one starts next, and how the last update went."""
    found = rauc.slots()
    data_dir = settings_or_defaults(ctx).gateway.data_dir
    waiting, last = probation.recall(data_dir), probation.last(data_dir)
    if as_json:
        print_json({**asdict(found), "waiting": asdict(waiting) if waiting else None, "last": last})
        return
    rows = [
        [
            slot.bootname,
            slot.version or "factory",
            "runs" if slot.booted else "",
            "starts next" if slot.name == found.next else "",
            "good" if slot.good else "not good",
        ]
        for slot in found.slots
    ]
    echo_table(rows, ["slot", "version", "", "", "state"])
    if waiting:
        click.echo(f"version {waiting.version} in slot {waiting.slot} waits to be judged")
    if last:
        click.echo(f"the update to {last['version']} was judged last: {last['outcome']}")


@update.command()
@click.argument("bundle", required=False)
@Reboot
@click.pass_context
def install(ctx: click.Context, bundle: str | None, reboot: bool) -> None:
    """Install BUNDLE (a file or an https URL), else the one *.raucb on a stick labelled CONFIG or UPDATE.

    The box goes on with what it runs until it is restarted. Then it is on probation: unless it reaches within ten
    minutes what it reaches now, the boot loader goes back by itself.
    """
    with ExitStack() as stack:
        chosen = bundle or str(_on_stick(stack))
        if not chosen.startswith("https://"):
            chosen = str(Path(chosen).absolute())  # the daemon works in another folder
        version = install_bundle(settings_or_defaults(ctx), chosen)
    click.echo(f"version {version} is installed; it starts with the next restart")
    if reboot:
        restart()


def install_bundle(settings: Settings, bundle: str, wanted: str | None = None) -> str:
    """Install, with what is reached now written down first; return the version. Raises UpdateError.

    `wanted`: any other version is refused before anything is written.
    """
    found = rauc.slots()
    if found.other is None:
        raise UpdateError("this box has no second slot", hint="flash the image anew")
    version = rauc.bundle_version(bundle)
    if wanted and version != wanted:
        raise UpdateError(f"the bundle holds version {version}, not {wanted}")
    try:
        before = probation.remember(
            settings.gateway.data_dir, found.other.bootname, version, lambda request: ask_service(settings, request)
        )
    except OSError as error:
        raise UpdateError(f"what is reached now cannot be written down: {error.strerror}") from error
    click.echo(f"reached now, and to be reached afterwards: {', '.join(before.reached) or 'nothing'}")
    try:
        rauc.install(bundle, click.echo)
    except UpdateError:
        probation.close(settings.gateway.data_dir, before, "not installed")
        raise
    return version


def _on_stick(stack: ExitStack) -> Path:
    device = next((path for path in STICKS if path.exists()), None)
    if device is None:
        raise UpdateError("there is no stick labelled CONFIG or UPDATE", hint="name the bundle instead")
    return rauc.on_stick(stack.enter_context(mounted(device, STICK_AT)))


@update.command()
@Reboot
@click.pass_context
def rollback(ctx: click.Context, reboot: bool) -> None:
    """Start the other slot next, with the version that is in it."""
    found = rauc.slots()
    if found.other is None:
        raise UpdateError("this box has no second slot", hint="flash the image anew")
    if not found.other.good:
        raise UpdateError(
            f"slot {found.other.bootname} is not good: it never worked, or an installation was cut short",
            hint="install a bundle",
        )
    rauc.mark("active", "other")
    data_dir = settings_or_defaults(ctx).gateway.data_dir
    waiting = probation.recall(data_dir)
    if waiting:
        probation.close(data_dir, waiting, "went back")
    click.echo(f"slot {found.other.bootname} ({found.other.version or 'factory'}) starts with the next restart")
    if reboot:
        restart()


@update.command(hidden=True)
@click.argument("verb", type=click.Choice(errand.VERBS))
@click.argument("version", default="")
def request(verb: str, version: str) -> None:
    """Ask root for an update; what the service calls for a signed command."""
    sent = errand.Errand(verb, version, uuid4().hex)
    click.echo(errand.send(sent, rauc.INSTALL_S if verb == "install" else rauc.SHORT_S))


@update.command(hidden=True)
@click.pass_context
def obey(ctx: click.Context) -> None:
    """Do what the service asked for; what dicom-gateway-update.service runs."""
    asked = errand.receive(errand.REQUEST)
    if asked is None:
        click.echo("there is no request that makes sense", err=True)
        return
    try:
        text = _do(asked, settings_or_defaults(ctx))
    except GatewayError as error:
        errand.reply(asked, good=False, text=error.detail)
        raise
    errand.reply(asked, good=True, text=text)
    if asked.verb in ("install", "reboot", "poweroff"):
        time.sleep(TOLD_S if asked.verb == "install" else 0)
        restart("poweroff" if asked.verb == "poweroff" else "reboot")


def _do(asked: errand.Errand, settings: Settings) -> str:
    if asked.verb == "check":
        booted = rauc.slots().booted
        return f"slot {booted.bootname} runs" if booted else "no slot runs"
    if asked.verb in ("reboot", "poweroff"):
        return f"{asked.verb} begins"
    if asked.verb == "confirm":
        rauc.mark("good", "booted")
        return "marked good"
    if settings.update is None:
        raise UpdateError("no [update] source is configured")
    source = settings.update.source
    with ExitStack() as stack:
        bundle = str(_on_stick(stack)) if source == STICK else source.replace("{version}", asked.version)
        return f"version {install_bundle(settings, bundle, asked.version)} installed"


def restart(how: str = "reboot") -> None:
    """Restart the machine, or switch it off; raises UpdateError."""
    done = subprocess.run(["systemctl", how], check=False, timeout=60)
    if done.returncode:
        raise UpdateError(f"systemctl {how} failed")
