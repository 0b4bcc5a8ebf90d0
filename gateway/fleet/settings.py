"""`fleet.toml`: which broker, which tenants, where the page is, what is kept, which waves a roll-out has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from gateway.config.base import Name, Port, Table
from gateway.config.checks import Finding, files
from gateway.config.destinations import ClientTls
from gateway.config.load import load_as
from gateway.config.mqtt import is_this_machine
from gateway.config.schema import ServerTls

HINT = "mend the file; `gateway/fleet/README.md` shows a whole one"
MIN_TOKEN_LENGTH = 16

BoxPattern = Annotated[str, StringConstraints(pattern=r"^[a-z0-9*?-]{1,63}$")]
Version = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.+-]{1,32}$")]
HostName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9.:-]{1,253}$")]


class BrokerSettings(Table):
    """`[broker]`: the MQTT 5 broker that the boxes report to."""

    host: str = Field(min_length=1, description="Host name or address of the broker.")
    port: Port = Field(8883, description="TCP port; 8883 is registered for MQTT over TLS.")
    client_id: Name = Field("fleet-monitor", description="Our name at the broker, followed by that of the tenant.")
    keepalive_s: int = Field(30, ge=5, le=3600, description="A line without any traffic for so long is probed.")
    will_delay_s: int = Field(
        30, ge=0, le=3600, description="Boxes hear that nobody watches them so long after our line broke."
    )
    tls: ClientTls | None = Field(
        None, description="TLS; with cert_file and key_file for mutual TLS. Absent: only towards this machine itself."
    )
    user: str | None = Field(None, min_length=1, description="User name, where the broker asks for one.")
    password_file: Path | None = Field(None, description="File with the password of that user.")

    @model_validator(mode="after")
    def _bare_only_at_home(self) -> BrokerSettings:
        if self.tls is None and not is_this_machine(self.host):
            raise ValueError("without tls, host must be this machine itself (localhost)")
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file go together")
        return self


class PageSettings(Table):
    """`[page]`: the web page and `/metrics`."""

    address: str = Field("127.0.0.1", description="Local address to bind.")
    port: Port = Field(9465, description="TCP port.")
    tls: ServerTls | None = Field(None, description="Serve HTTPS; without it, other machines see what passes.")
    operator_token_file: Path | None = Field(
        None,
        description=f"File with a secret of {MIN_TOKEN_LENGTH} characters or more: who knows it may acknowledge. "
        "Absent: only from this machine itself.",
    )
    hosts: list[HostName] = Field(
        [],
        max_length=32,
        description="Names under which the page is asked for, beside the address; others are refused.",
    )

    @model_validator(mode="after")
    def _secrets_only_by_tls(self) -> PageSettings:
        if self.operator_token_file is not None and self.tls is None and not is_this_machine(self.address):
            raise ValueError("operator_token_file needs tls unless address is this machine itself")
        return self


class StoreSettings(Table):
    """`[store]`: what is remembered over a restart. All of it is bounded."""

    path: Path = Field(Path("/var/lib/dicom-gateway-fleet/fleet.db"), description="SQLite database; made when absent.")
    history_days: int = Field(7, ge=1, le=400, description="Samples, events and ended alarms are kept for so long.")
    sample_s: int = Field(300, ge=10, le=86400, description="Between two samples of one box's history.")
    max_events: int = Field(
        200_000, ge=1000, le=10_000_000, description="Events kept, of all boxes together; as many ended alarms."
    )


class ThresholdSettings(Table):
    """`[thresholds]`: what the page marks. A box raises its own alarms by its own limits beside this."""

    stale_periods: float = Field(
        3.0, ge=1.5, le=100, description="A box that was silent for so many of its periods is stale."
    )
    oldest_unsent_s: float = Field(3600.0, gt=0, description="Age of the oldest object that no archive has yet.")
    disk_percent: float = Field(80.0, gt=0, le=100, description="Of a box's disk.")
    clock_ms: float = Field(1000.0, gt=0, description="Offset of a box's clock, in either direction.")
    certificate_days: float = Field(30.0, gt=0, description="Until the first certificate of a box ends.")


class WaveSettings(Table):
    """`[[wave]]`: the boxes that get a version together."""

    name: Name = Field(description="How page and metrics call it.")
    version: Version = Field(description="The version that its boxes are to run.")
    boxes: list[BoxPattern] = Field(
        min_length=1, max_length=10_000, description="Names of boxes; `*` and `?` stand for others."
    )
    tenant: Name | None = Field(None, description="Only boxes of this tenant.")
    settle_s: float = Field(
        900.0, ge=0, le=604800, description="A box that is not well on the new version after so long has failed."
    )
    abort_percent: float = Field(
        10.0, ge=0, le=100, description="Say `abort` when more of the boxes that began have failed or gone back."
    )


class FleetSettings(Table):
    """The whole file."""

    tenants: list[Name] = Field(["default"], min_length=1, max_length=32, description="Tenants that are watched.")
    max_boxes: int = Field(20_000, ge=1, le=100_000, description="Boxes beyond that are counted and not shown.")
    broker: BrokerSettings = Field(description="Where the boxes report to.")
    page: PageSettings = Field(PageSettings(), description="Where people and Prometheus look.")
    store: StoreSettings = Field(StoreSettings(), description="What is remembered.")
    thresholds: ThresholdSettings = Field(ThresholdSettings(), description="What is marked.")
    wave: list[WaveSettings] = Field([], max_length=100, description="Waves of a roll-out, in their order.")


def load(path: Path) -> FleetSettings:
    """Return the settings in `path`, relative paths taken from its folder; raises ConfigError with all problems."""
    return load_as(FleetSettings, path, _findings, HINT)


def _findings(raw: dict[str, Any], folder: Path) -> Iterator[Finding]:
    yield from files(raw, folder)
    yield from _tenants(raw.get("tenants"))
    page = raw.get("page")
    token = page.get("operator_token_file") if isinstance(page, dict) else None
    if isinstance(token, str) and "\0" not in token and (sentence := _token_fault(folder / token)):
        yield ("page", "operator_token_file"), sentence
    waves, seen = raw.get("wave"), set()
    for index, wave in enumerate(waves if isinstance(waves, list) else []):
        name = wave.get("name") if isinstance(wave, dict) else None
        if isinstance(name, str) and name in seen:
            yield ("wave", index, "name"), f"wave name '{name}' is used twice"
        elif isinstance(name, str):
            seen.add(name)


def _tenants(tenants: Any) -> Iterator[Finding]:
    for index, tenant in enumerate(tenants if isinstance(tenants, list) else []):
        if isinstance(tenant, str) and re.search(r"[+#/]", tenant):
            yield ("tenants", index), "is a name, not a topic: it may hold neither + nor # nor /"
        elif tenant in tenants[:index]:
            yield ("tenants", index), f"tenant '{tenant}' is there twice"


def _token_fault(path: Path) -> str:
    try:
        token = read_secret(path)
    except (OSError, UnicodeDecodeError):
        return ""  # `files` says it
    return "" if len(token) >= MIN_TOKEN_LENGTH else f"holds less than {MIN_TOKEN_LENGTH} characters"


def read_secret(path: Path) -> str:
    """Return the secret in a file without the white space around it; raises OSError."""
    with open(path, encoding="utf-8") as file:
        return file.read(4096).strip()
