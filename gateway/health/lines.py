"""GPIO lines: a UPS that says that mains power is gone, and a button. The lines are read by gpiod, an extra."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from importlib import import_module

from gateway.config.hardware import HardwareSettings, LineSettings

log = logging.getLogger("gateway.health")

LOOK_S = 0.1
STEADY_S = 0.3
"""A level counts when it stood for so long: switches bounce."""

Read = Callable[[], bool]
"""True while the line is active; raises OSError."""


def reader(settings: LineSettings) -> Read:
    """Take a line of the kernel's GPIO interface; raises OSError, and ImportError without the extra `gpio`."""
    gpiod = import_module("gpiod")
    line = gpiod.line
    wanted = gpiod.LineSettings(direction=line.Direction.INPUT, active_low=settings.active_low)
    request = gpiod.request_lines(str(settings.chip), consumer="dicom-gateway", config={settings.line: wanted})
    return lambda: bool(request.get_value(settings.line) == line.Value.ACTIVE)


class Steady:
    """A level without its bounces."""

    def __init__(self) -> None:
        self.level = False
        self._since: float | None = None

    def look(self, level: bool, now: float) -> bool:
        """Take a level at monotonic time `now`; return whether the steady level changed."""
        if level == self.level:
            self._since = None
            return False
        self._since = now if self._since is None else self._since
        if now - self._since < STEADY_S:
            return False
        self.level, self._since = level, None
        return True


class Lines:
    """Watches both; a line that cannot be had is said so once, and the rest goes on."""

    def __init__(
        self,
        settings: HardwareSettings,
        tell: Callable[[bool], None],
        pressed: Callable[[], None],
        shut_down: Callable[[], object],
        take: Callable[[LineSettings], Read] = reader,
    ) -> None:
        """`tell` hears when mains power goes and comes back, `pressed` of the button; `shut_down` ends the machine."""
        self._settings = settings
        self._tell = tell
        self._pressed = pressed
        self._shut_down = shut_down
        self._take = take
        self._power, self._button = Steady(), Steady()
        self._failed_at: float | None = None

    def run(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Look until stopped."""
        power = self._taken("power_fail", self._settings.power_fail)
        button = self._taken("button", self._settings.button)
        while not stop.wait(LOOK_S):
            beat()
            now = time.monotonic()
            if power:
                self.look_at_power(power(), now)
            if button and self._button.look(button(), now) and self._button.level:
                log.warning("button_pressed")
                self._pressed()

    def _taken(self, name: str, settings: LineSettings | None) -> Read | None:
        if settings is None:
            return None
        try:
            return self._take(settings)
        except (OSError, ImportError) as error:
            log.error("gpio_unusable line=%s reason=%s", name, error)
            return None

    def look_at_power(self, failed: bool, now: float) -> None:
        """Take the level of the UPS's line at monotonic time `now`."""
        if self._power.look(failed, now):
            log.warning("mains_%s", "lost" if failed else "back")
            self._failed_at = now if failed else None
            self._tell(failed)
        if self._failed_at is not None and now - self._failed_at >= self._settings.shutdown_after_s:
            log.error("shutting_down reason='no mains power'")
            self._failed_at = None
            self._shut_down()
