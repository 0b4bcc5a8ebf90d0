"""`[[route]]`: which instances go where."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from gateway.config.base import Name, Table
from gateway.config.regex import compiled
from gateway.config.tags import element

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
    to: list[Name] = Field([], description="Names of destinations; each gets the instance.")
    to_first_of: list[Name] = Field(
        [],
        description="A failover group, in order of preference: one of them gets the instance, the next one while those "
        "before it are ill.",
    )
    morph: list[Name] = Field(
        [], description="Names of `[[morph]]` tables: what goes by this route is changed by them, in this order."
    )
    priority: Literal["stat", "normal", "bulk", "sender"] = Field(
        "normal",
        description="Order of delivery; `sender`: as the C-STORE says (HIGH, MEDIUM, LOW), for senders that mean it.",
    )
    wait_for: Literal["study"] | None = Field(
        None, description="`study`: an instance goes when its whole study has been quiet; absent: at once."
    )
    quiet_s: float = Field(
        30.0, gt=0, le=86400, description="With wait_for: a study is quiet when none of it came for so long."
    )
    deidentify: Name | None = Field(
        None, description="Name of a [[deidentify]] table: these destinations get only what it leaves; absent: all."
    )

    @property
    def recipe(self) -> tuple[str, ...]:
        """Names of the tables to apply, in this order: de-identification last, so that nothing is said after it."""
        return (*self.morph, *((self.deidentify,) if self.deidentify else ()))

    @model_validator(mode="after")
    def _leads_somewhere(self) -> RouteSettings:
        if not self.to and not self.to_first_of:
            raise ValueError("give to or to_first_of, or both")
        if self.to_first_of and len(set(self.to_first_of)) < 2:
            raise ValueError("to_first_of needs two destinations: one that fails over, one that steps in")
        if len(set(self.to_first_of)) < len(self.to_first_of):
            raise ValueError("to_first_of names a destination twice")
        if set(self.to) & set(self.to_first_of):
            raise ValueError("a destination is named by to and by to_first_of")
        return self
