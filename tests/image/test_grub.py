"""GRUB chooses a slot and counts: with slots that hold a kernel in name only, so that a start takes seconds."""

from __future__ import annotations

import re
import subprocess

import pytest

from image import disk
from image.board import BOARDS
from tests.image.conftest import missing
from tests.image.machine import Machine

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(missing()), reason=missing()),
]
ENVIRONMENT = "EFI/BOOT/grubenv"


class Choice:
    """A disk with two slots that GRUB finds, and Linux does not."""

    def __init__(self, folder, **settings) -> None:
        content = folder / "content"
        content.mkdir()
        for name in ("vmlinuz", "initrd.img"):
            (content / name).write_text("no kernel")
        slot = disk.system_slot(content, folder / "slot.ext4")
        image = disk.assemble(BOARDS["amd64"], slot, None, folder / "disk.img")
        self.machine = Machine(folder / "machine", image, disk_gib=3)
        if settings.pop("both", True):
            start = disk.MIB * (1 + disk.BOOT_MIB + disk.SLOT_MIB)
            disk._copy_sparse(slot, self.machine.disk, start)
        self.set(**settings)

    def set(self, **settings) -> None:
        path = self.machine.folder / "grubenv"
        subprocess.run(["grub-editenv", path, "create"], check=True)
        words = [f"{name}={value}" for name, value in settings.items()]
        subprocess.run(["grub-editenv", path, "set", *words], check=True)
        self.machine.put(path, to="EFI/BOOT")

    def start(self) -> str:
        """Start once; return slot and try as GRUB told them."""
        self.machine.start()
        self.machine.wait_off(600)  # it asks for another start, since there is no kernel
        return re.search(r"slot ([AB], try \d)", self.machine.console())[1]

    def order(self) -> str:
        return re.search(r"ORDER=(.*)", self.machine.boot_file(ENVIRONMENT))[1].strip()


def test_after_three_tries_the_other_slot_has_its_turn_and_then_the_older_for_ever(tmp_path):
    choice = Choice(tmp_path, ORDER="B A", A_OK=1, B_OK=1, A_TRY=0, B_TRY=1)
    seen = [choice.start() for _ in range(7)]
    assert seen == ["B, try 2", "B, try 3", "A, try 1", "A, try 2", "A, try 3", "A, try 1", "A, try 2"]
    assert choice.order() == "A B"


def test_a_slot_that_is_being_written_is_not_started(tmp_path):
    choice = Choice(tmp_path, ORDER="B A", A_OK=1, B_OK=0, A_TRY=0, B_TRY=0)
    assert choice.start() == "A, try 1"
    choice.set(ORDER="A B", A_OK=1, B_OK=0, A_TRY=3, B_TRY=0)
    assert choice.start() == "A, try 1"


def test_an_empty_slot_is_never_started(tmp_path):
    choice = Choice(tmp_path, both=False, ORDER="A B", A_OK=1, B_OK=1, A_TRY=3, B_TRY=0)
    assert choice.start() == "A, try 1"


def test_without_its_environment_the_box_starts_what_is_there(tmp_path):
    choice = Choice(tmp_path, both=False)
    subprocess.run(["mdel", "-i", f"{choice.machine.disk}@@1M", f"::{ENVIRONMENT}"], check=True)
    assert choice.start().startswith("A")
