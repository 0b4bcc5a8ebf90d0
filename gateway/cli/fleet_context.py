"""What the commands of central IT share."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.fleet.settings import FleetSettings

FleetConfig = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    envvar="DICOM_GATEWAY_FLEET_CONFIG",
    default=Path("/etc/dicom-gateway/fleet.toml"),
    show_default=True,
    help="Configuration of central IT: broker, tenants.",
)
Tenant = click.option("--tenant", help="Needed when the configuration names several.")


def tenant_of(settings: FleetSettings, wanted: str | None) -> str:
    """Return the tenant that is meant; raises UsageError when that is not clear."""
    if wanted is not None and wanted in settings.tenants:
        return wanted
    if wanted is None and len(settings.tenants) == 1:
        return settings.tenants[0]
    raise click.UsageError(f"say --tenant, one of: {', '.join(settings.tenants)}")
