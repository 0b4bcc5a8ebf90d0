"""`dicom-gateway fleet simulate`: thousands of boxes that are none."""

from __future__ import annotations

import json
import math
import signal
import socket
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import click

from gateway.cli.context import print_json
from gateway.cli.fleet_context import FleetConfig
from gateway.fleet.desk import Unreachable
from gateway.fleet.line import Broker
from gateway.fleet.settings import BrokerSettings, load, read_secret
from gateway.fleet.simulate import Plan, Simulation, allow_files
from gateway.identity.tls import client_context

Positive = click.FloatRange(0, min_open=True)
Percent = click.FloatRange(0, 100)


def _broker(settings: BrokerSettings) -> Broker:
    try:
        family, _, _, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        password = read_secret(settings.password_file).encode() if settings.password_file else None
    except OSError as error:
        raise Unreachable(f"{settings.host}:{settings.port}: {error}") from None
    tls = settings.tls
    return Broker(
        address,
        family,
        client_context(tls) if tls else None,
        (tls.server_name if tls else None) or settings.host,
        settings.user,
        password,
    )


def _line(numbers: dict[str, Any]) -> str:
    lost = ", ".join(f"{count} {why}" for why, count in numbers["lost"].items())
    return (
        f"{numbers['seconds']:7.1f} s  {numbers['connected']} of {numbers['boxes']} connected  "
        f"{numbers['published']} published  {numbers['acknowledged']} acknowledged  "
        f"p99 {numbers['ack_ms']['p99']} ms" + (f"  lost: {lost}" if lost else "")
    )


@click.command()
@FleetConfig
@click.option("-n", "--boxes", type=click.IntRange(1, 60000), default=100, show_default=True, help="How many.")
@click.option("--tenant", default="simulated", show_default=True, help="Under which tenant: not that of real boxes.")
@click.option("--seconds", type=Positive, default=math.inf, help="End after so long.  [default: when stopped]")
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same fleet.")
@click.option("--interval", "interval_s", type=Positive, default=60.0, show_default=True, help="Of health reports.")
@click.option("--ramp", "ramp_per_s", type=Positive, default=200.0, show_default=True, help="Connections a second.")
@click.option("--will-delay", "will_delay_s", type=click.IntRange(0, 3600), default=30, show_default=True)
@click.option("--hasten", type=Positive, default=60.0, show_default=True, help="Fates go so much faster than real.")
@click.option("--flap", "flap_s", type=Positive, default=60.0, show_default=True, help="Seconds between its breaks.")
@click.option("--steady", is_flag=True, help="Nothing befalls any box, but for storms and waves.")
@click.option("--storm-every", "storm_every_s", type=Positive, default=math.inf, help="Seconds between line storms.")
@click.option("--storm-percent", "storm_pct", type=Percent, default=20.0, show_default=True, help="Lines that break.")
@click.option("--wave-every", "wave_every_s", type=Positive, default=math.inf, help="Seconds between firmware waves.")
@click.option("--wave-percent", "wave_pct", type=Percent, default=10.0, show_default=True, help="Boxes in each.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
@click.pass_context
def simulate(ctx: click.Context, /, path: Path, as_json: bool, **facts: Any) -> None:
    """Simulate boxes that report to the broker of the fleet monitor, with all that befalls a real fleet: lines that
    flap or break all at once, updates in waves, disks that die. Exit code 1 when none could connect.

    All boxes use the one certificate of the [broker] table; the broker must let it write to gw/v1/TENANT/#.
    """
    plan = Plan(**facts)
    allow_files(plan.boxes)
    simulation = Simulation(plan, _broker(load(path).broker))
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    numbers = simulation.run(stop, lambda numbers: click.echo(json.dumps(numbers) if as_json else _line(numbers)))
    if as_json:
        print_json(numbers)
    else:
        click.echo(_line(numbers))
    if not numbers["connects"]:
        ctx.exit(1)
