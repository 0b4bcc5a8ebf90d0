"""`dicom-gateway queue`: look at deliveries and decide about them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from gateway.cli.context import echo_table, print_json
from gateway.cli.local import ask_or_look, ask_service, ledger_of, settings_of
from gateway.model.lifecycle import Custody, Delivery
from gateway.report import delivery_rows, instance_page
from gateway.spool.export import SET_ASIDE, Selection, prepare_folder, select
from gateway.spool.export import export as export_to
from gateway.spool.store import Store

Json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def queue() -> None:
    """Look at what waits, and hold, release or retry it."""


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
    rows = ask_or_look(ctx, request, delivery_rows, request)
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
    folder = Store(settings_of(ctx).gateway.data_dir).quarantine
    if quarantined and os.access(folder, os.R_OK) and (aside := len(list(folder.iterdir()))):
        click.echo(f"and {aside} files that a start set aside; `queue export --quarantined` copies them too")


@queue.command()
@click.argument("object_id")
@Json
@click.pass_context
def show(ctx: click.Context, object_id: str, as_json: bool) -> None:
    """Show one instance with its deliveries and history; the beginning of its id is enough."""
    page = ask_or_look(ctx, {"do": "queue_show", "object": object_id}, instance_page, object_id)
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
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.pass_context
def move(ctx: click.Context, source: str, target: str) -> None:
    """Give to TO what FROM has not confirmed; FROM is no longer in the configuration.

    What TO has confirmed already is not sent again. Where routes de-identify what goes to TO, only what was routed so
    is moved. Exit code 1 when nothing was to be moved.
    """
    moved = ask_service(settings_of(ctx), {"do": "queue_move", "from": source, "to": target})
    click.echo(f"{moved} deliveries moved from {source} to {target}")
    if not moved:
        ctx.exit(1)


@queue.command()
@click.argument("destination")
@click.option("--for", "for_s", type=click.IntRange(1, 86400), default=3600, show_default=True, help="Seconds.")
@click.pass_context
def pause(ctx: click.Context, destination: str, for_s: int) -> None:
    """Let nothing leave for a destination for a while; a restart of the service ends it too."""
    ask_service(settings_of(ctx), {"do": "lane_pause", "destination": destination, "for_s": for_s})
    click.echo(f"nothing leaves for {destination} for {for_s} s")


@queue.command()
@click.argument("destination")
@click.pass_context
def resume(ctx: click.Context, destination: str) -> None:
    """End a pause."""
    ask_service(settings_of(ctx), {"do": "lane_pause", "destination": destination, "for_s": 0})
    click.echo(f"{destination} goes on")


@queue.command()
@click.argument("study_uid")
@click.pass_context
def settle(ctx: click.Context, study_uid: str) -> None:
    """Expect no more of a study: what a scanner said it sent and never came is no longer missed."""
    missed = ask_service(settings_of(ctx), {"do": "study_settle", "study": study_uid})
    click.echo(f"{missed} instances are no longer missed")
    if not missed:
        ctx.exit(1)


@queue.command()
@click.argument("objects", nargs=-1)
@click.option("--to", "folder", required=True, type=click.Path(path_type=Path), help="A new or empty folder.")
@click.option("--destination", help="Only what this destination has not confirmed yet.")
@click.option("--study", "study_uid", help="Only this Study Instance UID.")
@click.option("--quarantined", is_flag=True, help="Only what is in quarantine.")
@click.option("--all", "everything", is_flag=True, help="Everything that is here.")
@Json
@click.pass_context
def export(
    ctx: click.Context,
    objects: tuple[str, ...],
    folder: Path,
    destination: str | None,
    study_uid: str | None,
    quarantined: bool,
    everything: bool,
    as_json: bool,
) -> None:
    """Copy instances to a folder as Part 10 files, with a manifest; works with or without the service.

    Each is hashed on the way. Exit code 1 when one could not be copied, or is rotten and not in quarantine yet.
    """
    if not (objects or destination or study_uid or quarantined or everything):
        raise click.UsageError("name objects, a destination or a study, or say --quarantined or --all")
    settings = settings_of(ctx)
    wanted = Selection(objects, destination, study_uid, quarantined)
    count = {"exported": 0, "rotten": 0, "missing": 0}
    trouble = False
    with ledger_of(settings) as reader:
        prepare_folder(folder)
        store = Store(settings.gateway.data_dir)
        aside = not (objects or destination or study_uid)
        for line in export_to(store, reader, select(reader, wanted), folder, aside=aside):
            count["exported" if line["intact"] else "missing" if line["intact"] is None else "rotten"] += 1
            if not line["intact"]:
                trouble = trouble or line["intact"] is None or line["custody"] not in (Custody.QUARANTINED, SET_ASIDE)
                if not as_json:
                    click.echo(f"{line['object_id'][:12]}  {_fate(line)}  {line['reason']}", err=True)
    if as_json:
        print_json({"folder": str(folder), **count})
    else:
        click.echo(f"{count['exported']} intact, {count['rotten']} rotten, {count['missing']} missing -> {folder}")
    if trouble or not any(count.values()):
        ctx.exit(1)


def _fate(line: dict[str, Any]) -> str:
    return "no file to copy" if line["intact"] is None else "copied as it is, rotten"
