"""`dicom-gateway fleet keys`: who may command boxes."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli.context import echo_table, print_json
from gateway.fleet.keys import make as make_key
from gateway.fleet.keys import revoke as revoke_key
from gateway.fleet.settings import read_secret
from gateway.identity.keyring import ROLES, load_keyring
from gateway.model.errors import IdentityError

Keyring = click.option(
    "--keyring",
    type=click.Path(path_type=Path),
    default=Path("keyring.toml"),
    show_default=True,
    help="Public keys, as a box reads them by [mqtt] keyring_file.",
)


def passphrase_in(path: Path | None) -> bytes | None:
    """Return the passphrase in a file; raises IdentityError."""
    if path is None:
        return None
    try:
        return read_secret(path).encode() or None
    except (OSError, UnicodeDecodeError) as error:
        raise IdentityError(f"{path} cannot be read: {error}") from None


@click.group()
def keys() -> None:
    """Make, list and revoke operators' keys."""


@keys.command()
@click.argument("kid")
@click.option("--role", type=click.Choice(ROLES), required=True, help="What the key may command.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Where KID.key is put.  [default: here]",
)
@Keyring
@click.option("--passphrase", "ask", is_flag=True, help="Ask for a passphrase that encrypts the key.")
@click.option("--passphrase-file", type=click.Path(path_type=Path), help="The same from a file.")
def make(kid: str, role: str, folder: Path, keyring: Path, ask: bool, passphrase_file: Path | None) -> None:
    """Make a key pair: KID.key for its owner alone, the public half into the keyring."""
    secret = passphrase_in(passphrase_file)
    if ask and secret is None:
        secret = click.prompt("Passphrase", hide_input=True, confirmation_prompt=True).encode()
    path = folder / f"{kid}.key"
    key = make_key(kid, role, path, keyring, secret)
    click.echo(f"{path}: keep it secret; it signs as {key.kid} with the role {key.role}")
    click.echo(f"{keyring}: give it to the boxes, as [mqtt] keyring_file; they read it anew for each command")


@keys.command("list")
@Keyring
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def list_(keyring: Path, as_json: bool) -> None:
    """List the keys that boxes with this keyring know."""
    found = list(load_keyring(keyring).values())
    if as_json:
        print_json([key.model_dump() for key in found])
        return
    rows = [[key.kid, key.role, "revoked" if key.revoked else "good", key.public_key] for key in found]
    echo_table(rows, ["kid", "role", "state", "public key"])


@keys.command()
@click.argument("kid")
@Keyring
def revoke(kid: str, keyring: Path) -> None:
    """Let boxes that get this keyring obey the key no more."""
    revoke_key(kid, keyring)
    click.echo(f"{kid} is revoked; it counts for a box once the box has this {keyring}")
