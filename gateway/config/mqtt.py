"""`[mqtt]` and `[metrics]`: where the box tells how it is. Both tables absent: it tells nobody."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from pydantic import Field, model_validator

from gateway.config.base import Name, Port, Table
from gateway.config.destinations import ClientTls


class MqttSettings(Table):
    """`[mqtt]`: reports to a broker (MQTT 5), and takes signed commands from it. Never carries patient data."""

    host: str = Field(min_length=1, description="Host name or address of the broker.")
    port: Port = Field(8883, description="TCP port; 8883 is registered for MQTT over TLS.")
    tenant: Name = Field("default", description="Second level of every topic: gw/v1/{tenant}/{gateway.id}/…")
    interval_s: float = Field(60.0, ge=1, le=3600, description="Between health reports; a change is told at once.")
    keepalive_s: int = Field(30, ge=5, le=3600, description="A line without any traffic for so long is probed.")
    will_delay_s: int = Field(
        30, ge=0, le=3600, description="The broker says that we are offline so long after the line broke."
    )
    tls: ClientTls | None = Field(
        None, description="TLS; with cert_file and key_file for mutual TLS. Absent: only towards this machine itself."
    )
    user: str | None = Field(None, min_length=1, description="User name, where the broker asks for one.")
    password_file: Path | None = Field(None, description="File with the password of that user.")
    keyring_file: Path | None = Field(
        None, description="Public keys whose commands are obeyed, TOML; absent: no command is. See `gateway/health/`."
    )
    diagnostics_url: str | None = Field(
        None, pattern=r"^https://", description="Where `diag.bundle` may upload to, by PUT; absent: nowhere."
    )
    home_assistant: bool = Field(False, description="Announce sensors by Home Assistant's MQTT discovery as well.")

    @model_validator(mode="after")
    def _bare_only_at_home(self) -> MqttSettings:
        if self.tls is None and not is_this_machine(self.host):
            raise ValueError("without tls, host must be this machine itself (localhost)")
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file go together")
        return self


class MetricsSettings(Table):
    """`[metrics]`: `/metrics` for Prometheus, by HTTP. Without this table there is none."""

    address: str = Field("127.0.0.1", description="Local address to bind.")
    port: Port = Field(9464, description="TCP port.")


def is_this_machine(host: str) -> bool:
    """True for loopback addresses and `localhost`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
