"""`dicom-gateway doctor`: looks for what would keep the gateway from its work; one line each, with the fix."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from gateway.cli.context import config_path, print_json
from gateway.cli.echo_cmd import probe
from gateway.cli.local import ask_service
from gateway.config.load import load
from gateway.config.schema import Settings
from gateway.health.messages import Speaker
from gateway.health.mqtt import Session
from gateway.identity.keyring import load_keyring
from gateway.identity.tls import client_context, server_context
from gateway.model.errors import GatewayError, IdentityError, NotRunning
from gateway.spool.capacity import Room, look

OLDEST_PLAUSIBLE = 1_700_000_000
HONEST_FLUSH_S = 0.00002
"""A flush faster than this has not met any device (a RAM disk, or a disk that lies)."""
FLUSHES = 20
_FREE_SPACE = "free space (or inodes) on this disk; receiving begins again by itself"
_FIX = {
    errno.ENOSPC: _FREE_SPACE,
    errno.EDQUOT: "raise the disk quota of the service's user, or free space",
    errno.EROFS: "the kernel log says why this disk is read-only; check it (fsck), mount it for writing, start again",
    errno.EIO: "the disk fails, see the kernel log; carry away what is here with `queue export`, and replace it",
    errno.EACCES: "let the service's user own the data directory",
    errno.EPERM: "let the service's user own the data directory",
}
"""What a person does about it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    good: bool
    text: str
    fix: str = ""


def _clock() -> Finding:
    good = time.time() > OLDEST_PLAUSIBLE
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    return Finding(
        "clock", good, f"{when} UTC", "" if good else "set the clock, or let systemd-timesyncd reach a server"
    )


def _disk_fault(name: str, text: str, error: OSError) -> Finding:
    fix = _FIX.get(error.errno or 0, "the kernel log says what ails the disk")
    return Finding(name, False, f"{text}: {error.strerror}", fix)


def _flush_times(data_dir: Path) -> list[float]:
    """Return how long each of a few flushes took, in seconds; raises OSError."""
    times = []
    with tempfile.TemporaryFile(dir=data_dir) as file:
        for _ in range(FLUSHES):
            file.write(os.urandom(4096))
            file.flush()
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - started)
    return times


