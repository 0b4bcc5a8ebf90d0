"""`[[deidentify]]`: what a destination may not learn about the patient (PS3.15 Annex E)."""

from __future__ import annotations

import re
from pathlib import Path
from stat import S_ISREG
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from gateway.config.base import Name, Table

MIN_KEY_BYTES = 32
MAX_KEY_BYTES = 4096
FEWEST_DISTINCT_BYTES = 8
"""32 random bytes have fewer less than once in 10^36 keys; a file of zeros or of one letter has."""

Option = Literal[
    "clean-pixel-data",
    "clean-structured-content",
    "clean-descriptors",
    "retain-longitudinal-full-dates",
    "retain-longitudinal-modified-dates",
    "retain-patient-characteristics",
    "retain-device-identity",
    "retain-uids",
    "retain-safe-private",
    "retain-institution-identity",
]
Pixels = Annotated[int, Field(ge=0, le=65535)]
_PRIVATE = re.compile(r"[0-9A-Fa-f]{3}[13579BDFbdf],[xX]{2}[0-9A-Fa-f]{2}")


class SafePrivate(Table):
    """Private elements of one creator that are known to identify nobody, beside those of PS3.15 Table E.3.10-1."""

    creator: str = Field(min_length=1, max_length=64, description="Private Creator as it stands in the data set.")
    elements: list[str] = Field(min_length=1, description='Group and element, the block as xx: "0019,xx0C".')

    @field_validator("elements")
    @classmethod
    def _private(cls, value: list[str]) -> list[str]:
        for element in value:
            if not _PRIVATE.fullmatch(element):
                raise ValueError(f"'{element}' is not a private element: write an odd group and xx, as 0019,xx0C")
        return value


class Blacken(Table):
    """Where a kind of image has text burned in. All conditions that are given must hold; rules that match add up."""

    modality: str = Field(description="Modality (0008,0060).")
    manufacturer: str | None = Field(None, description="Manufacturer (0008,0070).")
    model: str | None = Field(None, description="Manufacturer's Model Name (0008,1090).")
    station: str | None = Field(None, description="Station Name (0008,1010).")
    size: tuple[Pixels, Pixels] | None = Field(None, description="Columns and Rows of the image.")
    rectangles: list[tuple[Pixels, Pixels, Pixels, Pixels]] = Field(
        description="x, y, width, height in pixels from the upper left; empty: these images have no text in them."
    )

    @field_validator("rectangles")
    @classmethod
    def _some_area(cls, value: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
        for _, _, width, height in value:
            if not width or not height:
                raise ValueError("a rectangle is x, y, width, height; width and height are at least 1")
        return value


class DeidentifySettings(Table):
    """`[[deidentify]]`: the Basic Application Level Confidentiality Profile and its options, by name."""

    name: Name = Field(description="How a route calls it.")
    options: list[Option] = Field([], description="Options of PS3.15 E.3 beside the Basic Profile.")
    key_file: Path = Field(
        description="The secret behind pseudonyms, UIDs and date offsets: 32 random bytes or more. Same key, same "
        "results; whoever has it can link patients to pseudonyms."
    )
    patient_id_prefix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{0,16}$")] = Field(
        "ANON-", description="Begins Patient ID and Patient's Name; at most 16 letters, digits, - and _."
    )
    allowed_words: list[str] = Field(
        [], description="With clean-descriptors: the only words that descriptions may keep, in any case."
    )
    blacken: list[Blacken] = Field(
        [],
        description="With clean-pixel-data: the areas; an image that no rule matches is held. With an area the image "
        "goes native, a lossy one too, marked as lossy for good.",
    )
    safe_private: list[SafePrivate] = Field([], description="With retain-safe-private: more elements that are safe.")

    @model_validator(mode="after")
    def _options_fit(self) -> DeidentifySettings:
        if len(set(self.options)) < len(self.options):
            raise ValueError("options names one twice")
        if {"retain-longitudinal-full-dates", "retain-longitudinal-modified-dates"} <= set(self.options):
            raise ValueError("dates are either kept (full-dates) or shifted (modified-dates): give one of the options")
        for option, key, value in (
            ("clean-descriptors", "allowed_words", self.allowed_words),
            ("clean-pixel-data", "blacken", self.blacken),
            ("retain-safe-private", "safe_private", self.safe_private),
        ):
            if value and option not in self.options:
                raise ValueError(f"{key} does nothing without the option {option}")
        if "clean-pixel-data" in self.options and not self.blacken:
            raise ValueError("clean-pixel-data needs blacken: without a rule every image would be held")
        return self


def key_fault(path: Path) -> str:
    """Return why the file cannot be the key, with the fix; "" when it can, or cannot be read at all."""
    try:
        mode = path.stat().st_mode
        if not S_ISREG(mode):  # a pipe would wait for a writer
            return ""
        with open(path, "rb") as file:
            key = file.read(MAX_KEY_BYTES + 1)
    except OSError:
        return ""
    if mode & 0o027:  # its group may read: systemd hands credentials to a service that way
        return f"{path} can be read or written by others: chmod 600 {path}"
    if len(key) < MIN_KEY_BYTES:
        return f"{path} holds {len(key)} bytes, {MIN_KEY_BYTES} are needed: openssl rand -out {path} {MIN_KEY_BYTES}"
    if len(key) > MAX_KEY_BYTES:
        return f"{path} is longer than {MAX_KEY_BYTES} bytes: openssl rand -out {path} {MIN_KEY_BYTES}"
    if len(set(key)) < FEWEST_DISTINCT_BYTES:
        return f"{path} is not random: openssl rand -out {path} {MIN_KEY_BYTES}"
    return ""
