"""The one schema. Every field says its unit and its reason; `config schema` prints it as JSON Schema."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from gateway.config.regex import compiled
from gateway.config.tags import element

AETitle = Annotated[str, StringConstraints(min_length=1, max_length=16, pattern=r"^[\x20-\x5b\x5d-\x7e]+$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,63}$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Regex = Annotated[re.Pattern[str], BeforeValidator(compiled)]


def _end(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("must be a number or a text")
    return value


def _network(value: object) -> IPv4Network | IPv6Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if not isinstance(value, str):
        raise ValueError("must be an address or network in quotes")
    return ip_network(value, strict=False)


End = Annotated[int | float | str, BeforeValidator(_end)]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]


class Table(BaseModel):
    """A TOML table: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")  # JSON knows no infinity


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
    compression: Literal["auto", "off", "jpeg-ls", "jpeg-2000", "rle", "htj2k", "deflated"] = Field(
        "auto",
        description="Lossless, proven frame by frame, and only for peers that take it; `auto`: whatever gets most "
        "through the line as it is measured, often nothing; `off`: as it came.",
    )
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


class BasicAuth(Table):
    """`auth = { kind = "basic", … }` (RFC 7617)."""

    kind: Literal["basic"]
    user: str = Field(min_length=1, pattern="^[^:]*$", description="User name.")
    password_file: Path = Field(description="File with the password.")


class BearerAuth(Table):
    """`auth = { kind = "bearer", … }` (RFC 6750)."""

    kind: Literal["bearer"]
    token_file: Path = Field(description="File with the token; read for each request, so that it can be renewed.")


class OAuth2Auth(Table):
    """`auth = { kind = "oauth2", … }`: client credentials (RFC 6749 4.4)."""

    kind: Literal["oauth2"]
    token_url: str = Field(pattern=r"^https?://", description="The token service.")
    client_id: str = Field(min_length=1, description="Our id there.")
    client_secret_file: Path = Field(description="File with our secret there.")
    scope: str | None = Field(None, description="What we ask for; absent: what the service gives by default.")


class AwsAuth(Table):
    """`auth = { kind = "aws", … }`: AWS Signature Version 4."""

    kind: Literal["aws"]
    region: str = Field(min_length=1, description="Region of the service, such as eu-central-1.")
    service: str = Field("medical-imaging", min_length=1, description="Name of the service in signatures.")
    access_key_id_file: Path = Field(description="File with the access key id.")
    secret_access_key_file: Path = Field(description="File with the secret access key.")
    session_token_file: Path | None = Field(None, description="File with the session token of temporary keys.")


AuthSettings = Annotated[BasicAuth | BearerAuth | OAuth2Auth | AwsAuth, Field(discriminator="kind")]


class StowDestination(DestinationBase):
    """`kind = "stow"`: a STOW-RS service (PS3.18 10.5)."""

    kind: Literal["stow"]
    url: str = Field(pattern=r"^https?://", description="The studies resource: …/studies")
    associations: int = Field(4, ge=1, le=32, description="Requests at one time.")
    tls: ClientTls | None = Field(None, description="Trust anchors and client certificate for https.")
    auth: AuthSettings | None = Field(None, description="Who we are to the service; absent: only TLS says it.")
    proxy: str | None = Field(None, pattern=r"^http://", description="HTTP proxy on the way to the service.")


class FolderDestination(DestinationBase):
    """`kind = "folder"`: Part 10 files in a folder, for another program to fetch."""

    kind: Literal["folder"]
    compression: Literal["off"] = Field("off", description="Files are written as their objects came.")
    path: Path = Field(description="The folder; files appear in it whole, under their final name.")
    associations: int = Field(1, ge=1, le=8, description="Writers at one time.")


DestinationSettings = Annotated[DimseDestination | StowDestination | FolderDestination, Field(discriminator="kind")]


class TagCondition(Table):
    """One attribute on the top level of the data set's first 64 KiB, and one question about it.

    Of several values one must satisfy it, or all together as they stand, joined by backslashes. Values are decoded by
    Specific Character Set and stripped of padding; the first 128 bytes count.
    """

    tag: str = Field(description='Keyword ("PatientSex"), or group and element ("0040,0275").')
    equals: str | None = Field(None, description="The value is this.")
    one_of: list[str] | None = Field(None, min_length=1, description="The value is one of these.")
    matches: Regex | None = Field(None, description="This regular expression is found in the value.")
    range: tuple[End, End] | None = Field(
        None,
        description="First and last value: numbers (`inf` for no end), or texts that compare letter by letter, as "
        'dates and times do; an end that is shorter than the value counts whole: ["2025", "2026"] is two years.',
    )
    absent: bool | None = Field(None, description="true: not seen, or empty. false: seen with a value.")

    @field_validator("tag")
    @classmethod
    def _known(cls, value: str) -> str:
        element(value)
        return value

    @field_validator("range")
    @classmethod
    def _first_to_last(cls, value: tuple[End, End] | None) -> tuple[End, End] | None:
        if value is None:
            return None
        first, last = value
        if isinstance(first, str) != isinstance(last, str):
            raise ValueError("goes from a number to a text")
        if not first <= last:  # type: ignore[operator]
            raise ValueError("begins after its end")
        return value

    @model_validator(mode="after")
    def _one_question(self) -> TagCondition:
        asked = [self.equals, self.one_of, self.matches, self.range, self.absent]
        if sum(question is not None for question in asked) != 1:
            raise ValueError("give exactly one of equals, one_of, matches, range, absent")
        return self


class RouteCondition(Table):
    """`when = { … }`: each named condition must hold; within one, any of the values."""

    modality: list[str] | None = Field(None, description="Modality (0008,0060).")
    calling_ae_title: list[str] | None = Field(None, description="Calling AE title of the sender.")
    called_ae_title: list[str] | None = Field(None, description="AE title the sender called.")
    address: list[Network] | None = Field(None, description="Addresses of senders, or networks in CIDR form.")
    sop_class_uid: list[str] | None = Field(None, description="SOP Class UID (0008,0016).")
    body_part: list[str] | None = Field(None, description="Body Part Examined (0018,0015).")
    station: list[str] | None = Field(None, description="Station Name (0008,1010).")
    time_of_day: str | None = Field(
        None,
        pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$",
        description="When the instance came, in the box's local time: from the first minute, until before the last; "
        '"18:00-06:00" goes past midnight.',
    )
    tag: list[TagCondition] = Field([], description="Any other attributes; all entries must hold.")

    @field_validator("time_of_day")
    @classmethod
    def _some_time(cls, value: str | None) -> str | None:
        if value is not None and value[:5] == value[6:]:
            raise ValueError("ends when it begins")
        return value


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
