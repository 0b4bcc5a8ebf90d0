"""The status light, by the kernel's LED class: the kernel blinks, so a light that blinks needs no thread of ours.

| light | means |
|---|---|
| on | well |
| slow blink (1 s on, 1 s off) | degraded: someone may need to look |
| fast blink (0.1 s) | critical: someone must come |
| short flash every 2 s | the service starts |
| off | the service does not run |
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from gateway.health.observer import Observation
from gateway.model.health import Status

log = logging.getLogger("gateway.health")

LEDS = Path("/sys/class/leds")
STEADY, DARK = (1, 0), (0, 1)
STARTING = (50, 1950)
HANDED_OVER_S = 1.0
PATTERNS: dict[Status, tuple[int, int]] = {
    Status.OK: STEADY,
    Status.DEGRADED: (1000, 1000),
    Status.CRITICAL: (100, 100),
}
"""Milliseconds on and off (Documentation/leds/leds-class of the kernel, trigger `timer`)."""


class Light:
    """One LED; used by one thread at a time."""

    def __init__(self, name: str, leds: Path = LEDS) -> None:
        self._folder = leds / name
        self._shown: tuple[int, int] | None = None

    def show(self, pattern: tuple[int, int]) -> None:
        """Shine so; a light that cannot be set is said so once, and tried again."""
        if pattern == self._shown:
            return
        on_ms, off_ms = pattern
        try:
            if on_ms and off_ms:
                self._write("trigger", "timer")  # first: it makes the two files
                self._write_soon("delay_on", str(on_ms))
                self._write_soon("delay_off", str(off_ms))
            else:
                self._write("trigger", "none")
                self._write("brightness", self._read("max_brightness") if on_ms else "0")
        except OSError as error:
            if self._shown != (-1, -1):
                log.warning("led_unusable led=%s reason=%s", self._folder.name, error.strerror)
            self._shown = (-1, -1)
            return
        self._shown = pattern

    def _write_soon(self, name: str, text: str) -> None:
        """The kernel makes the file for root; udev hands it to us within a moment (systemd/60-dicom-gateway.rules)."""
        deadline = time.monotonic() + HANDED_OVER_S
        while True:
            try:
                self._write(name, text)
            except PermissionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def _write(self, name: str, text: str) -> None:
        with open(self._folder / name, "w") as file:
            file.write(text)

    def _read(self, name: str) -> str:
        with open(self._folder / name) as file:
            return file.read(16).strip()


class Lights:
    """How the box is, for who stands before it."""

    def __init__(self, status_led: str | None, alert_led: str | None, leds: Path = LEDS) -> None:
        self._status = Light(status_led, leds) if status_led else None
        self._alert = Light(alert_led, leds) if alert_led else None
        self._show(STARTING, DARK)

    def take(self, seen: Observation) -> None:
        """Show an observation."""
        self._show(PATTERNS[seen.status], STEADY if seen.status is Status.CRITICAL else DARK)

    def off(self) -> None:
        """The service ends."""
        self._show(DARK, DARK)

    def _show(self, status: tuple[int, int], alert: tuple[int, int]) -> None:
        if self._status:
            self._status.show(status)
        if self._alert:
            self._alert.show(alert)
