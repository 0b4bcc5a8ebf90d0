"""`[[destination]]`: where instances go, and how we get in there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from gateway.config.bandwidth import BandwidthSettings
from gateway.config.base import AETitle, Name, Port, Table


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


_STORED = "Evidence for release. `stored`: the peer's own success status."


class ConfirmAt(Table):
    """`confirm_at = { … }`: who is asked, where that is another one than takes the instances."""

    host: str = Field(description="Host name or address.")
    port: Port = Field(104, description="TCP port.")
    ae_title: AETitle = Field(description="Called AE title.")


class DestinationBase(Table):
    """What every destination has."""

    name: Name = Field(description="How routes, status and logs call it.")
    confirm: Literal["stored"] = Field("stored", description=_STORED)
    confirm_after_s: float = Field(
        5.0, ge=0, le=86400, description="With another confirm than stored: ask so long after an instance was sent."
    )
    confirm_timeout_s: float = Field(
        3600.0, gt=0, description="Evidence that is not there after so long is asked for again, from the start."
    )
    compression: Literal["auto", "off", "jpeg-ls", "jpeg-2000", "rle", "htj2k", "deflated"] = Field(
        "auto",
        description="Lossless, proven frame by frame, and only for peers that take it; `auto`: whatever gets most "
        "through the line as it is measured, often nothing; `off`: as it came.",
    )
    allow_decompress: bool = Field(
        False,
        description="A lossy image that the peer does not take may be sent decoded, marked as lossy for good; without "
        "this it is held. Lossless ones may always be decoded, video never is.",
    )
    retry_first_s: float = Field(2.0, gt=0, description="Upper end of the first retry's random delay.")
    retry_ceiling_s: float = Field(300.0, gt=0, description="Delays double up to this; retries never end.")
    failover_after_s: float = Field(
        30.0, ge=0, description="Ill for so long, it loses what waits for it to the next of a route's to_first_of."
    )
    bandwidth: BandwidthSettings | None = Field(
        None, description="How fast objects may leave to it; that of [bandwidth] is kept besides."
    )
    timeout_s: float = Field(60.0, gt=0, description="A peer silent for so long in the middle of work is ill.")


class DimseDestination(DestinationBase):
    """`kind = "dimse"`: a C-STORE SCP."""

    kind: Literal["dimse"]
    confirm: Literal["stored", "commitment", "query"] = Field(  # type: ignore[assignment]
        "stored",
        description=f"{_STORED} `commitment`: its storage commitment, whose report comes on the same association or "
        "on a new one to a [[listener]] of ours. `query`: that it finds the instance by C-FIND.",
    )
    report_wait_s: float = Field(
        5.0, ge=0, le=120, description="With `commitment`: an association is kept open so long for the report."
    )
    confirm_at: ConfirmAt | None = Field(None, description="Who is asked for evidence; absent: the peer itself.")
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
    confirm: Literal["stored", "query"] = Field(  # type: ignore[assignment]
        "stored", description=f"{_STORED} `query`: that it finds the instance by QIDO-RS below the same url."
    )
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
