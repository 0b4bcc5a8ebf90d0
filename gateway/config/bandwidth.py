"""`[bandwidth]`, and `bandwidth = { … }` of a destination: how much of the line may be used, and when."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from gateway.config.base import Table

LEAST_BYTES_PER_S = 8000
"""An ISDN channel. Slower, a fragment for each of many associations takes longer than peers wait for the next one."""

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEK: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _enough(value: float) -> float:
    if value and value < LEAST_BYTES_PER_S:
        raise ValueError(f"must be 0, or at least {LEAST_BYTES_PER_S} bytes_per_s ({LEAST_BYTES_PER_S * 8 / 1e6} mbit)")
    return value


class Rate(Table):
    """A rate in one of two units, or none: as fast as it goes."""

    mbit_per_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        None, description="10^6 bits of objects a second, protocol not counted; 0: nothing is begun."
    )
    bytes_per_s: Annotated[int, Field(ge=0)] | None = Field(None, description="The same in bytes a second.")

    @model_validator(mode="after")
    def _one_unit(self) -> Rate:
        if self.mbit_per_s is not None and self.bytes_per_s is not None:
            raise ValueError("give mbit_per_s or bytes_per_s, not both")
        _enough(self.limit if self.limit is not None else 0)
        return self

    @property
    def limit(self) -> float | None:
        """Bytes a second; None: no limit."""
        return self.bytes_per_s if self.mbit_per_s is None else self.mbit_per_s * 1e6 / 8


class Window(Rate):
    """One entry of `windows`: another rate at certain hours."""

    days: list[Day] = Field(list(WEEK), min_length=1, description="Days on which it begins; absent: every day.")
    hours: str | None = Field(
        None,
        pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$",
        description="The box's local time, from the first minute until before the last; past midnight it goes on into "
        "the next day; absent: the whole day.",
    )

    @field_validator("hours")
    @classmethod
    def _some_time(cls, value: str | None) -> str | None:
        if value is not None and value[:5] == value[6:]:
            raise ValueError("ends when it begins")
        return value


class BandwidthSettings(Rate):
    """How fast objects may leave."""

    windows: list[Window] = Field(
        [],
        description="Other rates at certain hours: the first window that holds decides, outside of all the rate above.",
    )
    stat_passes: bool = Field(False, description="true: what is STAT neither waits for the limit nor counts for it.")

    @model_validator(mode="after")
    def _opens_at_some_time(self) -> BandwidthSettings:
        if not self.stat_passes and all(rate.limit == 0 for rate in (self, *self.windows)):
            raise ValueError("nothing would ever leave; without a limit, give no rate")
        return self
