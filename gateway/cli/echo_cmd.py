"""`dicom-gateway echo`: one verification of a destination."""

from __future__ import annotations

import time
from typing import Any

import click

from gateway.cli.context import print_json
from gateway.cli.local import ask_service, settings_of
from gateway.config.schema import Settings
from gateway.model.errors import GatewayError, NotRunning


def probe(settings: Settings, name: str) -> dict[str, Any]:
    """Ask a destination how it is, from this process."""
    from gateway.send.couriers import COURIERS

    known = {destination.name: destination for destination in settings.destination}
    if name not in known:
        raise GatewayError(f"no destination '{name}'", hint=f"known: {', '.join(known) or 'none'}")
    courier = COURIERS[known[name].kind](known[name], settings.gateway.ae_title)
    started = time.monotonic()
    try:
        verdict = courier.probe()
    finally:
        courier.close()
    return {
        "destination": name,
        "outcome": verdict.outcome.value,
        "text": verdict.text,
        "seconds": time.monotonic() - started,
    }


@click.command()
@click.argument("destination")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def echo(ctx: click.Context, destination: str, as_json: bool) -> None:
    """Verify one destination (C-ECHO, OPTIONS). Exit code 1 when it is not well."""
    settings = settings_of(ctx)
    try:
        answer = ask_service(settings, {"do": "echo", "destination": destination})
    except NotRunning:
        answer = probe(settings, destination)
    well = answer["outcome"] == "accepted"
    if as_json:
        print_json(answer)
    else:
        words = answer["text"] or ("well" if well else answer["outcome"])
        click.echo(f"{'✔' if well else '✖'} {destination}: {words} ({answer['seconds'] * 1000:.0f} ms)")
    if not well:
        ctx.exit(1)
