"""`dicom-gateway fleet command` and `fleet desire`: what central IT wants of boxes, signed."""

from __future__ import annotations

import getpass
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from gateway.cli.context import print_json
from gateway.cli.fleet_context import FleetConfig, Tenant, tenant_of
from gateway.cli.fleet_keys_cmd import passphrase_in
from gateway.fleet import command as orders
from gateway.fleet.command import MAX_LIFE_S, Errand, NotACommand, Order, Outcome
from gateway.fleet.keys import SigningKey
from gateway.fleet.settings import load
from gateway.model.errors import IdentityError

MEANING = {
    "nobody_there": "the broker knows of no such box that takes commands",
    "no_answer": "no answer: the box is away, or does not know the key; it obeys this command no more",
}
Yes = click.option("--yes", is_flag=True, help="Do not ask before several boxes are told.")
Passphrase = click.option("--passphrase-file", type=click.Path(path_type=Path), help="Passphrase of the key.")


def _key(path: Path, passphrase_file: Path | None) -> SigningKey:
    """Load a key; a person at a terminal is asked for its passphrase."""
    try:
        return SigningKey.load(path, passphrase_in(passphrase_file))
    except IdentityError as error:
        if "needs a passphrase" not in error.detail or not sys.stdin.isatty():
            raise
    return SigningKey.load(path, click.prompt(f"Passphrase of {path}", hide_input=True, err=True).encode())


def _agreed(boxes: list[str], what: str, yes: bool) -> None:
    """Several boxes at once are told only after a second thought."""
    if len(boxes) > 1 and not yes:
        click.echo(f"{len(boxes)} boxes: {', '.join(boxes[:10])}{', …' if len(boxes) > 10 else ''}", err=True)
        click.confirm(f"{what} on all of them?", abort=True, err=True)


def _line(outcome: Outcome) -> str:
    values = " ".join(f"{name}={value}" for name, value in outcome.values.items())
    said = MEANING.get(outcome.code) or ("" if outcome.code == outcome.status else outcome.code)
    return f"{outcome.seconds:7.2f} s  {outcome.box:32} {outcome.status:12} {said} {values}".rstrip()


@click.command()
@click.argument("boxes")
@click.argument("verb")
@click.argument("words", nargs=-1, metavar="[NAME=VALUE]...")
@FleetConfig
@click.option("--key", "key_file", type=click.Path(path_type=Path), required=True, help="KID.key of an operator.")
@Passphrase
@Tenant
@click.option("--timeout", "timeout_s", type=click.IntRange(1, MAX_LIFE_S), default=60, show_default=True,
              help="Seconds; a box that has not heard the command by then does not obey it any more.")  # fmt: skip
@click.option("--reason", default="", help="Why; it is signed too, and stands in the records of broker and boxes.")
@Yes
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of the ends.")
@click.pass_context
def command(
    ctx: click.Context,
    boxes: str,
    verb: str,
    words: tuple[str, ...],
    path: Path,
    key_file: Path,
    passphrase_file: Path | None,
    tenant: str | None,
    timeout_s: int,
    reason: str,
    yes: bool,
    as_json: bool,
) -> None:
    """Tell BOXES to do VERB, and follow what becomes of it.

    BOXES are names, or globs over what the broker knows ('ct*'), separated by commas. NAME=VALUE are the arguments;
    NAME=@FILE takes a file's text. Exit code 1 unless all boxes did it.
    """
    settings = load(path)
    order = Order(verb, orders.arguments(verb, words), timeout_s, getpass.getuser()[:64], reason)
    name = tenant_of(settings, tenant)
    key = _key(key_file, passphrase_file)
    found = orders.chosen(settings.broker, name, boxes)
    _agreed(found, verb, yes)

    def tell(outcome: Outcome) -> None:
        if not as_json:
            click.echo(_line(outcome))

    outcomes = Errand(settings.broker, name, order, key, tell).run(found, timeout_s)
    if as_json:
        print_json([asdict(outcome) for outcome in outcomes])
    if any(outcome.status != "successful" for outcome in outcomes):
        ctx.exit(1)


@click.command()
@click.argument("boxes")
@click.argument("config_file", required=False, type=click.Path(path_type=Path))
@click.option("--clear", is_flag=True, help="Desire nothing any more.")
@click.option("--version", "version", type=click.IntRange(1), help="Above all earlier ones.  [default: the time]")
@FleetConfig
@click.option("--key", "key_file", type=click.Path(path_type=Path), help="KID.key of an admin.")
@Passphrase
@Tenant
@Yes
@click.pass_context
def desire(
    ctx: click.Context,
    boxes: str,
    config_file: Path | None,
    clear: bool,
    version: int | None,
    path: Path,
    key_file: Path | None,
    passphrase_file: Path | None,
    tenant: str | None,
    yes: bool,
) -> None:
    """Let BOXES have the configuration in CONFIG_FILE, now or when they come back.

    The broker keeps it, signed. Each box puts it on trial once and goes back by itself when it cannot work by it.
    """
    if clear == (config_file is not None):
        raise click.UsageError("name a CONFIG_FILE, or say --clear")
    if config_file is not None and key_file is None:
        raise click.UsageError("--key is needed: boxes take only what an admin has signed")
    settings = load(path)
    name = tenant_of(settings, tenant)
    found = orders.chosen(settings.broker, name, boxes)
    _agreed(found, "clear what is desired" if clear else f"{config_file} for", yes)
    facts: dict[str, Any] = {"config": None, "key": None}
    if config_file is not None and key_file is not None:
        try:
            facts = {"config": config_file.read_text(encoding="utf-8"), "key": _key(key_file, passphrase_file)}
        except (OSError, UnicodeDecodeError) as error:
            raise NotACommand(f"{config_file} cannot be read: {error}") from None
    number = version or int(time.time())
    refused = orders.desire(settings.broker, name, found, version=number, **facts)
    click.echo(f"version {number}: {len(found) - len(refused)} of {len(found)} boxes" if not clear else "cleared")
    for box in refused:
        click.echo(f"{box}: the broker refuses this; see its access list", err=True)
    if refused:
        ctx.exit(1)
