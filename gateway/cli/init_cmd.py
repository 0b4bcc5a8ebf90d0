"""`dicom-gateway init`: write a commented configuration file."""

from __future__ import annotations

import os
import sys

import click

from gateway.cli.context import config_path
from gateway.config.template import Answers, template
from gateway.model.errors import ConfigError


def ask_for(
    gateway_id: str | None, ae_title: str | None, port: int | None, archive: str | None, *, ask: bool
) -> Answers:
    """Return what was given as options, else what a person answers, else the defaults."""
    defaults = Answers()

    def answer(given: str | None, question: str, default: str) -> str:
        if given is not None or not ask:
            return default if given is None else given
        return str(click.prompt(question, default=default, show_default=bool(default)))

    return Answers(
        answer(gateway_id, "Name of this box", defaults.gateway_id),
        answer(ae_title, "Our AE title", defaults.ae_title),
        int(answer(None if port is None else str(port), "Port for scanners", str(defaults.port))),
        answer(archive, "Archive (AE@host:port or URL; empty: later)", defaults.archive),
    )


@click.command()
@click.option("--id", "gateway_id", help="Name of this box.")
@click.option("--ae-title", "-aet", "ae_title", help="Our AE title.")
@click.option("--port", type=int, help="Port for scanners.")
@click.option("--archive", help="AE@host:port, or the URL of a STOW-RS service.")
@click.option("--print", "print_only", is_flag=True, help="Print the file instead of writing it.")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
@click.pass_context
def init(
    ctx: click.Context,
    gateway_id: str | None,
    ae_title: str | None,
    port: int | None,
    archive: str | None,
    print_only: bool,
    force: bool,
) -> None:
    """Write a commented configuration file; asks for what the options do not say."""
    answers = ask_for(gateway_id, ae_title, port, archive, ask=sys.stdin.isatty() and not print_only)
    try:
        text = template(answers)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if print_only:
        click.echo(text, nl=False)
        return
    path = config_path(ctx)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
        with os.fdopen(os.open(path, flags, 0o640), "w") as file:
            file.write(text)
    except FileExistsError as error:
        raise ConfigError(f"{path} is there already", hint="say --force to overwrite it") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", hint="name another by --config") from error
    click.echo(f"wrote {path}; next: dicom-gateway --config {path} config check")
