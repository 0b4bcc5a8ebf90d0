"""`dicom-gateway configure`: on the box, take the configuration that an engineer brought."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import click

from gateway.cli.context import config_path
from gateway.identity.device import CERTIFICATE, REQUEST, request, signed_by_itself
from gateway.model.errors import ConfigError, GatewayError
from gateway.onsite import words
from gateway.onsite.addresses import addresses
from gateway.onsite.folder import CONFIG, NAME, NETWORK, RESULT, answer, holds_configuration, read, remove_secrets
from gateway.onsite.install import Taken, ensure_key, finish, installed, take
from gateway.onsite.network import load_network, put_in_force
from gateway.onsite.stick import DEVICES, mounted
from gateway.spool.files import replace_file

MOUNTS = Path("/run/dicom-gateway-config")
NETWORKS, NETWORKD = Path("/state/network"), Path("/run/systemd/network")
"""Where an image keeps addresses, and where systemd-networkd reads those that its start copies from there."""
SYSTEMD = Path("/run/systemd/system")
SERVICE = "dicom-gateway.service"


@click.command()
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--key-only", is_flag=True, help="Only make the key of this box, and finish what was begun.")
@click.option("--again", is_flag=True, help="Take a configuration that was taken from there before.")
@click.pass_context
def configure(ctx: click.Context, folders: tuple[Path, ...], key_only: bool, again: bool) -> None:
    """Take the configuration in FOLDERS, else on a stick labelled CONFIG, else in CONFIG of the boot partition.

    Checked first, then taken as a whole or not at all; `result.txt` beside it says which. Secrets are moved to the box.
    Exit code 78 when it was not taken: the box goes on as before.
    """
    home = config_path(ctx).absolute().parent
    ensure_key(home)
    changed = finish(home)
    failed = False
    _network(home)
    if not key_only:
        with ExitStack() as stack:
            for source, folder in _folders(folders, stack):
                if holds_configuration(folder):
                    found = _bring(home, source, folder, again=again)
                    failed, changed = found is None, changed or bool(found and found.changed)
                    break
            else:
                click.echo("no configuration was brought")
    if changed:
        _network(home)
    if changed and SYSTEMD.is_dir():
        subprocess.run(["systemctl", "--no-block", "restart", SERVICE], check=False, timeout=30)
    if failed:
        ctx.exit(ConfigError.exit_code)


def _network(home: Path) -> None:
    """Put the box's addresses in force, where this is an image; a bad file leaves them as they are."""
    if not (NETWORKS.is_dir() and (home / NETWORK).exists()):
        return
    try:
        settings = load_network(home / NETWORK)
        put_in_force(settings, NETWORKS)
        if NETWORKD.is_dir() and put_in_force(settings, NETWORKD) and SYSTEMD.is_dir():
            subprocess.run(["networkctl", "reload"], check=False, timeout=30)
    except (ConfigError, OSError) as error:
        click.echo(f"the addresses stay as they are: {error}", err=True)


def _folders(given: tuple[Path, ...], stack: ExitStack) -> Iterator[tuple[str, Path]]:
    """Yield where to look, and what the box calls it; a device is mounted while it is looked at."""
    if given:
        yield from ((str(folder.absolute()), folder) for folder in given)
        return
    for source, device in DEVICES:
        if not device.exists():
            continue
        try:
            top = stack.enter_context(mounted(device, MOUNTS / source))
        except GatewayError as error:
            click.echo(f"{error}", err=True)
            continue
        yield source, next((path for path in top.iterdir() if path.name.upper() == CONFIG and path.is_dir()), top)


def _bring(home: Path, source: str, folder: Path, *, again: bool) -> Taken | None:
    """Take one folder and answer in it; None when it was not taken."""
    try:
        parcel = read(folder)
        found = take(parcel, home, source, again=again)
    except ConfigError as error:
        _answer(home, folder, words.refused(error, has_one=(home / NAME).exists(), now=time.time()))
        return None
    except OSError as error:
        _answer(home, folder, words.stuck(f"{error.strerror}: {error.filename}", time.time()))
        return None
    own, moved = signed_by_itself(home / CERTIFICATE), parcel.secrets
    try:
        if installed(home, parcel):
            remove_secrets(parcel)
        if found.changed and own:
            (folder / REQUEST).write_bytes(request(ensure_key(home), found.settings.gateway.id))
    except OSError as error:
        click.echo(f"{folder} cannot be written, its secrets are still there: {error.strerror}", err=True)
    if not found.changed and not moved:
        click.echo(f"{folder}: nothing new")
        return found
    _answer(home, folder, words.taken(found.settings, addresses().values(), moved, own=own, now=time.time()))
    return found


def _answer(home: Path, folder: Path, text: str) -> None:
    """Say it in the folder, to the screen of the box, and here."""
    click.echo(text)
    try:
        replace_file(home / RESULT, text, 0o640)
        answer(folder, text)
    except OSError as error:
        click.echo(f"{RESULT} cannot be written: {error.strerror}", err=True)
