"""The slots of a Raspberry Pi, against a folder in the place of its boot partition and a firmware of ten lines."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from image.board import HERE

SCRIPT = HERE / "boards/arm64/root/usr/lib/dicom-gateway-image/tryboot"


class Pi:
    """A box without a box: autoboot.txt, a command line, and what `systemctl reboot` was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "autoboot.txt").write_text("[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n")
        self.parameter, self.asked = folder / "reboot-param", folder / "asked"
        (folder / "slot").mkdir()
        (folder / "slot/cmdline.txt").write_text("root=PARTLABEL=system_a rauc.slot=A ro\n")
        (folder / "bin").mkdir()
        for name, does in (
            ("systemctl", f'echo "$@" >{self.asked}'),
            ("mount", f'echo "$@" >{folder}/mounted'),
            ("umount", ":"),
        ):
            fake = folder / "bin" / name
            fake.write_text(f"#!/bin/sh\n{does}\n")
            fake.chmod(0o755)
        self.slot = "A"
        self.boot()

    def boot(self, tryboot: bool = False) -> str:
        """Start as the firmware does; return the slot."""
        text = (self.folder / "autoboot.txt").read_text()
        assert len(text) <= 512, "the firmware reads no more"
        normal, tried = re.findall(r"^boot_partition=(\d)$", text, re.MULTILINE)
        self.slot = {"2": "A", "3": "B"}[tried if tryboot else normal]
        (self.folder / "cmdline").write_text(f"root=PARTLABEL=x rauc.slot={self.slot} quiet\n")
        self.parameter.unlink(missing_ok=True)
        self.asked.unlink(missing_ok=True)
        return self.slot

    def restart(self) -> str:
        """`reboot` by whoever: systemd hands on what lies in reboot-param."""
        return self.boot(self.parameter.exists() and self.parameter.read_text() == "0 tryboot")

    def __call__(self, *words: str) -> str:
        names = {
            "TRYBOOT_FOLDER": "",
            "TRYBOOT_CMDLINE": "cmdline",
            "TRYBOOT_PARAMETER": "reboot-param",
            "TRYBOOT_MOUNT": "slot",
        }
        places = {name: str(self.folder / value) for name, value in names.items()}
        environment = {**os.environ, **places, "PATH": f"{self.folder}/bin:{os.environ['PATH']}"}
        done = subprocess.run(
            [sys.executable, SCRIPT, *words], env=environment, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def comes_up(self) -> str:
        """Start to the end: `resume` may ask for another start."""
        for _ in range(5):
            self("resume")
            if not self.asked.exists():
                return self.slot
            assert "0 tryboot" in self.asked.read_text()
            self.boot(tryboot=True)
        raise AssertionError("it starts for ever")


@pytest.fixture
def pi(tmp_path):
    return Pi(tmp_path)


def test_as_flashed_slot_a_is_kept(pi):
    assert (pi("get-primary"), pi("get-current"), pi("get-state", "A"), pi.comes_up()) == ("A", "A", "good", "A")


def test_an_update_is_tried_and_kept_when_it_is_good(pi):
    pi("set-state", "B", "bad")  # RAUC does so before it writes
    pi("set-primary", "B")
    assert pi("get-primary") == "B" and pi("get-state", "B") == "good"
    assert "boot_b" in (pi.folder / "mounted").read_text()
    assert (pi.folder / "slot/cmdline.txt").read_text() == "root=PARTLABEL=system_b rauc.slot=B ro\n"
    assert pi.restart() == "B" and pi.comes_up() == "B"
    assert Pi.boot(pi) == "A", "until it is good, a normal start is the old slot's"
    pi.boot(tryboot=True)
    pi("set-state", "B", "good")
    assert pi.boot() == "B" and pi("get-primary") == "B"


def test_a_power_cut_during_the_first_start_does_not_cost_the_update(pi):
    pi("set-primary", "B")
    pi.restart()
    pi.boot()  # the power went: the firmware forgot that it was to try
    assert pi.comes_up() == "B"


def test_a_slot_that_never_comes_up_is_given_up_after_three_tries(pi):
    pi("set-primary", "B")
    for _ in range(3):
        pi("resume")
        assert pi.asked.exists()
        pi.boot()
    assert pi.comes_up() == "A"
    assert pi("get-state", "B") == "bad" and pi("get-primary") == "A"


def test_going_back_by_hand(pi):
    pi("set-primary", "B")
    pi.restart()
    pi("set-state", "B", "good")
    pi("set-primary", "A")
    assert pi.restart() == "A"
    pi("set-state", "A", "good")
    assert pi.boot() == "A"


def test_only_the_slot_that_runs_can_be_made_the_normal_one(pi):
    pi("set-state", "B", "good")
    assert pi.boot() == "A"
    with pytest.raises(AssertionError):
        pi("set-state", "C", "good")
