"""The command line. Thin: parse, call, print. A command's module is imported only when it is called."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from gateway import __version__
from gateway.cli.lazy import Lazy
from gateway.model.errors import GatewayError

COMMANDS = {
    "demo": ("gateway.cli.demo_cmd:demo", "Gateway, scanner and archive on this machine; proves that all arrives."),
    "init": ("gateway.cli.init_cmd:init", "Write a commented configuration file."),
    "provision": ("gateway.cli.provision_cmd:provision", "On a laptop: make and check the folder CONFIG of a box."),
    "configure": ("gateway.cli.configure_cmd:configure", "On the box: take the folder CONFIG."),
    "update": ("gateway.cli.update_cmd:update", "Versions of the box's image: see, install, take back."),
    "confirm": ("gateway.cli.confirm_cmd:confirm", "Judge after a start whether this version may stay."),
    "screen": ("gateway.cli.screen_cmd:screen", "The box's own screen."),
    "run": ("gateway.cli.run_cmd:run", "Run the gateway in the foreground."),
    "config": ("gateway.cli.config_cmd:config", "Check and show the configuration."),
    "doctor": ("gateway.cli.doctor_cmd:doctor", "Look for what would keep the gateway from its work."),
    "status": ("gateway.cli.status_cmd:status", "Show what is here and what waits."),
    "queue": ("gateway.cli.queue_cmd:queue", "Look at deliveries; hold, release, retry, pause, export."),
    "route": ("gateway.cli.route_cmd:route", "Show the routes, and which of them an object takes and why."),
    "import": ("gateway.cli.import_cmd:import_", "Take custody of files."),
    "echo": ("gateway.cli.echo_cmd:echo", "Verify one destination."),
    "fleet": ("gateway.cli.fleet:fleet", "Central IT: watch many boxes, and command them."),
    "emulate": ("gateway.cli.emulate_cmd:emulate", "Emulate a scanner or an archive."),
}


@click.group(cls=Lazy, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dicom-gateway")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar="DICOM_GATEWAY_CONFIG",
    default=Path("/etc/dicom-gateway/gateway.toml"),
    show_default=True,
    help="Configuration file.",
)
def cli(config: Path) -> None:
    """DICOM edge gateway: custody beside the scanner, delivery to the archive."""


def main() -> None:
    """Run one command; a fault of ours ends with its own exit code, and says the cause and the fix."""
    try:
        cli(prog_name="dicom-gateway", standalone_mode=True)
    except GatewayError as error:
        click.echo(f"error: {error}", err=True)
        if error.hint:
            click.echo(f"hint: {error.hint}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `… | head`: nothing of ours is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
