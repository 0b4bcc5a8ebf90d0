"""`dicom-gateway queue`: look at deliveries and decide about them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from gateway.cli.context import echo_table, print_json
from gateway.cli.local import ask_service, ledger_of, settings_of
from gateway.model.errors import GatewayError, NotRunning
from gateway.model.lifecycle import Delivery
from gateway.report import delivery_rows, instance_page

Json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def queue() -> None:
    """Look at what waits, and hold, release or retry it."""


def _look(ctx: click.Context, request: dict[str, Any], local: Callable[..., Any], *args: Any) -> Any:
    """Ask the service, or the ledger when nobody answers."""
    settings = settings_of(ctx)
    try:
        return ask_service(settings, request)
    except NotRunning:
        with ledger_of(settings) as reader:
            return local(reader, *args)


@queue.command("list")
@click.option("--state", "states", multiple=True, type=click.Choice([state.value for state in Delivery]))
@click.option("--destination", help="Only deliveries to this destination.")
@click.option("--quarantined", is_flag=True, help="Only instances in quarantine.")
@click.option("--limit", default=100, show_default=True, help="At most so many rows.")
@Json
@click.pass_context
def list_(
    ctx: click.Context, states: tuple[str, ...], destination: str | None, quarantined: bool, limit: int, as_json: bool
) -> None:
    """List deliveries, oldest first."""
    request = {
        "do": "queue_list",
        "states": list(states),
        "destination": destination,
        "quarantined": quarantined,
        "limit": limit,
    }
    rows = _look(ctx, request, delivery_rows, request)
    if as_json:
        print_json(rows)
        return
    echo_table(
        [
            [
                row["object_id"][:12],
                row["custody"],
                row["modality"] or "-",
                str(row["length"]),
                row["destination"] or "(none)",
                row["state"] or "-",
                str(row["attempts"] or 0),
                row["reason"] or "",
            ]
            for row in rows
        ],
        ["object", "custody", "modality", "bytes", "destination", "state", "attempts", "reason"],
    )


@queue.command()
@click.argument("object_id")
@Json
@click.pass_context
def show(ctx: click.Context, object_id: str, as_json: bool) -> None:
    """Show one instance with its deliveries and history; the beginning of its id is enough."""
    page = _look(ctx, {"do": "queue_show", "object": object_id}, instance_page, object_id)
    if as_json:
        print_json(page)
        return
    for name, value in page.items():
        if name not in ("deliveries", "history"):
            click.echo(f"{name:20} {value}")
    echo_table(
        [[d["destination"], d["state"], str(d["attempts"]), d["reason"]] for d in page["deliveries"]],
        ["destination", "state", "attempts", "reason"],
    )
    echo_table(
        [[h["destination"] or "-", h["event"], h["state"], h["detail"]] for h in page["history"]],
        ["destination", "event", "state", "detail"],
    )


def _operate(ctx: click.Context, do: str, objects: tuple[str, ...], destination: str | None, everything: bool) -> None:
    if not objects and not everything:
        raise click.UsageError("name objects, or say --all")
    settings = settings_of(ctx)
    changed = ask_service(settings, {"do": do, "objects": list(objects), "destination": destination})
    click.echo(f"{changed} deliveries changed")
    if not changed:
        ctx.exit(1)


def _operation(do: str, text: str) -> click.Command:
    @click.argument("objects", nargs=-1)
    @click.option("--destination", help="Only deliveries to this destination.")
    @click.option("--all", "everything", is_flag=True, help="All that it can happen to.")
    @click.pass_context
    def operate(ctx: click.Context, objects: tuple[str, ...], destination: str | None, everything: bool) -> None:
        _operate(ctx, do, objects, destination, everything)

    return click.command(do.removeprefix("queue_"), help=text)(operate)


queue.add_command(_operation("queue_retry", "Let deliveries go at once: those that wait, and those that are held."))
queue.add_command(_operation("queue_hold", "Hold deliveries until they are released."))
queue.add_command(_operation("queue_release", "Release held deliveries."))


@queue.command()
@click.argument("object_id")
@click.argument("target", type=click.Path(path_type=Path))
@click.pass_context
def export(ctx: click.Context, object_id: str, target: Path) -> None:
    """Copy one instance to a new Part 10 file, verified on the way."""
    settings = settings_of(ctx)
    page = _look(ctx, {"do": "queue_show", "object": object_id}, instance_page, object_id)
    from gateway.spool.store import Store

    if target.exists():
        raise GatewayError(f"{target} is there already")
    Store(settings.gateway.data_dir).export(page["shelf"], page["object_id"], page["sha256"], target)
    click.echo(f"{page['object_id']} -> {target}")
