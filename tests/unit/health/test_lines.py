"""A UPS's line and a button, without either."""

from __future__ import annotations

import threading
import time

import pytest

from gateway.config.hardware import HardwareSettings, LineSettings
from gateway.health.lines import STEADY_S, Lines

SETTINGS = HardwareSettings(power_fail=LineSettings(line=4), button=LineSettings(line=17), shutdown_after_s=60)


@pytest.fixture
def heard():
    return []


def lines_of(heard, take=None):
    return Lines(SETTINGS, heard.append, lambda: heard.append("pressed"), lambda: heard.append("off"), take)


def test_a_dip_is_nothing_and_a_failure_is_told_once(heard):
    lines = lines_of(heard)
    lines.look_at_power(True, 0.0)
    lines.look_at_power(False, STEADY_S / 2)
    lines.look_at_power(True, 1.0)
    assert heard == []
    for tenth in range(20):
        lines.look_at_power(True, 1.0 + tenth / 10)
    assert heard == [True]


def test_power_that_comes_back_in_time_ends_it(heard):
    lines = lines_of(heard)
    for second in range(50):
        lines.look_at_power(True, float(second))
    for second in range(50, 200):
        lines.look_at_power(False, float(second))
    assert heard == [True, False]


def test_without_power_the_machine_is_shut_down_once(heard):
    lines = lines_of(heard)
    for second in range(300):
        lines.look_at_power(True, float(second))
    assert heard == [True, "off"]


def test_a_button_is_pressed_once_however_it_bounces(heard, wait_until):
    level, stop = [False], threading.Event()
    reads = {4: lambda: False, 17: lambda: level[0]}
    lines = lines_of(heard, lambda settings: reads[settings.line])
    room = threading.Thread(target=lines.run, args=(stop, lambda: None))
    room.start()
    level[0] = True
    assert wait_until(lambda: heard == ["pressed"])
    time.sleep(STEADY_S + 0.2)
    level[0] = False
    time.sleep(STEADY_S + 0.3)
    stop.set()
    room.join(30)
    assert heard == ["pressed"]


def test_a_line_that_cannot_be_had_is_said_and_the_other_watched(heard, caplog, wait_until):
    def take(settings):
        if settings.line == 17:
            raise ImportError("no gpiod")
        return lambda: True

    stop = threading.Event()
    room = threading.Thread(target=lines_of(heard, take).run, args=(stop, lambda: None))
    room.start()
    assert wait_until(lambda: heard)
    time.sleep(STEADY_S + 0.2)
    stop.set()
    room.join(30)
    assert heard == [True]
    assert "gpio_unusable line=button" in caplog.text
