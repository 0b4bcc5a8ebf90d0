"""`[hardware]`: what a box may have beside its network."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from gateway.config.base import Table

_LED = r"^[A-Za-z0-9:_.-]{1,64}$"


class LineSettings(Table):
    """One GPIO line; takes the extra `gpio`."""

    chip: Path = Field(Path("/dev/gpiochip0"), description="The GPIO controller.")
    line: int = Field(ge=0, le=1023, description="Number of the line on it.")
    active_low: bool = Field(False, description="true: a low level means yes.")


class HardwareSettings(Table):
    """`[hardware]`: status light, and the line by which a UPS says that mains power is gone."""

    status_led: str | None = Field(
        None, pattern=_LED, description="Light of the kernel's LED class (a folder of /sys/class/leds): how the box is."
    )
    alert_led: str | None = Field(None, pattern=_LED, description="A second light, on while somebody must come.")
    power_fail: LineSettings | None = Field(None, description="GPIO line that is active while the UPS feeds the box.")
    shutdown_after_s: float = Field(
        60.0, ge=1, description="With power_fail: the machine is shut down after so long without mains power."
    )
    button: LineSettings | None = Field(
        None, description="GPIO line of a button: pressed for a moment, the box tells everything again at once."
    )
