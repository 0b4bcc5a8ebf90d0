"""`dicom-gateway doctor --bench` and what proves a drive: pulling the plug."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click

from gateway.config.schema import Settings
from gateway.onsite.burn_in import Wear, burn_in, device_of, kept, measure, promise, suspicions

MOST_BYTES = 8 << 30
"""Written in one pass; never more than half of what is free above the reserve."""
PROMISES = 100_000_000
NAME = ".plug-test"

Line = tuple[bool, str]


def bench(settings: Settings, minutes: float) -> Iterator[Line]:
    """Yield (good, sentence): the disk, its flushes, what makes it suspect, and a burn-in; raises OSError."""
    folder = settings.gateway.data_dir
    device = device_of(folder)
    words = [word for word in (device.model, device.name, device.file_system, device.write_cache) if word]
    yield True, f"disk under {folder}: {', '.join(words) or 'the kernel says nothing'}"
    flushes = measure(folder)
    yield (
        True,
        f"flush of 4 KiB: median {flushes.median_s * 1e3:.2f} ms, 99 % within {flushes.p99_s * 1e3:.2f} ms, "
        f"longest {flushes.longest_s * 1e3:.1f} ms; of nothing {flushes.nothing_s * 1e3:.3f} ms; "
        f"64 MiB at {flushes.large_bytes_per_s / 1e6:.0f} MB/s",
    )
    found = list(suspicions(flushes, device))
    for suspicion in found:
        yield False, suspicion
    if not found:
        yield True, "nothing suspicious; only pulling the plug proves a drive: see doctor --plug"
    if minutes > 0:
        yield judged(_worn(settings, folder, minutes))


def _worn(settings: Settings, folder: Path, minutes: float) -> Wear:
    stat = os.statvfs(folder)
    room = stat.f_bavail * stat.f_frsize - settings.spool.reserve_bytes
    most = min(MOST_BYTES, room // 2)
    if most <= 0:
        raise OSError(28, os.strerror(28), str(folder))

    def tell(seen: Wear) -> None:
        click.echo(
            f"  {seen.written_bytes / 1e9:.1f} GB written and read back, {seen.wrong_blocks} blocks wrong", err=True
        )

    return burn_in(folder, most, minutes * 60, tell)


def judged(seen: Wear) -> Line:
    """Say how a burn-in went."""
    good = not seen.wrong_blocks and not seen.faults
    text = (
        f"burn-in: {seen.written_bytes / 1e9:.1f} GB written, {seen.read_bytes / 1e9:.1f} GB read back, "
        f"{seen.wrong_blocks} blocks wrong, {seen.faults} I/O errors, longest flush {seen.slowest_flush_s * 1e3:.0f} ms"
    )
    return good, text + (f" (first: {seen.first_wrong})" if seen.first_wrong else "")


def plug(settings: Settings, last: int | None) -> Line:
    """Without `last`, promise until the power goes; with it, say whether all that was promised is there."""
    path = settings.gateway.data_dir / NAME
    if last is None:
        click.echo("pull the plug at any time; the last number that you see here is what the disk has promised")
        promise(path, lambda number: click.echo(f"\r{number}", nl=False), PROMISES)
        return True, "nobody pulled the plug"
    found = kept(path)
    path.unlink()
    if found >= last:
        return True, f"{found} records are there, {last} were promised: the drive keeps its word"
    return False, f"{found} records are there, {last} were promised: THE DRIVE LIES, do not use it"
