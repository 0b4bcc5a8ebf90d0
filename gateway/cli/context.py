"""What every command shares: which configuration file, and how to print."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click


def config_path(ctx: click.Context) -> Path:
    """Return the configuration file that the command line, the environment or the default names."""
    path: Path = ctx.find_root().params["config"]
    return path


def print_json(value: Any) -> None:
    """Print one JSON value on one line, or indented for a person."""
    click.echo(json.dumps(value, indent=2 if sys.stdout.isatty() else None, default=str, ensure_ascii=False))


def echo_table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> None:
    """Print aligned columns; nothing when there are no rows."""
    if not rows:
        return
    widths = [max(len(row[i]) for row in [headers, *rows]) for i in range(len(headers))]
    for row in [headers, *rows]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
