"""What the notes on hardware say is what the code does."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.config.load import parse
from gateway.health import light
from gateway.model.health import Status

HARDWARE = Path(__file__).parents[2] / "hardware"
README = (HARDWARE / "README.md").read_text()


def rows(text: str) -> list[str]:
    table = text[text.index("| light | means |") :].split("\n\n")[0]
    return [row.strip() for row in table.splitlines() if row.startswith("|")]


def test_the_table_of_lights_is_that_of_the_code():
    assert rows(README) == rows(light.__doc__)
    words = dict(row.strip("| ").split(" | ") for row in rows(README)[2:])
    assert light.PATTERNS[Status.OK] == light.STEADY
    assert "well" in words["on"]
    for status, name, expected in (
        (Status.DEGRADED, "slow blink (1 s on, 1 s off)", (1000, 1000)),
        (Status.CRITICAL, "fast blink (0.1 s)", (100, 100)),
    ):
        assert status.name.lower() in words[name]
        assert light.PATTERNS[status] == expected
    on_ms, off_ms = light.STARTING
    assert (on_ms < 100, on_ms + off_ms) == (True, 2000)


def test_the_configuration_in_the_notes_is_valid():
    (text,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    hardware = parse(text, Path("/c/gateway.toml")).settings.hardware
    assert hardware.button.active_low
    assert not hardware.power_fail.active_low


@pytest.mark.skipif(not shutil.which("dtc"), reason="dtc (device-tree-compiler) is not installed")
def test_the_overlay_compiles_and_names_the_lights_and_lines_of_the_notes(tmp_path):
    blob = tmp_path / "dicom-gateway.dtbo"
    words = ["dtc", "-@", "-I", "dts", "-O", "dtb", "-o", blob, HARDWARE / "dicom-gateway.dts"]
    made = subprocess.run(words, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    back = subprocess.run(["dtc", "-I", "dtb", "-O", "dts", blob], capture_output=True, text=True, check=True).stdout
    pins = [int(pin, 16) for pin in re.search(r"brcm,pins = <(.*?)>", back)[1].split()]
    hardware = parse(re.findall(r"```toml\n(.*?)```", README, re.DOTALL)[0], Path("/c/g.toml")).settings.hardware
    assert pins[2:] == [hardware.button.line, hardware.power_fail.line]
    for led, pin in ((hardware.status_led, pins[0]), (hardware.alert_led, pins[1])):
        assert f'label = "{led}"' in back
        assert f"| {pin} |" in README
    assert "/__fixups__" in back or "__fixups__" in back


def test_the_drop_in_names_what_the_overlay_makes():
    drop_in = (HARDWARE / "dicom-gateway-hardware.conf").read_text()
    assert "dicom-gateway-leds {" in (HARDWARE / "dicom-gateway.dts").read_text()
    assert "/sys/devices/platform/dicom-gateway-leds" in drop_in
    rules = (HARDWARE.parent / "systemd/60-dicom-gateway.rules").read_text()
    assert 'KERNEL=="dicom-gateway:*"' in rules
