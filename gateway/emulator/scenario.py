"""A clinic's day as data: `scenarios/*.toml`. Times are those of the day; `speed` says how much faster it passes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.emulator import shipped
from gateway.emulator.rules import Rule
from gateway.emulator.shipped import explained


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Target(_Table):
    """The box that everything goes through."""

    host: str = "127.0.0.1"
    port: int = 11112
    ae_title: str = "EDGEGW"


class Archive(_Table):
    """The box's only destination, at `port`; with a line, at the line's port."""

    port: int = 0
    http_port: int | None = None
    """Takes STOW-RS as well."""
    ae_title: str = "PACS"
    rules: list[Rule] = []
    """Their times are seconds of the clock on the wall."""
    refuse_syntaxes: list[str] = []
    commit: Literal["same", "new", "later", "never"] = "same"
    commit_port: int = 104
    identical: bool = True
    """What arrives has to be the bytes that were sent; false where the box compresses or changes what it delivers."""


class LineSettings(_Table):
    """Between box and archive."""

    port: int = 0
    round_trip_ms: float = 0.0
    jitter_ms: float = 0.0
    rate_mbit_s: float | None = None
    cut_every_s: float | None = None


class Outage(_Table):
    of: Literal["archive", "line", "ris"]
    from_min: float = Field(ge=0)
    for_min: float = Field(gt=0)


class RisSettings(_Table):
    port: int = 0
    ae_title: str = "RIS"


class ScannerSettings(_Table):
    """One scanner, or a number of the same kind."""

    profile: str
    ae_title: str | None = None
    number: int = Field(1, ge=1)
    """So many of them; their titles end in 1, 2 and so on."""
    studies: int = Field(1, ge=1)
    start_min: float = Field(0.0, ge=0)
    images: int = 0
    frames: int = 0
    series: int = 0
    side: int = 0
    rounds: int = 20
    """What is not acknowledged is sent again, so often."""
    unscheduled: float = Field(0.0, ge=0, le=1)
    emergency: float = Field(0.0, ge=0, le=1)
    again: float = Field(0.0, ge=0, le=1)
    retake: float = Field(0.0, ge=0, le=1)
    delete: float = Field(0.0, ge=0, le=1)
    discontinue: float = Field(0.0, ge=0, le=1)
    worklist: bool = True
    mpps: bool = True
    commitment: bool = False
    """Asks the box; the report comes where the profile says."""
    quirks: dict[str, bool | dict[str, Any]] = {}


class Scenario(_Table):
    about: str
    seed: int = 1
    speed: float = Field(60.0, gt=0)
    """The day passes so many times as fast."""
    settle_s: float = Field(60.0, ge=0)
    """How long the box may take after the last image, on the wall's clock."""
    address: str = "127.0.0.1"
    """Where this machine listens; a box elsewhere needs one that it reaches."""
    target: Target = Target()
    archive: Archive = Archive()
    line: LineSettings | None = None
    ris: RisSettings | None = None
    outage: list[Outage] = []
    scanner: list[ScannerSettings] = Field(min_length=1)


def names() -> list[str]:
    """Return the scenarios that are shipped."""
    return shipped.names("scenarios")


def load(name: str, **changed: Any) -> Scenario:
    """Return a shipped scenario, or that of a file whose name ends with .toml; `changed` replaces its settings.
    Raises ProfileError."""
    with explained("scenario", name):
        return Scenario(**{**shipped.table("scenario", "scenarios", name), **changed})
