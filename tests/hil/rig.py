"""The rig file: what stands around a box under test, and what of it the suite may touch."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator


class RigError(ValueError):
    """The rig file cannot be used; the text says what is wrong, and where."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def split(place: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT. Raises ValueError."""
    host, _, port = place.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{place!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


class _Place(_Table):
    listen: str
    """HOST:PORT on this machine where the suite listens."""
    box_sees: str
    """HOST:PORT by which the box reaches it."""

    @field_validator("listen", "box_sees")
    @classmethod
    def _is_place(cls, value: str) -> str:
        split(value)
        return value


class BoxTable(_Table):
    ae_title: str = Field("EDGEGW", min_length=1, max_length=16)
    mqtt_id: str = "gateway"
    """`gateway.id` of the box, by which it is named on MQTT."""
    tenant: str = "default"
    commitment: bool = False
    """It answers storage commitment by itself: `[commitment] answer = "local"`."""
    folder: Path | None = None
    """Its drop folder, as this machine reaches it."""
    idle_timeout_s: float = Field(60.0, gt=0)
    """`idle_timeout_s` of its listener."""
    log: list[str] = []
    """A command that prints the box's log of the last hour."""
    patience_s: float = Field(180.0, gt=0)
    """How long the suite waits for what has to arrive when nothing stands in the way."""


class ArchiveTable(_Place):
    """The emulated line to the emulated archive: the box's destination."""

    ae_title: str = Field("PACS", min_length=1, max_length=16)
    journal: Path | None = None
    """Remembers from run to run what the archive has: needed to repeat a seed on a box that remembers what it sent."""


class BrokerTable(_Place):
    """The emulated line to a broker that is there already."""

    to: str
    """HOST:PORT of that broker."""
    options: list[str] = []
    """Further words for `mosquitto_sub`, such as --cafile FILE --cert FILE --key FILE."""
    interval_s: float = Field(60.0, gt=0)
    """`interval_s` of the box's [mqtt]."""

    @field_validator("to")
    @classmethod
    def _is_broker(cls, value: str) -> str:
        split(value)
        return value


class PowerTable(_Table):
    cut: list[str] = Field(min_length=1)
    restore: list[str] = Field(min_length=1)
    """Commands of a switch between box and mains."""
    boot_s: float = Field(600.0, gt=0)
    """After so long without an answer the box did not come back."""


class ClockTable(_Table):
    jump: list[str] = Field(min_length=1)
    """A command that sets the box's clock; {epoch} in it becomes seconds since 1970."""


class LimitsTable(_Table):
    """What a box must reach to be accepted; 0 asks for nothing."""

    objects_per_s: float = Field(0.0, ge=0)
    """Acknowledged CT images, all scanners of the case `load` together."""
    ack_p95_s: float = Field(0.0, ge=0)
    """From the first byte of an image to its acknowledgement."""


class Rig(_Table):
    name: str = Field(min_length=1)
    fresh: bool = False
    """The box holds nothing from before: then an object that nobody here sent is a fault."""
    box: BoxTable = BoxTable()
    archive: ArchiveTable
    broker: BrokerTable | None = None
    power: PowerTable | None = None
    clock: ClockTable | None = None
    limits: LimitsTable = LimitsTable()


def load(path: Path) -> Rig:
    """Return the rig of a file. Raises RigError, which names every problem at once."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RigError(f"{path}: {error.strerror}; begin with a copy of tests/hil/rig.example.toml") from error
    except tomllib.TOMLDecodeError as error:
        raise RigError(f"{path}: {error}") from error
    try:
        return Rig(**table)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise RigError(f"{path}: " + "; ".join(lines)) from error


def box_config(rig: Rig, *, mqtt_tls: str = "", retries: str = "") -> str:
    """Return the tables that a box on this rig needs in its gateway.toml: bytes must arrive as they were sent, and
    what a scanner calls urgent goes first."""
    host, port = split(rig.archive.box_sees)
    text = (
        f'[[destination]]\nname = "pacs"\nkind = "dimse"\nhost = "{host}"\nport = {port}\n'
        f'ae_title = "{rig.archive.ae_title}"\ncompression = "off"\n{retries}\n'
        '[[route]]\nto = ["pacs"]\npriority = "sender"\n'
    )
    if rig.box.commitment:
        text += '[commitment]\nanswer = "local"\n'
    if rig.broker is not None:
        host, port = split(rig.broker.box_sees)
        text += (
            f'[mqtt]\nhost = "{host}"\nport = {port}\ntenant = "{rig.box.tenant}"\n'
            f"interval_s = {rig.broker.interval_s:g}\nwill_delay_s = 1\n{mqtt_tls}\n"
        )
    return text
