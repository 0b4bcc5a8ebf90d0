"""`dicom-gateway emulate`: a scanner, an archive, a line between them."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import Any

import click

from gateway.cli.context import print_json
from gateway.cli.emulate_modality import modality, stopped
from gateway.cli.emulate_modality import place as named
from gateway.emulator.line import Line
from gateway.emulator.modality import Modality
from gateway.emulator.pacs import Pacs
from gateway.emulator.sender import Sent
from gateway.emulator.study import ct_study
from gateway.emulator.wan import Wan


@click.group()
def emulate() -> None:
    """Emulate a scanner, an archive or a bad line."""


emulate.add_command(modality)


@emulate.command()
@click.option("--to", "place", required=True, metavar="HOST:PORT", help="Where to send.")
@click.option("--studies", default=1, show_default=True)
@click.option("--images", default=40, show_default=True, help="Images per study.")
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same studies.")
@click.option("-aet", "--aet", default="CT1", show_default=True, help="Our AE title.")
@click.option("-aec", "--aec", default="EDGEGW", show_default=True, help="Called AE title.")
@click.option("--rounds", default=1, show_default=True, help="Send again what was not acknowledged, so often.")
@click.option("--timeout", "timeout_s", default=30.0, show_default=True, help="Seconds to wait for an answer.")
@click.option("--log", type=click.Path(path_type=Path), help="Append one JSON line per acknowledged instance.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per instance.")
@click.pass_context
def ct(
    ctx: click.Context,
    place: str,
    studies: int,
    images: int,
    seed: int,
    aet: str,
    aec: str,
    rounds: int,
    timeout_s: float,
    log: Path | None,
    as_json: bool,
) -> None:
    """Send synthetic CT studies. Exit code 1 unless every image was acknowledged."""
    host, port = named(place)
    acknowledged = 0
    with ExitStack() as stack:
        file = stack.enter_context(open(log, "a")) if log else None
        scanner = Modality(host, port, aec, aet, file, timeout_s)
        bar = stack.enter_context(
            click.progressbar(length=studies * images, label="sending", hidden=as_json, file=sys.stderr)
        )

        def told(sent: Sent) -> None:
            bar.update(1)
            if as_json:
                print_json(asdict(sent))

        for study in range(studies):
            sent = scanner.send(ct_study(seed + study, images), told, rounds=rounds)
            acknowledged += sum(one.acknowledged for one in sent)
    if not as_json:
        click.echo(f"{acknowledged} of {studies * images} acknowledged")
    if acknowledged < studies * images:
        ctx.exit(1)


@emulate.command()
@click.option("--port", default=0, help="Port; 0 takes a free one.")
@click.option("--address", default="127.0.0.1", show_default=True)
@click.option("-aet", "--aet", default="PACS", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="Keep what arrives here.")
@click.option("--log", type=click.Path(path_type=Path), help="Append one JSON line per instance.")
@click.option("--delay", "delay_s", default=0.0, help="Seconds to wait before each answer.")
@click.option("--busy", "busy_for_first", default=0, help="Answer 0xA700 to so many first instances.")
def pacs(
    port: int, address: str, aet: str, folder: Path | None, log: Path | None, delay_s: float, busy_for_first: int
) -> None:
    """Be an archive until SIGTERM or Ctrl-C."""
    stop = stopped()
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        file = stack.enter_context(open(log, "a")) if log else None
        archive = Pacs(
            port, ae_title=aet, address=address, folder=folder, log=file, delay_s=delay_s, busy_for_first=busy_for_first
        )
        archive.start()
        click.echo(f"listening on {archive.port}")
        while not stop.wait(0.5):
            pass
        archive.stop()
        click.echo(f"{len(archive.received)} instances received")


@emulate.command()
@click.option(
    "--listen", "port", type=click.IntRange(0, 65535), default=0, show_default=True, help="Port; 0 takes a free one."
)
@click.option("--address", default="127.0.0.1", show_default=True)
@click.option("--to", "place", required=True, metavar="HOST:PORT", help="The far side.")
@click.option("--rtt-ms", "round_trip_ms", default=0.0, show_default=True, help="Round trip; half of it each way.")
@click.option("--jitter-ms", default=0.0, show_default=True, help="Up to so much more, each way.")
@click.option("--mbit", "rate_mbit_s", type=float, help="Mbit/s of payload each way, for all connections together.")
@click.option("--mbit-down", "down_mbit_s", type=float, help="Mbit/s towards whoever connects, where it differs.")
@click.option("--cut-after-bytes", type=int, help="Reset each connection once either way has carried so much.")
@click.option("--cut-every-s", type=float, help="Reset all connections, on average so often.")
@click.option("--freeze-after-bytes", type=int, help="Stall each connection once either way has carried so much.")
@click.option("--freeze-s", default=inf, show_default=True, help="How long it stalls.")
@click.option("--half-close-after-bytes", type=int, help="End that way of a connection which has carried so much.")
@click.option("--refuse", is_flag=True, help="Reset whoever connects.")
@click.option("--black-hole", is_flag=True, help="Accept whoever connects, and swallow what comes.")
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same cuts and jitter.")
def wan(port: int, address: str, place: str, **line: Any) -> None:
    """Be a bad line to HOST:PORT until SIGTERM or Ctrl-C; then print what it carried as one line of JSON."""
    stop = stopped()
    try:
        bad = Line(**line)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    try:
        with Wan(bad, named(place), address=address, port=port) as proxy:
            click.echo(f"listening on {proxy.port}")
            while not stop.wait(0.5):
                pass
    except OSError as error:
        raise click.UsageError(f"cannot listen on {address}:{port} for {place}: {error.strerror}") from error
    click.echo(json.dumps(asdict(proxy.traffic)))