def _disk(settings: Settings) -> Iterator[Finding]:
    data_dir = settings.gateway.data_dir
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        capacity = look(data_dir, settings.spool.reserve_bytes, settings.spool.high_water_percent)
    except OSError as error:
        yield _disk_fault("disk", f"{data_dir}", error)
        return
    good = capacity.room is Room.OPEN
    text = f"{data_dir}: {capacity.free_bytes / 1e9:.1f} GB free, {capacity.used_percent:.0f} % used"
    more_room = f"{_FREE_SPACE}; or lower reserve_bytes or raise high_water_percent"
    fix = _FIX[errno.EROFS] if capacity.read_only else more_room
    yield Finding("disk", good, text if good else f"{text}; {capacity.reason}", "" if good else fix)
    try:
        times = _flush_times(data_dir)
    except OSError as error:
        yield _disk_fault("flush", "nothing can be written", error)
        return
    middle = sorted(times)[FLUSHES // 2]
    honest = middle > HONEST_FLUSH_S
    yield Finding(
        "flush",
        honest,
        f"a flush takes {middle * 1000:.2f} ms",
        "" if honest else "this disk answers before it can have written: do not trust it with the only copy",
    )


def _ports(settings: Settings, *, running: bool) -> Iterator[Finding]:
    for listener in settings.listener:
        name = f"port {listener.port}"
        if running:
            yield Finding(name, True, "the service listens")
            continue
        with socket.socket(socket.AF_INET6 if ":" in listener.address else socket.AF_INET) as probe_socket:
            probe_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe_socket.bind((listener.address, listener.port))
            except OSError as error:
                yield Finding(name, False, str(error.strerror), "stop the other program, or choose another port")
            else:
                yield Finding(name, True, "free")


def _certificates(settings: Settings) -> Iterator[Finding]:
    for listener in settings.listener:
        if listener.tls:
            yield _identity(f"certificate of port {listener.port}", lambda t=listener.tls: server_context(t))
    for destination in settings.destination:
        tls = getattr(destination, "tls", None)
        if tls:
            yield _identity(f"certificate for {destination.name}", lambda t=tls: client_context(t))
    if settings.mqtt and settings.mqtt.tls:
        yield _identity("certificate for mqtt", lambda t=settings.mqtt.tls: client_context(t))


def _identity(name: str, build: object) -> Finding:
    try:
        assert callable(build)
        build()
    except IdentityError as error:
        return Finding(name, False, error.detail, error.hint)
    return Finding(name, True, "can be used")


def _destinations(settings: Settings) -> Iterator[Finding]:
    for destination in settings.destination:
        try:
            answer = probe(settings, destination.name)
        except GatewayError as error:
            yield Finding(destination.name, False, error.detail, error.hint)
            continue
        good = answer["outcome"] == "accepted"
        fix = "" if good else "check host, port and firewall; the archive must know our AE title and address"
        yield Finding(destination.name, good, answer["text"], fix)


def _mqtt(settings: Settings, line: dict[str, Any] | None) -> Iterator[Finding]:
    """The line to the broker: as the service says it is, or by one connection of our own when it is not running."""
    mqtt = settings.mqtt
    if mqtt is None:
        return
    if line is None:
        try:
            session = Session(mqtt, Speaker(mqtt.tenant, settings.gateway.id), [], lambda incoming: None)
            try:
                session.open()
                session.farewell()
            finally:
                session.close()
            line = {"connected": True, "reason": ""}
        except GatewayError as error:
            line = {"connected": False, "reason": error.detail}
        except OSError as error:
            line = {"connected": False, "reason": error.strerror or type(error).__name__}
    good = bool(line["connected"])
    fix = "check host, port, firewall and certificates; the broker must know our certificate's common name"
    yield Finding("mqtt", good, f"{mqtt.host}: {'connected' if good else line['reason']}", "" if good else fix)
    if mqtt.keyring_file:
        try:
            keys = [key for key in load_keyring(mqtt.keyring_file).values() if not key.revoked]
        except IdentityError as error:
            yield Finding("keyring", False, error.detail, error.hint)
        else:
            yield Finding("keyring", bool(keys), f"{len(keys)} keys may command", "" if keys else "add a [[key]]")


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield one finding after the other."""
    try:
        status = ask_service(settings, {"do": "status"})
        running = True
    except NotRunning:
        status, running = {}, False
    yield Finding("service", True, "running" if running else "not running")
    yield _clock()
    yield from _disk(settings)
    yield from _ports(settings, running=running)
    yield from _certificates(settings)
    yield from _destinations(settings)
    yield from _mqtt(settings, status.get("mqtt"))


def _bench(settings: Settings, minutes: float | None, plug_last: int | None) -> Iterator[Finding]:
    from gateway.cli.bench_cmd import bench, plug

    try:
        settings.gateway.data_dir.mkdir(parents=True, exist_ok=True)
        for good, text in [plug(settings, plug_last)] if minutes is None else bench(settings, minutes):
            yield Finding("bench", good, text)
    except OSError as error:
        yield _disk_fault("bench", str(settings.gateway.data_dir), error)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per finding.")
@click.option("--bench", "minutes", type=float, help="Measure the disk instead, and wear it in for so many minutes.")
@click.option("--plug", is_flag=True, help="Promise numbers by the disk until the power is cut; it goes on for ever.")
@click.option("--plug-last", type=int, help="After that: the last number that was seen. Says whether the drive lies.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool, minutes: float | None, plug: bool, plug_last: int | None) -> None:
    """Look at clock, disk, flush, ports, certificates, destinations and broker. Exit code 1 if something is wrong."""
    settings = load(config_path(ctx)).settings
    bad = 0
    for finding in (
        _bench(settings, minutes, plug_last) if plug or plug_last or minutes is not None else examine(settings)
    ):
        bad += not finding.good
        if as_json:
            print_json(asdict(finding))
        else:
            fix = f"\n    fix: {finding.fix}" if finding.fix else ""
            click.echo(f"{'✔' if finding.good else '✖'} {finding.name}: {finding.text}{fix}")
    if bad:
        ctx.exit(1)
