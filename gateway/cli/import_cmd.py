"""`dicom-gateway import`: put files into custody as if received."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from gateway.cli.context import print_json
from gateway.cli.local import ask_service, settings_of
from gateway.config.schema import Settings
from gateway.control import MAX_FDS
from gateway.model.errors import NotRunning


def _files(paths: tuple[Path, ...]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.is_file() and not p.is_symlink())
        else:
            yield path


def _batches(files: list[Path]) -> Iterator[list[Path]]:
    for start in range(0, len(files), MAX_FDS):
        yield files[start : start + MAX_FDS]


@click.command("import")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per file.")
@click.pass_context
def import_(ctx: click.Context, paths: tuple[Path, ...], as_json: bool) -> None:
    """Take custody of files and folders; works with or without the service. Exit code 1 if some were not taken."""
    settings = settings_of(ctx)
    files = list(_files(paths))
    taken = refused = 0
    try:
        ask_service(settings, {"do": "status"})
        answers = _by_service(settings, files)
    except NotRunning:
        answers = _by_ourselves(settings, files)
    with click.progressbar(answers, length=len(files), label="import", hidden=as_json, file=sys.stderr) as bar:
        for path, answer in bar:
            if answer["taken"]:
                taken += 1
            else:
                refused += 1
            if as_json:
                print_json({"file": str(path), **answer})
            elif not answer["taken"]:
                click.echo(f"not taken: {path}: {answer['reason']}", err=True)
    if not as_json:
        click.echo(f"{taken} taken, {refused} not taken")
    if refused:
        ctx.exit(1)


def _by_service(settings: Settings, files: list[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for batch in _batches(files):
        with ExitStack() as stack:
            opened = []
            for path in batch:
                try:
                    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                except OSError as error:
                    yield path, {"taken": False, "reason": f"cannot be opened: {error.strerror}"}
                    continue
                stack.callback(os.close, fd)
                opened.append((path, fd))
            if opened:
                answers = ask_service(settings, {"do": "import"}, [fd for _, fd in opened])
                yield from zip((path for path, _ in opened), answers, strict=True)


def _by_ourselves(settings: Settings, files: list[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Open the spool as the service would, for as long as the import takes."""
    from gateway.app import Gateway

    quiet = settings.model_copy(update={"listener": [], "folder": []})
    gateway = Gateway(quiet, None, lambda _: None)
    gateway.supervisor.room("spool", gateway.spool.committer.run)
    try:
        from gateway.actions import import_fds

        for batch in _batches(files):
            for path in batch:
                try:
                    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                except OSError as error:
                    yield path, {"taken": False, "reason": f"cannot be opened: {error.strerror}"}
                    continue
                try:
                    yield path, import_fds(gateway, [fd])[0]
                finally:
                    os.close(fd)
    finally:
        gateway.stop()
