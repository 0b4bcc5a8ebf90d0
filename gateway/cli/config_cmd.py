"""`dicom-gateway config`: check, show, schema."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from gateway.cli.context import config_path, echo_table, print_json
from gateway.config.load import dotted, load, problems
from gateway.config.schema import Settings
from gateway.model.errors import ConfigError

Json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def config() -> None:
    """Check and show the configuration."""


@config.command()
@Json
@click.pass_context
def check(ctx: click.Context, as_json: bool) -> None:
    """Report every problem at once, with path and line; exit code 78 if there is one."""
    path = config_path(ctx)
    found = problems(path)
    if as_json:
        print_json([asdict(problem) for problem in found])
    else:
        for problem in found:
            click.echo(f"{path}:{problem.line}: {problem.path or 'file'}: {problem.message}")
        click.echo(f"{path}: {len(found)} problem{'s' if len(found) != 1 else ''}" if found else f"{path}: good")
    if found:
        ctx.exit(ConfigError.exit_code)


@config.command()
@Json
@click.pass_context
def show(ctx: click.Context, as_json: bool) -> None:
    """Show the effective value of every setting, and where it came from."""
    loaded = load(config_path(ctx))
    values = json.loads(loaded.settings.model_dump_json())
    if as_json:
        print_json({"settings": values, "from": loaded.provenance})
        return
    flat: dict[str, object] = {}

    def walk(value: object, key: tuple[str | int, ...]) -> None:
        if isinstance(value, dict) and dotted(key) not in loaded.provenance:  # a table, not a value that is one
            for name, inner in value.items():
                walk(inner, (*key, name))
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for index, inner in enumerate(value):
                walk(inner, (*key, index))
        else:
            flat[dotted(key)] = value

    walk(values, ())
    echo_table(
        [[name, json.dumps(value), loaded.provenance.get(name, "default")] for name, value in flat.items()],
        ["setting", "value", "from"],
    )


@config.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file."""
    click.echo(json.dumps(Settings.model_json_schema(), indent=2))
