"""`dicom-gateway emulate`: scanners, an archive, a RIS, a line between them."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import Any, Literal

import click

from gateway.cli.context import print_json
from gateway.cli.emulate_clinic import clinic
from gateway.cli.emulate_modality import modality, stopped
from gateway.cli.emulate_modality import place as named
from gateway.emulator.hl7 import send_orders
from gateway.emulator.line import Line
from gateway.emulator.modality import Modality
from gateway.emulator.orders import scheduled_day
from gateway.emulator.pacs import Commits, Pacs
from gateway.emulator.ris import Ris
from gateway.emulator.rules import RuleError, parse
from gateway.emulator.sender import Sent
from gateway.emulator.shelf import Shelf
from gateway.emulator.shipped import ProfileError
from gateway.emulator.stow import Stow
from gateway.emulator.study import ct_study
from gateway.emulator.wan import Wan


@click.group()
def emulate() -> None:
    """Emulate scanners, an archive, a RIS, a bad line, or a whole clinic."""


emulate.add_command(modality)
emulate.add_command(clinic)


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
@click.option("--rule", "told", multiple=True, help="A misbehaviour: 'on=store do=busy after=100 count=20'.")
@click.option("--refuse-syntax", "refuse_syntaxes", multiple=True, metavar="UID", help="A Transfer Syntax not taken.")
@click.option("--commit", "report", type=click.Choice(["same", "new", "later", "never"]), default="same")
@click.option("--commit-after", "after_s", default=0.0, help="Seconds until the report of a commitment.")
@click.option("--commit-port", default=104, show_default=True, help="Where peers listen, for --commit new.")
@click.option("--commit-fails", "fail_every", default=0, help="Report every so many-th instance as failed.")
@click.option("--http-port", type=click.IntRange(0, 65535), help="Take STOW-RS as well; 0 takes a free port.")
def pacs(
    port: int,
    address: str,
    aet: str,
    folder: Path | None,
    log: Path | None,
    delay_s: float,
    busy_for_first: int,
    told: tuple[str, ...],
    refuse_syntaxes: tuple[str, ...],
    report: Literal["same", "new", "later", "never"],
    after_s: float,
    commit_port: int,
    fail_every: int,
    http_port: int | None,
) -> None:
    """Be an archive until SIGTERM or Ctrl-C. A rule says when it misbehaves: `on` associate, store, inside, stored,
    commit or echo; `do` busy, refuse, fail, warn, slow, hang, abort, close, reset, lie or page; `after`, `count`,
    `every` by number, `from_s`, `for_s` by time, `seconds` for slow."""
    stop = stopped()
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    try:
        rules = [parse(text) for text in told]
    except RuleError as error:
        raise click.UsageError(str(error)) from error
    commits = Commits(report, after_s, commit_port, fail_every)
    with ExitStack() as stack:
        shelf = Shelf(folder, stack.enter_context(open(log, "a")) if log else None)
        archive = Pacs(
            port,
            ae_title=aet,
            address=address,
            delay_s=delay_s,
            busy_for_first=busy_for_first,
            rules=rules,
            refuse_syntaxes=refuse_syntaxes,
            commits=commits,
            shelf=shelf,
        )
        try:
            archive.start()
            stack.callback(archive.stop)
            if http_port is not None:
                web = Stow(shelf, archive.rules, port=http_port, address=address)
                web.start()
                stack.callback(web.stop)
        except OSError as error:
            raise click.UsageError(f"cannot listen on {address}: {error.strerror}") from error
        click.echo(f"listening on {archive.port}")
        if http_port is not None:
            click.echo(f"STOW-RS at {web.url}")
        while not stop.wait(0.5):
            pass
    click.echo(f"{len(archive.received)} instances received")


@emulate.command()
@click.option("--port", default=0, help="Port; 0 takes a free one.")
@click.option("--address", default="127.0.0.1", show_default=True)
@click.option("-aet", "--aet", default="RIS", show_default=True)
@click.option("--patients", default=10, show_default=True, help="Orders for each scanner.")
@click.option("--scanner", "scanners", multiple=True, metavar="PROFILE[=AE]", help="Whom orders are for; may repeat.")
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same orders.")
@click.option("--day", default="20260101", show_default=True, help="When they are scheduled, YYYYMMDD.")
@click.option("--hl7", "hl7_place", metavar="HOST:PORT", help="Send each order there as well, by MLLP.")
@click.option("--hl7-kind", type=click.Choice(["ORM", "OMI", "ADT"]), default="ORM", show_default=True)
@click.option("--log", type=click.Path(path_type=Path), help="Append one JSON line per procedure step.")
@click.pass_context
def ris(
    ctx: click.Context,
    port: int,
    address: str,
    aet: str,
    patients: int,
    scanners: tuple[str, ...],
    seed: int,
    day: str,
    hl7_place: str | None,
    hl7_kind: str,
    log: Path | None,
) -> None:
    """Be a RIS until SIGTERM or Ctrl-C: worklist, procedure steps, HL7 orders. Exit code 1 when HL7 was not taken."""
    stop = stopped()
    try:
        orders = scheduled_day(scanners or ("ct",), patients, seed, day)
    except ProfileError as error:
        raise click.UsageError(str(error)) from error
    refused = 0
    with ExitStack() as stack:
        file = stack.enter_context(open(log, "a")) if log else None
        system = Ris(orders, port=port, ae_title=aet, address=address, log=file)
        try:
            system.start()
            stack.callback(system.stop)
            click.echo(f"listening on {system.port}")
            if hl7_place is not None:
                refused = send_orders(named(hl7_place, "--hl7"), orders, hl7_kind)
                click.echo(f"{len(orders) - refused} of {len(orders)} HL7 messages taken")
        except OSError as error:
            raise click.UsageError(f"RIS: {error}") from error
        while not stop.wait(0.5):
            pass
    click.echo(f"{system.queries} queries, {len(system.steps)} procedure steps")
    if refused:
        ctx.exit(1)


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
