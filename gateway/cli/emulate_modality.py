"""`dicom-gateway emulate modality`: a scanner of any kind, with the habits and mistakes of its profile."""

from __future__ import annotations

import signal
import sys
import threading
import tomllib
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from gateway.cli.context import echo_table, print_json
from gateway.emulator.exam import Act, Outcome, Places, Scanner
from gateway.emulator.objects import Limits
from gateway.emulator.profile import Profile, load, names, quirks
from gateway.emulator.sender import Sent
from gateway.emulator.services import Peer
from gateway.emulator.shipped import ProfileError

PATIENTS = ("scheduled", "unscheduled", "emergency", "again")


def place(text: str, option: str = "--to") -> tuple[str, int]:
    """Return host and port. Raises UsageError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise click.UsageError(f"{option} takes HOST:PORT")
    return host.strip("[]"), int(port)


def stopped() -> threading.Event:
    """Return what SIGTERM and Ctrl-C set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _peer(text: str | None, option: str, called: str) -> Peer | None:
    if text is None:
        return None
    title, _, rest = text.rpartition("@")
    host, port = place(rest, option)
    return Peer(host, port, title or called)


def told_quirks(given: tuple[str, ...]) -> dict[str, bool | dict[str, Any]]:
    """Return NAME, or NAME.PARAMETER=VALUE, as a profile has them; values as in TOML. Raises UsageError."""
    found: dict[str, bool | dict[str, Any]] = {}
    for text in given:
        left, is_set, value = text.partition("=")
        name, has_parameter, parameter = left.partition(".")
        if bool(is_set) != bool(has_parameter):
            raise click.UsageError(f"--quirk takes NAME or NAME.PARAMETER=VALUE, not {text!r}")
        if not is_set:
            found.setdefault(name, True)
            continue
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value
        known = found.get(name)
        found[name] = {**(known if isinstance(known, dict) else {}), parameter: parsed}
    return found


def _document(ctx: click.Context, as_json: bool) -> None:
    """List every profile and every quirk."""
    profiles = {name: load(name) for name in names()}
    if as_json:
        print_json(
            {
                "profiles": {name: one.model_dump(mode="json") for name, one in profiles.items()},
                "quirks": {name: one.model_dump(mode="json") for name, one in quirks().items()},
            }
        )
        ctx.exit()
    echo_table([[name, one.about] for name, one in profiles.items()], ["profile", "what it is"])
    click.echo()
    rows = []
    for name, one in quirks().items():
        sets = " ".join(f"{key}={value!r}" for table in one.sets.values() for key, value in table.items())
        rows.append([name, one.title, sets if len(sets) < 70 else f"{sets[:67]}...", one.evidence])
    echo_table(rows, ["quirk", "what it does", "parameters", "evidence"])
    ctx.exit()


