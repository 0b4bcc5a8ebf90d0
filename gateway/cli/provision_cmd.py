"""`dicom-gateway provision`: on a laptop, make and check the folder that a box is configured from."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from ipaddress import ip_address, ip_interface
from pathlib import Path

import click

from gateway.cli.init_cmd import ask_for
from gateway.config.template import template
from gateway.model.errors import ConfigError
from gateway.onsite.folder import CONFIG, NAME, NETWORK, holds_configuration, read
from gateway.onsite.install import take
from gateway.onsite.words import for_the_scanner


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--id", "gateway_id", help="Name of the box.")
@click.option("--ae-title", "-aet", "ae_title", help="Its AE title.")
@click.option("--port", type=int, help="Port for scanners.")
@click.option("--archive", help="AE@host:port, or the URL of a STOW-RS service.")
@click.option(
    "--add",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    help="Copy a certificate, key or password file into the folder.",
)
@click.option("--address", multiple=True, help="Fixed address of a port: eth0=192.0.2.5/24; absent: by DHCP.")
@click.option("--router", help="Router of the one port that leads out.")
def provision(
    folder: Path,
    gateway_id: str | None,
    ae_title: str | None,
    port: int | None,
    archive: str | None,
    add: tuple[Path, ...],
    address: tuple[str, ...],
    router: str | None,
) -> None:
    """Make CONFIG in FOLDER (a stick labelled CONFIG, or the boot partition) and check it as the box will.

    Asks for what the options do not say; a configuration that is there already is only checked. Exit code 78 when the
    box would not take it.
    """
    if folder.name.upper() != CONFIG and not holds_configuration(folder):
        folder = folder / CONFIG
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in add:
            shutil.copyfile(path, folder / path.name)
        if not holds_configuration(folder):
            answers = ask_for(gateway_id, ae_title, port, archive, ask=sys.stdin.isatty())
            (folder / NAME).write_text(template(answers), newline="\r\n")  # for editors of other systems
            click.echo(f"wrote {folder / NAME}")
        if address:
            (folder / NETWORK).write_text(network_text(address, router), newline="\r\n")
            click.echo(f"wrote {folder / NETWORK}")
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}", hint="is it there, and writable?") from error
    parcel = read(folder)
    with tempfile.TemporaryDirectory() as home:
        settings = take(parcel, Path(home), "laptop").settings
    for row in for_the_scanner(settings, ["of the box"]):
        click.echo(row)
    if not settings.destination:
        click.echo("There is no [[destination]]: the box keeps what it gets, and sends nothing.")
    if parcel.secrets:
        click.echo(f"The box will move from here and delete: {', '.join(sorted(parcel.secrets))}")
    click.echo(f"✔ {folder}: the box will take this")


def network_text(addresses: tuple[str, ...], router: str | None) -> str:
    """Return a network.toml of `port=address/size`; the router goes to the port in whose network it is."""
    rows = ["# Addresses of the box. A port that is not named asks for one by DHCP.", ""]
    for text in addresses:
        name, _, own = text.partition("=")
        rows += ["[[interface]]", f"name = {json.dumps(name)}", f"address = {json.dumps(own)}"]
        try:
            if router and ip_address(router) in ip_interface(own).network:
                rows.append(f"gateway = {json.dumps(router)}")
                router = None
        except ValueError:
            pass  # the check that follows says which line is wrong
        rows.append("")
    if router:
        raise ValueError(f"no --address is in the network of the router {router}")
    return "\n".join(rows)
