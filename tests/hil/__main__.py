"""`python -m tests.hil`: plays the suite against a process, the image or a box; ends in an acceptance report."""

from __future__ import annotations

import secrets
import signal
import sys
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path

import click

from tests.hil import coverage, report
from tests.hil.machine import MachineTarget
from tests.hil.rig import Rig, RigError, box_config, load
from tests.hil.suite import cases, play
from tests.hil.target import AddressTarget, ProcessTarget, Target
from tests.hil.verdict import Failed, Outcome, Result


def _target(told: str, rig: Rig | None, folder: Path, *, short: bool) -> Target:
    """Raises UsageError, and OSError when a process or machine cannot be made."""
    if told == "process":
        return ProcessTarget(folder / "target", short=short)
    if told == "qemu":
        return MachineTarget(folder / "target", short=short)
    if rig is None:
        raise click.UsageError("a box at an address needs --rig FILE: it says what stands around it")
    try:
        return AddressTarget(told, rig)
    except ValueError as error:
        raise click.UsageError(f"--target is process, qemu or HOST:PORT: {error}") from error


def _say(result: Result) -> None:
    sums = result.sums
    counts = f"{sums.sent} sent, {sums.acknowledged} told safe, {sums.archived} archived"
    click.echo(f"{result.name:18} {result.outcome:15} {result.seconds:6.1f} s  {counts}  {result.reason}")


@click.command()
@click.option("--target", "told", default="process", show_default=True, help="process, qemu, or HOST:PORT of a box.")
@click.option("--rig", "rig_file", type=click.Path(path_type=Path, dir_okay=False), help="What stands around a box.")
@click.option("--case", "wanted", multiple=True, metavar="NAME", help="Only this, or PREFIX*; may be repeated.")
@click.option("--seed", type=click.IntRange(0), help="The same seed plays the same; otherwise luck chooses.")
@click.option("--short", is_flag=True, help="Small objects, and only what belongs to the short form.")
@click.option("--speed-up", default=120.0, show_default=True, help="Hours of trouble take so many times less.")
@click.option("--day-speed", default=0.0, help="A clinic's day passes so many times as fast; 0: as its scenario says.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the report.")
@click.option("--record", is_flag=True, help="Write into the coverage table of tests/hil/README.md.")
@click.option("--list", "listed", is_flag=True, help="Name every case and end.")
@click.option("--show-config", is_flag=True, help="Print what the box's gateway.toml must say, and end.")
def main(
    told: str,
    rig_file: Path | None,
    wanted: tuple[str, ...],
    seed: int | None,
    short: bool,
    speed_up: float,
    day_speed: float,
    out: Path | None,
    record: bool,
    listed: bool,
    show_config: bool,
) -> None:
    """Find out whether a box is fit for a clinic. Exit code 0 when no case failed, 1 when one did, 2 for usage."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends too
    try:
        rig = load(rig_file) if rig_file else None
    except RigError as error:
        raise click.UsageError(str(error)) from error
    every = cases()
    if listed:
        for one in every.values():
            click.echo(f"{one.name:18} {'short' if one.short else '':6} {one.title}")
        return
    if show_config:
        if rig is None:
            raise click.UsageError("--show-config needs --rig FILE")
        click.echo(f'# [gateway] id = "{rig.box.mqtt_id}", ae_title = "{rig.box.ae_title}"')
        click.echo(box_config(rig, mqtt_tls="# tls = { … }, as the broker asks for").strip())
        return
    unknown = [name for name in wanted if not any(fnmatch(one, name) for one in every)]
    if unknown:
        raise click.UsageError(f"no case {unknown[0]!r}; --list names them")
    chosen = [
        one
        for name, one in every.items()
        if (any(fnmatch(name, pattern) for pattern in wanted) if wanted else one.short or not short)
    ]
    seed = secrets.randbelow(10**6) if seed is None else seed
    folder = out or Path("build/hil") / f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True, exist_ok=False)
    click.echo(f"{len(chosen)} cases, seed {seed}, report in {folder}")
    try:
        target = _target(told, rig, folder, short=short)
        speeds = {"speed_up": speed_up, "day_speed": day_speed}
        protocol = play(target, chosen, folder, seed=seed, short=short, told=_say, **speeds)
    except (Failed, OSError) as error:
        raise click.ClickException(str(error)) from error
    page = report.write(protocol, folder)
    pdf = report.print_pdf(page)
    click.echo(f"{page}\n{pdf or 'no PDF: chromium is not installed'}")
    if record:
        coverage.record(protocol)
    for one in protocol.results:
        if one.outcome is Outcome.FAILED:
            click.echo(f"failed: {one.name}: {one.reason}; again: --case {one.name} --seed {seed}; see {one.kept}")
    sys.exit(0 if protocol.passed else 1)


if __name__ == "__main__":
    main()
