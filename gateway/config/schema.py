"""The one schema. Every field says its unit and its reason; `config schema` prints it as JSON Schema."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

AETitle = Annotated[str, StringConstraints(min_length=1, max_length=16, pattern=r"^[\x20-\x5b\x5d-\x7e]+$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,63}$")]
Port = Annotated[int, Field(ge=1, le=65535)]


class Table(BaseModel):
    """A TOML table: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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


class ClientTls(Table):
    """TLS towards a destination (PS3.15 B.12): TLS 1.2 and 1.3 only, the name is always checked."""

    ca_file: Path | None = Field(None, description="Trust anchors, PEM; default: those of the system.")
    cert_file: Path | None = Field(None, description="Our certificate chain for mutual TLS, PEM.")
    key_file: Path | None = Field(None, description="Our private key for mutual TLS, PEM.")
    server_name: str | None = Field(None, description="Name expected in the peer's certificate; default: host.")

    @model_validator(mode="after")
    def _certificate_and_key_go_together(self) -> ClientTls:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        return self


class ListenerSettings(Table):
    """`[[listener]]`: a port on which scanners reach us."""

    port: Port = Field(11112, description="TCP port; 11112 is registered for DICOM, 2762 for DICOM over TLS.")
    address: str = Field("0.0.0.0", description="Local address to bind; scanners' side only, where there are two.")
    called_ae_titles: list[AETitle] = Field([], description="AE titles we answer to; empty: any.")
    max_pdu_bytes: int = Field(131072, ge=4096, le=1048576, description="PDU length that we offer (PS3.8 D.1).")
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
    retention_days: float = Field(7.0, ge=0, description="How long a confirmed object is still kept.")


class DestinationBase(Table):
    """What every destination has."""

    name: Name = Field(description="How routes, status and logs call it.")
    confirm: Literal["stored"] = Field("stored", description="Evidence for release: the peer's own success status.")
    compression: Literal["off"] = Field("off", description="Objects go as they came.")
    retry_first_s: float = Field(2.0, gt=0, description="Upper end of the first retry's random delay.")
    retry_ceiling_s: float = Field(300.0, gt=0, description="Delays double up to this; retries never end.")
    timeout_s: float = Field(60.0, gt=0, description="A peer silent for so long in the middle of work is ill.")


class DimseDestination(DestinationBase):
    """`kind = "dimse"`: a C-STORE SCP."""

    kind: Literal["dimse"]
    host: str = Field(description="Host name or address.")
    port: Port = Field(104, description="TCP port.")
    ae_title: AETitle = Field(description="Called AE title.")
    calling_ae_title: AETitle | None = Field(None, description="Our AE title towards this peer; default: gateway's.")
    associations: int = Field(4, ge=1, le=32, description="Associations at one time; they hide round trips.")
    linger_s: float = Field(1.0, ge=0, description="An idle association is kept open so long for more work.")
    tls: ClientTls | None = Field(None, description="Absent: plain DICOM; never fallen back to.")


class StowDestination(DestinationBase):
    """`kind = "stow"`: a STOW-RS service (PS3.18 10.5)."""

    kind: Literal["stow"]
    url: str = Field(pattern=r"^https?://", description="The studies resource: …/studies")
    associations: int = Field(4, ge=1, le=32, description="Requests at one time.")
    tls: ClientTls | None = Field(None, description="Trust anchors and client certificate for https.")


class FolderDestination(DestinationBase):
    """`kind = "folder"`: Part 10 files in a folder, for another program to fetch."""

    kind: Literal["folder"]
    path: Path = Field(description="The folder; files appear in it whole, under their final name.")
    associations: int = Field(1, ge=1, le=8, description="Writers at one time.")


DestinationSettings = Annotated[DimseDestination | StowDestination | FolderDestination, Field(discriminator="kind")]


class RouteCondition(Table):
    """`when = { … }`: each named condition must hold; within one, any of the values."""

    modality: list[str] | None = Field(None, description="Modality (0008,0060).")
    calling_ae_title: list[str] | None = Field(None, description="Calling AE title of the sender.")
    called_ae_title: list[str] | None = Field(None, description="AE title the sender called.")
    sop_class_uid: list[str] | None = Field(None, description="SOP Class UID (0008,0016).")


class RouteSettings(Table):
    """`[[route]]`: all routes that match add their destinations. No route at all: everything goes everywhere."""

    when: RouteCondition = Field(RouteCondition(), description="Absent: every instance.")
    to: list[Name] = Field(min_length=1, description="Names of destinations.")
    priority: Literal["stat", "normal", "bulk"] = Field("normal", description="Order of delivery.")


class Settings(Table):
    """The whole file."""

    gateway: GatewaySettings = Field(GatewaySettings(), description="Who this box is.")
    listener: list[ListenerSettings] = Field([], description="Ports for scanners.")
    admit: AdmitSettings = Field(AdmitSettings(), description="Who may send.")
    modality: list[ModalitySettings] = Field([], description="Known senders.")
    folder: list[FolderSettings] = Field([], description="Drop folders.")
    spool: SpoolSettings = Field(SpoolSettings(), description="The disk under custody.")
    destination: list[DestinationSettings] = Field([], description="Where instances go.")
    route: list[RouteSettings] = Field([], description="Which instances go where.")

    @model_validator(mode="after")
    def _names_are_unique_and_known(self) -> Settings:
        problems = []
        for kind, names in (
            ("destination", [d.name for d in self.destination]),
            ("modality", [m.name for m in self.modality]),
        ):
            problems += [f"{kind} name '{n}' is used twice" for n in sorted({n for n in names if names.count(n) > 1})]
        known = {d.name for d in self.destination}
        for index, route in enumerate(self.route):
            problems += [f"route[{index}].to names no destination '{n}'" for n in route.to if n not in known]
        if problems:
            raise ValueError("; ".join(problems))
        return self
