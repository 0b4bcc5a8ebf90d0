"""`dicom-gateway route`: which way an object would go, and why. Needs the configuration, not the service."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from gateway.arrive.part10_file import envelope
from gateway.cli.context import print_json
from gateway.cli.local import settings_of
from gateway.config.schema import Settings
from gateway.dicom.part10 import PREFIX_BYTES, scan_header
from gateway.model.errors import PrepareError, Refused
from gateway.model.instance import Door, Origin, SOPInstance
from gateway.prepare.recipe import Difference, occasion_of, stages_of
from gateway.route.facts import Facts, facts_of
from gateway.route.rules import explain, ways_of
from gateway.route.words import condition_in_words, printable, reading_in_words, routes_in_words, target_in_words

Json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def route() -> None:
    """Show the routes, and which of them an object would take."""


@route.command("list")
@Json
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """Print every route in words, in the order of the file."""
    settings = settings_of(ctx)
    if as_json:
        print_json([json.loads(entry.model_dump_json(exclude_defaults=True)) for entry in settings.route])
        return
    for sentence in routes_in_words(settings):
        click.echo(sentence)


@route.command("explain")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--calling-ae-title", "-aet", default="", help="As if this sender had sent it.")
@click.option("--called-ae-title", "-aec", default="", help="As if the sender had called us so.")
@click.option("--address", default="", help="As if it had come from this address.")
@click.option("--dimse-priority", type=int, default=0, help="As if it had been sent so: 0 MEDIUM, 1 HIGH, 2 LOW.")
@click.option("--at", type=click.DateTime(["%H:%M"]), help="As if it had come at this local time; default: now.")
@click.option("--diff", is_flag=True, help="Show what recipes would change on the way to each destination.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per file.")
@click.pass_context
def explain_(
    ctx: click.Context,
    files: tuple[Path, ...],
    calling_ae_title: str,
    called_ae_title: str,
    address: str,
    dimse_priority: int,
    at: datetime | None,
    diff: bool,
    as_json: bool,
) -> None:
    """Say for each route whether FILES take it, and what was seen where not. Exit code 1 if a file is no object, or a
    recipe cannot be applied to it.

    Shows values of the files that you name, which may identify a patient; nothing is logged.
    """
    settings = settings_of(ctx)
    origin = Origin(Door.DIMSE, address, calling_ae_title, called_ae_title, dimse_priority=dimse_priority)
    failed = False
    for path in files:
        try:
            asked = _asked(settings, path, origin, at or datetime.now())
            recipes = _recipes(settings, asked) if diff else None
        except (Refused, OSError) as error:
            failed = True
            reason = error.detail if isinstance(error, Refused) else f"cannot be read: {error.strerror}"
            click.echo(f"not explained: {path}: {reason}", err=True)
            continue
        failed = failed or any(isinstance(made, str) for made in (recipes or {}).values())
        if as_json:
            print_json({"file": str(path), **_plain(settings, asked.facts, recipes)})
        else:
            _print(settings, asked, recipes)
    if failed:
        ctx.exit(1)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A file, as if it had come in."""

    path: Path
    offset: int
    instance: SOPInstance
    facts: Facts


def _asked(settings: Settings, path: Path, origin: Origin, at: datetime) -> _Asked:
    """Read a file as reception would; raises Refused, OSError."""
    with open(path, "rb") as file:
        found = envelope(file)
        file.seek(found.offset)
        beginning = file.read(PREFIX_BYTES)
    header = scan_header(beginning, found.transfer_syntax_uid)
    uids = (found.sop_class_uid, found.sop_instance_uid, found.transfer_syntax_uid)
    instance = SOPInstance("", *uids, "", 0, header, origin, time.time())
    facts = facts_of(settings.route, instance, lambda: beginning, at.time())
    return _Asked(path, found.offset, instance, facts)


def _recipes(settings: Settings, asked: _Asked) -> dict[str, list[Difference] | str]:
    """Return destination -> what its recipe changes, or why it cannot be applied; raises OSError."""
    from gateway.prepare.character_set import quietly  # pydicom is slow to import, and seldom needed
    from gateway.prepare.difference import differences
    from gateway.prepare.edit import preview
    from gateway.prepare.stages import steps_of

    made: dict[str, list[Difference] | str] = {}
    for name, way in ways_of(settings, asked.facts).items():
        instance = asked.instance
        try:
            with TemporaryDirectory() as folder:
                steps = steps_of(stages_of(settings, way.recipe), occasion_of(settings, instance))
                pair = preview(asked.path, asked.offset, instance.transfer_syntax_uid, Path(folder), steps)
                with quietly():
                    made[name] = list(differences(*pair))
        except PrepareError as error:
            made[name] = error.detail
    return made


def _destinations(settings: Settings, facts: Facts) -> dict[str, str]:
    return {name: way.priority.name.lower() for name, way in ways_of(settings, facts).items()}


def _plain(settings: Settings, facts: Facts, recipes: dict[str, list[Difference] | str] | None) -> dict[str, Any]:
    routes = [
        {
            "route": number,
            "matched": explained.matched,
            "to": explained.route.to,
            "priority": explained.route.priority,
            "conditions": [
                {"condition": condition_in_words(reading), "seen": reading.seen, "holds": reading.holds}
                for reading in explained.readings
            ],
        }
        for number, explained in enumerate(explain(settings, facts), 1)
    ]
    ways = ways_of(settings, facts)
    plain = {
        "routes": routes,
        "destinations": _destinations(settings, facts),
        "recipes": {name: way.recipe for name, way in ways.items() if way.recipe},
    }
    if recipes is not None:
        plain["changes"] = {
            name: {"error": made} if isinstance(made, str) else [asdict(difference) for difference in made]
            for name, made in recipes.items()
        }
    return plain


def _print(settings: Settings, asked: _Asked, recipes: dict[str, list[Difference] | str] | None) -> None:
    click.echo(f"{asked.path}")
    facts = asked.facts
    for number, explained in enumerate(explain(settings, facts), 1):
        way = f"matched -> {target_in_words(explained.route)}" if explained.matched else "not matched"
        click.echo(f"  route {number}: {way}")
        for reading in explained.readings:
            click.echo(f"    {'✔' if reading.holds else '✖'} {reading_in_words(reading)}")
    destinations = _destinations(settings, facts)
    went = ", ".join(f"{name} ({priority})" for name, priority in destinations.items())
    without = "nobody: it stays in custody, unrouted, until a route takes it"
    click.echo(f"  goes to {went or without}")
    for name, made in (recipes or {}).items():
        if isinstance(made, str):
            click.echo(f"  to {name}: would be held, its recipe cannot be applied: {made}")
            continue
        click.echo(f"  to {name}: {'as it came' if not made else 'changed'}")
        for difference in made:
            click.echo(f"    {_difference_in_words(difference)}")


def _difference_in_words(difference: Difference) -> str:
    """Say it on one line: "(0010,0020) PatientID: '17' -> 'A-17'"."""
    before, after = (
        "nothing" if value is None else f"'{printable(value)}'" for value in (difference.before, difference.after)
    )
    return f"{difference.tag} {difference.name}: {before} -> {after}"
