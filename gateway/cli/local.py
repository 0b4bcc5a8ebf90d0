"""How commands reach the gateway: by the control socket, or by looking at the ledger when it is not running."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click

from gateway.cli.context import config_path
from gateway.config.load import load
from gateway.config.schema import Settings
from gateway.control import ask, socket_path
from gateway.model.errors import NotRunning, SpoolError
from gateway.spool.ledger_reader import LedgerReader
from gateway.spool.spool import LEDGER_NAME


def settings_of(ctx: click.Context) -> Settings:
    """Load the configuration that the command line names; raises ConfigError."""
    return load(config_path(ctx)).settings


def ask_service(settings: Settings, request: Mapping[str, Any], fds: list[int] | None = None) -> Any:
    """Ask the running service; raises NotRunning or what it answered."""
    gateway = settings.gateway
    return ask(socket_path(gateway.data_dir, gateway.control_socket), request, fds)


@contextmanager
def ledger_of(settings: Settings) -> Iterator[LedgerReader]:
    """Look at the ledger without the service; raises NotRunning when there is none yet, SpoolError when unreadable."""
    path = settings.gateway.data_dir / LEDGER_NAME
    if not path.exists():
        raise NotRunning(f"the service is not running, and there is no spool in {settings.gateway.data_dir} yet")
    reader = LedgerReader(path)
    try:
        yield reader
    except SpoolError as error:
        raise NotRunning(f"the service is not running, and the ledger cannot be read: {error.detail}") from error
    finally:
        reader.close()


def ask_or_look(ctx: click.Context, request: Mapping[str, Any], look: Callable[..., Any], *args: Any) -> Any:
    """Ask the service, or have `look` read the ledger when nobody answers."""
    settings = settings_of(ctx)
    try:
        return ask_service(settings, request)
    except NotRunning:
        with ledger_of(settings) as reader:
            return look(reader, *args)
