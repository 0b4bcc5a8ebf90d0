"""What a scanner is, as data: `profiles/*.toml`, and `quirks.toml`, whose entries change a profile's own settings."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.emulator import shipped
from gateway.emulator.shipped import ProfileError, explained

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Network(_Table):
    """How it speaks DICOM. What no healthy scanner does is here for the quirks."""

    ae_title: str
    called_ae_title: str | None = None
    """Whom it calls; without, as it is told."""
    title_tail: str = ""
    """Follows both AE titles instead of spaces."""
    reserved_byte: int = Field(0, ge=0, le=255)
    """Fills the 32 reserved bytes of its A-ASSOCIATE-RQ."""
    association: Literal["image", "series", "study", "held"] = "series"
    """What it opens an association for; `held` keeps one for all studies."""
    syntaxes: list[str] = [IMPLICIT, EXPLICIT]
    """Transfer Syntaxes that it offers for what is not compressed, the preferred first."""
    contexts: Literal["one", "each"] = "each"
    """One presentation context for each syntax, or one that offers all."""
    extra_classes: list[str] = []
    """SOP classes that it proposes beside those it sends."""
    crowd: int = Field(0, ge=0, le=128)
    """Proposes so many contexts, whatever it needs."""
    refused: Literal["skip", "send", "abort"] = "skip"
    """What it does about a refused context: leave out its objects, send them on it all the same, or give up."""
    max_pdu: int = Field(16384, ge=0, le=0xFFFFFFFF)
    """Announced; 0 means no limit."""
    piece: int = Field(0, ge=0)
    """Bytes of a data set in one PDV; 0 means as many as the peer allows."""
    one_pdu: bool = False
    """Command and first piece of the data set share a PDU."""
    segment: int = Field(0, ge=0)
    """Bytes given to TCP at a time; 0 means all."""
    end: Literal["release", "abort", "close", "reset", "half-close", "leave"] = "release"
    """How it ends an association; `leave` waits for the peer to be tired of it."""
    leave_s: float = Field(60.0, ge=0)
    """How long it leaves an association open."""
    hang_up_on_accept: int = Field(0, ge=0)
    """Closes so many of its first associations as soon as they are accepted."""
    cut_inside: int = Field(0, ge=0)
    """Loses the connection within every so many-th object, the first time it is sent."""
    killed_after: int = Field(0, ge=0)
    """Loses the connection after so many objects, on each association."""
    copies: int = Field(1, ge=1)
    """Sends each object so often."""
    slow_s: float = Field(0.0, ge=0)
    """Its console calls an answer that takes longer an error; 0 means never."""
    total_s: float = Field(0.0, ge=0)
    """Its console gives up an association after so long; 0 means never."""
    abort_is_failure: bool = False
    """It sends everything of an association again when that ended with A-ABORT."""
    tls: Literal["", "1.0", "1.2"] = ""
    """Speaks TLS of this version alone."""


class Data(_Table):
    """What its data sets look like."""

    character_set: str = "ISO_IR 100"
    """Of names and descriptions; empty for none."""
    names: Literal["latin", "japanese", "cyrillic", "ascii"] = "latin"
    uid_form: Literal["usual", "odd", "space", "two-nul", "zeros", "long"] = "usual"
    """Padding, or form, of its UIDs in negotiation and data set; `odd` is the SOP Instance UID without any padding."""
    sop_class: str | None = None
    """Calls its objects this, whatever they are."""
    syntax: str | None = None
    """Calls its encoding this, whatever it is."""
    encode_as: Literal["", "implicit", "explicit", "big"] = ""
    """Encodes so, whatever was agreed on."""
    changed_copies: bool = False
    """Copies of an object have its UID and other bytes."""
    defects: list[Literal["unordered", "odd-length", "meta-element", "trailing", "wrong-vr", "stray-item"]] = []
    """What is wrong with the bytes."""


class Exam(_Table):
    """What is done with a patient, and how long it takes."""

    description: str
    body_part: str = ""
    procedure_code: str = "EMU1"
    pause_image_s: float = Field(0.0, ge=0)
    pause_series_s: float = Field(0.0, ge=0)
    pause_study_s: float = Field(0.0, ge=0)
    worklist: bool = True
    """Asks for its patients."""
    mpps: bool = True
    """Tells what it does."""
    commitment: bool = True
    """Asks whether what it sent is safe."""
    images: int = Field(0, ge=0)
    """Makes so many images of each series; 0 leaves it to the series."""
    side: int = Field(0, ge=0)
    """Longest side of its images; 0 leaves it to the series."""
    endless: bool = False
    """Begins with the next study as soon as one is over, until it is stopped."""


class Worklist(_Table):
    extra_keys: list[str] = []
    """Return keys beside the usual ones, by keyword."""
    group_lengths: bool = False
    """Sends retired group lengths in its query."""
    cancel_after: int = Field(0, ge=0)
    """Sends C-CANCEL after so many answers; 0 means never."""


class Mpps(_Table):
    without_uid: bool = False
    """Leaves it to the SCP to name the procedure step."""


class Commitment(_Table):
    wait: Literal["same", "later", "new"] = "new"
    """Where it takes the report: on the association of its request, on one that it opens later, or at its listener."""
    wait_s: float = Field(10.0, ge=0)
    """How long it waits for the report, on each association."""
    ae_title: str | None = None
    """Asks under this name."""


class Files(_Table):
    """How it writes files, where it does."""

    preamble: bool = True
    dicomdir: bool = False
    grow_s: float = Field(0.0, ge=0)
    """How long a file grows under its final name."""


class Pixels(_Table):
    phantom: str
    rows: int = Field(ge=8, le=8192)
    columns: int = Field(ge=8, le=8192)
    frames: int = Field(0, ge=0, le=10000)
    """0 means an image that has no frames."""
    colour: Literal["", "doppler", "grey"] = ""
    """As RGB: with flow in colour, or three equal samples."""
    planar: int = Field(0, ge=0, le=1)
    allocated: int = 16
    stored: int = 12
    signed: bool = False
    photometric: str = "MONOCHROME2"
    range: tuple[int, int] = (0, 4095)
    """What black and white of the phantom are stored as."""
    noise: float = Field(0.0, ge=0)
    """Standard deviation, in stored values."""
    jpeg_quality: int = Field(0, ge=0, le=100)
    """Above 0 as JPEG Baseline of this quality."""


class Series(_Table):
    sop_class: str
    modality: str
    description: str = ""
    images: tuple[int, int] = (1, 1)
    """Fewest and most instances."""
    start_mm: float = 0.0
    step_mm: float = 0.0
    """Place of the first instance or frame, and how far apart they are: {z} and {place} of templates."""
    pixels: Pixels | None = None
    set: dict[str, Any] = {}
    """Attributes by keyword; text in braces is a template (`template.py`)."""
    shared: dict[str, Any] = {}
    per_frame: dict[str, Any] = {}
    """Functional groups, the same for all frames and of each frame."""
    document: bool = False
    """Carries a PDF."""


class Profile(_Table):
    about: str
    device: dict[str, Any]
    network: Network
    data: Data = Data()
    exam: Exam
    worklist: Worklist = Worklist()
    mpps: Mpps = Mpps()
    commitment: Commitment = Commitment()
    files: Files = Files()
    quirks: dict[str, bool | dict[str, Any]] = {}
    """Quirk -> true, or its parameters."""
    series: list[Series] = Field(min_length=1)


class Quirk(_Table):
    title: str
    evidence: str
    """Where it was met, or where it is described."""
    sets: dict[str, dict[str, Any]] = {}
    """What it changes: table -> setting -> value."""


def _folder() -> Any:
    return files("gateway.emulator")


def quirks() -> dict[str, Quirk]:
    """Return the catalogue, in its own order."""
    text = (_folder() / "quirks.toml").read_text(encoding="utf-8")
    return {name: Quirk(**table) for name, table in tomllib.loads(text).items()}


def names() -> list[str]:
    """Return the names of all profiles."""
    return shipped.names("profiles")


def load(name: str, more: dict[str, bool | dict[str, Any]] | None = None) -> Profile:
    """Return a profile of this name, or from a file whose name ends with .toml, changed by its quirks and by `more`.
    Raises ProfileError."""
    with explained("profile", name):
        table = shipped.table("profile", "profiles", name)
        table["quirks"] = {**table.get("quirks", {}), **(more or {})}
        return Profile(**_changed(table))


def _changed(table: dict[str, Any]) -> dict[str, Any]:
    """Lay the settings of each quirk over those of the profile, and its parameters over both."""
    catalogue = quirks()
    for name, told in table["quirks"].items():
        if name not in catalogue:
            raise ProfileError(f"no quirk {name!r}; there are {', '.join(catalogue)}")
        if told is False:
            continue
        sets = catalogue[name].sets
        parameters: dict[str, Any] = told if isinstance(told, dict) else {}
        owner = {key: part for part, settings in sets.items() for key in settings}
        for key in parameters:
            if key not in owner:
                raise ProfileError(f"quirk {name} has no parameter {key!r}; it has {', '.join(owner) or 'none'}")
        for part, settings in sets.items():
            mine = {key: value for key, value in parameters.items() if owner[key] == part}
            table[part] = {**table.get(part, {}), **settings, **mine}
    return table
