"""`dicom-gateway emulate clinic`: a day of a whole clinic around one box, and what became of every image."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from gateway.cli.context import echo_table, print_json
from gateway.cli.emulate_modality import place, stopped
from gateway.emulator.clinic import Clinic
from gateway.emulator.scenario import Scenario, load, names
from gateway.emulator.shipped import ProfileError

COLUMNS = ("ae_title", "profile", "studies", "sent", "acknowledged", "missing", "from_worklist")


@click.command()
@click.argument("scenario_name", metavar="SCENARIO", required=False)
@click.option("--list", "listed", is_flag=True, help="Name the scenarios that are shipped.")
@click.option("--to", metavar="HOST:PORT", help="The box, instead of the scenario's [target].")
@click.option("--seed", type=int, help="Instead of the scenario's; the same seed gives the same day.")
@click.option("--speed", type=float, help="How much faster the day passes, instead of the scenario's.")
@click.option(
    "--archive-port", type=click.IntRange(0, 65535), help="Where the box delivers to, instead of the scenario's."
)
@click.option("--address", help="Where this machine listens for the box, instead of the scenario's.")
@click.option("--log", type=click.Path(path_type=Path), help="Append one JSON line per object sent and received.")
@click.option("--json", "as_json", is_flag=True, help="Print ports, then the sum, as one JSON object each.")
@click.pass_context
def clinic(
    ctx: click.Context,
    scenario_name: str | None,
    listed: bool,
    to: str | None,
    seed: int | None,
    speed: float | None,
    archive_port: int | None,
    address: str | None,
    log: Path | None,
    as_json: bool,
) -> None:
    """Play SCENARIO, a TOML file or a shipped one, against a box whose only destination is the clinic's archive (at its
    line's port where there is one). Exit code 0 only when everything was acknowledged and arrived as it was sent."""
    if listed:
        echo_table([[name, load(name).about] for name in names()], ["scenario", "what it is"])
        ctx.exit()
    if scenario_name is None:
        raise click.UsageError(f"which SCENARIO? There are {', '.join(names())}, or a file that ends with .toml")
    try:
        scenario = _changed(scenario_name, to, archive_port, {"seed": seed, "speed": speed, "address": address})
        with ExitStack() as stack:
            file = stack.enter_context(open(log, "a")) if log else None
            here = Clinic(scenario, file)
            here.stop = stopped()
            stack.callback(here.close)
            ports = here.open()
            if as_json:
                print_json({"ports": {**asdict(ports), "destination": ports.destination}})
            else:
                click.echo(f"the box delivers to port {ports.destination}; worklist and steps at port {ports.ris}")
            live = sys.stderr.isatty() and not as_json

            def tell(acknowledged: int, arrived: int) -> None:
                if live:
                    click.echo(f"\r\x1b[Kacknowledged {acknowledged}   arrived {arrived}", nl=False, err=True)

            total = here.run(tell)
    except (ProfileError, OSError) as error:
        raise click.UsageError(str(error)) from error
    _print(total, as_json=as_json, live=live)
    if not total["complete"]:
        ctx.exit(1)


def _changed(name: str, to: str | None, archive_port: int | None, settings: dict[str, Any]) -> Scenario:
    told = load(name)
    changed: dict[str, Any] = {}
    if to is not None:
        host, port = place(to)
        changed["target"] = told.target.model_copy(update={"host": host, "port": port})
    if archive_port is not None and told.line is not None:
        changed["line"] = told.line.model_copy(update={"port": archive_port})
    elif archive_port is not None:
        changed["archive"] = told.archive.model_copy(update={"port": archive_port})
    changed |= {key: value for key, value in settings.items() if value is not None}
    return load(name, **changed)


def _print(total: dict[str, Any], *, as_json: bool, live: bool) -> None:
    if as_json:
        print_json(total)
        return
    if live:
        click.echo("", err=True)
    echo_table([[str(row[key]) for key in COLUMNS] for row in total["scanners"]], list(COLUMNS))
    for row in total["scanners"]:
        for trouble in filter(None, [row["trouble"], *row["troubles"]]):
            click.echo(f"  {row['ae_title']}: {trouble}")
    for kind, times in total["delivery_s"].items():
        click.echo(f"{kind}: {times['objects']} delivered after {times['median']} s, at worst {times['worst']} s")
    if total["complete"]:
        click.echo(f"✔ {total['acknowledged']} objects arrived as they were sent")
    else:
        click.echo(
            f"✖ {total['missing']} missing, {total['not_acknowledged']} never acknowledged, "
            f"{len(total['never_sent'])} that nobody sent"
        )
