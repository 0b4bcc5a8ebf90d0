"""The one schema. Every field says its unit and its reason; `config schema` prints it as JSON Schema."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from gateway.config.bandwidth import BandwidthSettings
from gateway.config.base import AETitle, Name, Port, Table
from gateway.config.deidentify import DeidentifySettings
from gateway.config.destinations import DestinationSettings
from gateway.config.hardware import HardwareSettings
from gateway.config.morph import MorphSettings
from gateway.config.mqtt import MetricsSettings, MqttSettings
from gateway.config.routes import RouteSettings
from gateway.config.update import UpdateSettings


class GatewaySettings(Table):
    """`[gateway]`: who this box is and where it keeps its data."""

    id: Name = Field("gateway", description="Names the box wherever it reports: lower case, digits, hyphens.")
    ae_title: AETitle = Field("EDGEGW", description="Our AE title, as called AE and, towards archives, as calling AE.")
    data_dir: Path = Field(
        Path("/var/lib/dicom-gateway"), description="Spool, ledger and logs; one local disk, never a network share."
    )
    control_socket: Path | None = Field(
        None,
        description="Unix socket of the command line; default /run/dicom-gateway/control.sock where that folder "
        "can be written, else control.sock in data_dir.",
    )


class ServerTls(Table):
    """TLS of a listener (PS3.15 B.12): TLS 1.2 and 1.3 only."""

    cert_file: Path = Field(description="Our certificate chain, PEM.")
    key_file: Path = Field(description="Our private key, PEM.")
    ca_file: Path | None = Field(None, description="Trust anchors for client certificates, PEM.")
    require_client_cert: bool = Field(True, description="Refuse a sender without a certificate from ca_file.")

    @model_validator(mode="after")
    def _a_required_certificate_needs_an_anchor(self) -> ServerTls:
        if self.require_client_cert and self.ca_file is None:
            raise ValueError("require_client_cert = true needs ca_file")
        return self


class ListenerSettings(Table):
    """`[[listener]]`: a port on which scanners reach us."""

    port: Port = Field(11112, description="TCP port; 11112 is registered for DICOM, 2762 for DICOM over TLS.")
    address: str = Field("0.0.0.0", description="Local address to bind; scanners' side only, where there are two.")
    called_ae_titles: list[AETitle] = Field([], description="AE titles we answer to; empty: any.")
    max_pdu_bytes: int = Field(
        65536,
        ge=4096,
        le=1048576,
        description="PDU length that we offer (PS3.8 D.1); larger ones confuse old scanners.",
    )
    idle_timeout_s: float = Field(60.0, gt=0, description="An association without a message for so long is ended.")
    max_associations: int = Field(64, ge=1, description="Associations at one time, all senders together.")
    max_associations_per_address: int = Field(16, ge=1, description="Associations at one time from one address.")
    tls: ServerTls | None = Field(None, description="Absent: plain DICOM.")


class AdmitSettings(Table):
    """`[admit]`: who may send."""

    unknown_senders: Literal["accept", "reject"] = Field(
        "accept", description="`reject`: only senders with a `[[modality]]` entry get in."
    )
    max_object_bytes: int = Field(8 * 2**30, gt=0, description="A longer data set is refused with 0xA700.")


class ModalitySettings(Table):
    """`[[modality]]`: a known sender."""

    name: Name = Field(description="How status and logs call it.")
    ae_title: AETitle | None = Field(None, description="Calling AE title; absent: any (some scanners send blanks).")
    address: str | None = Field(None, description="Address or network in CIDR form; absent: any.")
    profile: Literal["default"] = Field("default", description="Quirk profile.")
    commitment_report: Literal["auto", "same", "new"] = Field(
        "auto",
        description="Where it expects the report of storage commitment. `same`: only on an association that it opened, "
        "then or later; `new`: on one that we open; `auto`: the first for a while, then the second.",
    )
    commitment_host: str | None = Field(None, description="Where we open that association; absent: whence it asked.")
    commitment_port: Port | None = Field(None, description="TCP port there; absent: that of [commitment].")

    @field_validator("address")
    @classmethod
    def _a_network(cls, value: str | None) -> str | None:
        if value is not None:
            ip_network(value, strict=False)
        return value

    @model_validator(mode="after")
    def _something_to_know_it_by(self) -> ModalitySettings:
        if self.ae_title is None and self.address is None:
            raise ValueError("give ae_title or address, or both")
        return self


class FolderSettings(Table):
    """`[[folder]]`: a drop folder. What was taken moves to `accepted/`, what was not to `rejected/`."""

    path: Path = Field(description="The folder to watch, with its subfolders.")
    settle_s: float = Field(2.0, ge=0, description="A file is taken when size and time stood still for so long.")
    keep_accepted: bool = Field(True, description="false: a file that was taken is deleted instead of moved.")


class SpoolSettings(Table):
    """`[spool]`: the disk under custody."""

    reserve_bytes: int = Field(
        2 * 2**30, ge=0, description="Kept free for ledger and logs; below it C-STORE is answered 0xA700."
    )
    high_water_percent: float = Field(
        90.0, gt=0, le=100, description="Disk use above which new associations are rejected as transient."
    )
    retention_days: float = Field(7.0, ge=0, description="How long an object is still kept after all confirmed it.")
    retention_days_stored: float | None = Field(
        None,
        ge=0,
        description="The same where some archive gave no more evidence than success; absent: retention_days.",
    )
    retention_yields: bool = Field(
        True,
        description="Confirmed objects go before their days are over when space is short, the oldest first; false: "
        "scanners are turned away instead. What is not confirmed never goes.",
    )
    scrub_days: float = Field(7.0, gt=0, description="Every object is read again and its hash compared so often.")
    study_short_alarm_s: float = Field(
        3600.0, gt=0, description="A study of which something is missing or unconfirmed for so long is an alarm."
    )


class CommitmentSettings(Table):
    """`[commitment]`: what scanners are told that ask whether their images are safe (PS3.4 Annex J)."""

    answer: Literal["central", "local"] = Field(
        "central",
        description="Success means: `central`: every destination has confirmed; `local`: the bytes are in our custody.",
    )
    deadline_s: float = Field(
        86400.0, gt=0, description="With `central`: what is not confirmed after so long is reported as failed."
    )
    same_association_s: float = Field(
        10.0, ge=0, description="A report waits so long for an association of the scanner; then we open one to it."
    )
    port: Port = Field(104, description="TCP port of scanners for such associations.")


class Settings(Table):
    """The whole file."""

    gateway: GatewaySettings = Field(GatewaySettings(), description="Who this box is.")
    listener: list[ListenerSettings] = Field([], description="Ports for scanners.")
    admit: AdmitSettings = Field(AdmitSettings(), description="Who may send.")
    modality: list[ModalitySettings] = Field([], description="Known senders.")
    folder: list[FolderSettings] = Field([], description="Drop folders.")
    commitment: CommitmentSettings = Field(CommitmentSettings(), description="Storage commitment for scanners.")
    spool: SpoolSettings = Field(SpoolSettings(), description="The disk under custody.")
    bandwidth: BandwidthSettings = Field(
        BandwidthSettings(), description="How fast objects may leave to all destinations together, folders aside."
    )
    destination: list[DestinationSettings] = Field([], description="Where instances go.")
    route: list[RouteSettings] = Field([], description="Which instances go where.")
    morph: list[MorphSettings] = Field([], description="How attributes are changed on the way.")
    deidentify: list[DeidentifySettings] = Field([], description="Ways to de-identify, for routes to name.")
    mqtt: MqttSettings | None = Field(None, description="Health reports and signed commands; absent: none.")
    hardware: HardwareSettings | None = Field(None, description="Status light, power-fail line, button; absent: none.")
    update: UpdateSettings | None = Field(None, description="Where updates come from; absent: by hand or stick only.")
    metrics: MetricsSettings | None = Field(None, description="Prometheus metrics; absent: none.")

    @model_validator(mode="after")
    def _names_are_unique_and_known(self) -> Settings:
        problems = []
        for kind, names in (
            ("destination", [d.name for d in self.destination]),
            ("modality", [m.name for m in self.modality]),
            ("recipe", [*(m.name for m in self.morph), *(d.name for d in self.deidentify)]),
        ):
            problems += [f"{kind} name '{n}' is used twice" for n in sorted({n for n in names if names.count(n) > 1})]
        destinations, morphs = {d.name for d in self.destination}, {m.name for m in self.morph}
        for index, route in enumerate(self.route):
            for key, kind, names, known in (
                ("to", "destination", route.to, destinations),
                ("to_first_of", "destination", route.to_first_of, destinations),
                ("morph", "morph", route.morph, morphs),
            ):
                problems += [f"route[{index}].{key} names no {kind} '{n}'" for n in names if n not in known]
            if route.deidentify is not None and route.deidentify not in {d.name for d in self.deidentify}:
                problems.append(f"route[{index}].deidentify names no [[deidentify]] '{route.deidentify}'")
        if problems:
            raise ValueError("; ".join(problems))
        return self