@click.command()
@click.argument("profile_name", metavar="PROFILE", required=False)
@click.option("--list", "listed", is_flag=True, help="Describe every profile and quirk.")
@click.option("--to", metavar="HOST:PORT", help="Where to store.")
@click.option("--worklist", metavar="[AE@]HOST:PORT", help="Whom to ask for patients.")
@click.option("--mpps", metavar="[AE@]HOST:PORT", help="Whom to tell of procedure steps.")
@click.option("--commit", metavar="[AE@]HOST:PORT", help="Whom to ask for storage commitment.")
@click.option("--listen", type=click.IntRange(0, 65535), default=0, help="Port for commitment reports; 0: a free one.")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="Write files here instead of storing.")
@click.option("-aet", "--aet", help="Our AE title, instead of the profile's.")
@click.option("-aec", "--aec", default="EDGEGW", show_default=True, help="Called AE title.")
@click.option("--studies", default=1, show_default=True)
@click.option("--images", default=0, help="At most so many images per series; 0: as many as are realistic.")
@click.option("--frames", default=0, help="At most so many frames per image.")
@click.option("--series", "series_count", default=0, help="At most so many series per study.")
@click.option("--side", default=0, help="Longest side of an image, at most, in pixels.")
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same studies.")
@click.option("--pace", default=1.0, show_default=True, help="Pauses as a multiple of real ones; 0: none.")
@click.option("--rounds", default=1, show_default=True, help="Send again what was not acknowledged, so often.")
@click.option("--timeout", "timeout_s", default=30.0, show_default=True, help="Seconds to wait for an answer.")
@click.option("--patient", type=click.Choice(PATIENTS), default="scheduled", show_default=True)
@click.option("--retake", is_flag=True, help="Make the first series a second time.")
@click.option("--delete", is_flag=True, help="Delete what was retaken before it is sent.")
@click.option("--discontinue", is_flag=True, help="End the study half-way.")
@click.option("--quirk", "given", multiple=True, metavar="NAME[.PARAMETER=VALUE]", help="May be given more than once.")
@click.option("--log", type=click.Path(path_type=Path), help="Append one JSON line per acknowledged instance.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per instance, then what came of it all.")
@click.pass_context
def modality(
    ctx: click.Context,
    /,
    profile_name: str | None,
    listed: bool,
    to: str | None,
    worklist: str | None,
    mpps: str | None,
    commit: str | None,
    listen: int,
    folder: Path | None,
    aet: str | None,
    aec: str,
    given: tuple[str, ...],
    log: Path | None,
    as_json: bool,
    **rest: Any,
) -> None:
    """Be a scanner of this PROFILE, or of a TOML file like those in gateway/emulator/profiles. Exit code 1 unless
    everything was acknowledged and every other step went well."""
    if listed:
        _document(ctx, as_json)
    if profile_name is None:
        raise click.UsageError(f"which PROFILE? There are {', '.join(names())}; --list describes them")
    if (to is None) == (folder is None):
        raise click.UsageError("either --to or --folder says where the images go")
    try:
        profile = load(profile_name, told_quirks(given))
    except ProfileError as error:
        raise click.UsageError(str(error)) from error
    if aet is not None:
        profile = profile.model_copy(update={"network": profile.network.model_copy(update={"ae_title": aet})})
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    peers = (_peer(to, "--to", aec), _peer(worklist, "--worklist", aec), _peer(mpps, "--mpps", aec))
    places = Places(*peers, _peer(commit, "--commit", aec), folder, listen)
    try:
        outcome = _run(profile, places, _act(rest), log, as_json=as_json)
    except (ProfileError, OSError) as error:
        raise click.UsageError(str(error)) from error
    if not outcome.complete:
        ctx.exit(1)


def _act(told: dict[str, Any]) -> Act:
    patient = told["patient"]
    return Act(
        studies=told["studies"],
        seed=told["seed"],
        limits=Limits(told["images"], told["frames"], told["series_count"], told["side"]),
        pace=told["pace"],
        rounds=told["rounds"],
        timeout_s=told["timeout_s"],
        unscheduled=float(patient == "unscheduled"),
        emergency=float(patient == "emergency"),
        again=float(patient == "again"),
        retake=float(told["retake"]),
        delete=float(told["delete"]),
        discontinue=float(told["discontinue"]),
    )


def _run(profile: Profile, places: Places, act: Act, log: Path | None, *, as_json: bool) -> Outcome:
    live = sys.stderr.isatty() and not as_json

    with ExitStack() as stack:
        file = stack.enter_context(open(log, "a")) if log else None

        def told(sent: Sent) -> None:
            if as_json:
                print_json(asdict(sent))
            elif live:
                click.echo(f"\r\x1b[K{scanner.outcome.acknowledged} acknowledged", nl=False, err=True)

        scanner = Scanner(profile, places, act, told, log=file, stop=stopped())
        outcome = scanner.run()
    if live:
        click.echo("", err=True)
    summary = summed(outcome)
    if as_json:
        print_json(summary)
    else:
        click.echo(f"{outcome.acknowledged} of {len(outcome.sent)} acknowledged")
        for trouble in outcome.troubles:
            click.echo(f"  {trouble}")
        for how, times in outcome.console.broken.items():
            click.echo(f"  {times} times: {how}")
    return outcome


def summed(outcome: Outcome) -> dict[str, Any]:
    """Return what came of a scanner's work, without any patient."""
    asked: set[str] = set().union(*outcome.commitments.asked.values()) if outcome.commitments.asked else set()
    return {
        "studies": outcome.studies,
        "sent": len(outcome.sent),
        "acknowledged": outcome.acknowledged,
        "from_worklist": outcome.worklist,
        "steps": list(outcome.steps.values()),
        "commitment": {
            "asked": len(asked),
            "kept": len(outcome.commitments.kept & asked),
            "failed": len(outcome.commitments.failed & asked),
        },
        "deleted": outcome.deleted,
        "files": outcome.files,
        "console": asdict(outcome.console),
        "troubles": outcome.troubles,
        "complete": outcome.complete,
    }
