"""The status light, on files that look like the kernel's LED class."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gateway.health.light import Light, Lights
from gateway.model.health import Status


@pytest.fixture
def leds(tmp_path):
    for name in ("gw:green:status", "gw:red:alert"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "max_brightness").write_text("255\n")
    return tmp_path


def said(leds, name="gw:green:status"):
    return {path.name: path.read_text() for path in (leds / name).iterdir() if path.name != "max_brightness"}


def seen(status):
    return SimpleNamespace(status=status)


def test_it_flashes_until_the_first_look_and_is_dark_at_the_end(leds):
    lights = Lights("gw:green:status", None, leds)
    assert said(leds) == {"trigger": "timer", "delay_on": "50", "delay_off": "1950"}
    lights.off()
    assert said(leds)["trigger"] == "none"
    assert said(leds)["brightness"] == "0"


def test_each_status_has_its_own_light(leds):
    lights = Lights("gw:green:status", "gw:red:alert", leds)
    lights.take(seen(Status.OK))
    assert said(leds)["trigger"] == "none"
    assert said(leds)["brightness"] == "255"
    assert said(leds, "gw:red:alert")["brightness"] == "0"
    lights.take(seen(Status.DEGRADED))
    assert said(leds)["trigger"] == "timer"
    assert said(leds)["delay_on"] == "1000"
    lights.take(seen(Status.CRITICAL))
    assert said(leds)["delay_on"] == said(leds)["delay_off"] == "100"
    assert said(leds, "gw:red:alert")["brightness"] == "255"


def test_what_is_shown_already_is_not_written_again(leds):
    lights = Lights("gw:green:status", None, leds)
    lights.take(seen(Status.OK))
    (leds / "gw:green:status/brightness").write_text("untouched")
    lights.take(seen(Status.OK))
    assert said(leds)["brightness"] == "untouched"


def test_a_light_that_is_not_there_is_said_once(leds, caplog):
    lights = Lights("nowhere", None, leds)
    for status in (Status.OK, Status.CRITICAL, Status.OK):
        lights.take(seen(status))
    lights.off()
    assert caplog.text.count("led_unusable") == 1


def test_a_file_that_is_handed_over_a_moment_later_is_waited_for(leds, monkeypatch):
    write, refused = Light._write, []

    def not_yet(light, name, text):
        if name == "delay_on" and len(refused) < 3:
            refused.append(name)
            raise PermissionError(13, "Permission denied")
        write(light, name, text)

    monkeypatch.setattr(Light, "_write", not_yet)
    Lights("gw:green:status", None, leds)
    assert len(refused) == 3
    assert said(leds)["delay_on"] == "50"
