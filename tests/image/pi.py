"""A Raspberry Pi in QEMU, from the image as it is flashed.

QEMU has no firmware for it: kernel, initramfs and command line are read from the boot partition of slot A, as the
firmware would, and handed over. There is no shell inside: what is asserted is what a scanner, an archive and a broker
see.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from image.disk import BOOT_MIB, MIB, PI_BOOT_MIB
from tests.image.machine import Machine

SLOT_BOOT_AT = (1 + BOOT_MIB) * MIB
SYSTEM_AT = SLOT_BOOT_AT + 2 * PI_BOOT_MIB * MIB
TREES = "/usr/lib"
HARDWARE = {
    "virt": (
        ["-cpu", "cortex-a72", "-smp", "2", "-m", "1024", "-device", "virtio-rng-pci"],
        ["-drive", "if=none,id=disk,format=raw,file={disk}", "-device", "virtio-blk-pci,drive=disk"],
        ["-device", "virtio-net-pci,netdev=net,romfile="],
    ),
    "raspi3b": (
        ["-m", "1024", "-dtb", "{folder}/bcm2837-rpi-3-b.dtb"],
        ["-drive", "if=sd,format=raw,file={disk}"],
        ["-device", "usb-net,netdev=net"],
    ),
}
"""Processor and memory, disk, network: a Pi 4's processor on a plain board, and the Pi that QEMU knows by itself."""
CONSOLE = "ttyAMA0"
"""What the firmware would say in the place of `serial0`."""
MORE = {"virt": "", "raspi3b": " systemd.watchdog_sec=0 module_blacklist=cdc_subset"}
"""QEMU takes the start of this watchdog for a reset; and its network adapter has two drivers, of which one gets nothing
through."""


class Pi(Machine):
    """One Pi as QEMU has it (`likeness`: a key of HARDWARE); switched on by `start`, cut off by `cut_power`."""

    def __init__(self, folder: Path, image: Path, likeness: str, forward=(104,)) -> None:
        super().__init__(folder, image, forward, disk_gib=8)  # a card's size is a power of two
        self.likeness = likeness
        for name in ("vmlinuz", "initrd.img", "cmdline.txt"):
            words = ["mcopy", "-o", "-i", f"{self.disk}@@{SLOT_BOOT_AT}", f"::{name}", str(folder / name)]
            subprocess.run(words, check=True)
        if likeness == "raspi3b":
            self._device_tree("broadcom/bcm2837-rpi-3-b.dtb")

    def _device_tree(self, path: str) -> None:
        """Copy a device tree out of the system slot."""
        kernel = re.search(r"/(linux-image-[^/]+)/", self._debugfs(f"ls -p {TREES}"))[1]
        self._debugfs(f"dump {TREES}/{kernel}/{path} {self.folder / Path(path).name}")
        assert (self.folder / Path(path).name).stat().st_size

    def system_file(self, path: str) -> str:
        """Return a file of slot A."""
        return self._debugfs(f"cat {path}")

    def _debugfs(self, request: str) -> str:
        words = ["debugfs", "-R", request, f"{self.disk}?offset={SYSTEM_AT}"]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def start(self, *extra: str) -> Pi:
        command_line = (self.folder / "cmdline.txt").read_text().strip().replace("serial0", CONSOLE) + MORE[
            self.likeness
        ]
        places = {"disk": self.disk, "folder": self.folder}
        settings = [word.format(**places) for group in HARDWARE[self.likeness] for word in group]
        kernel = ["-kernel", f"{self.folder}/vmlinuz", "-initrd", f"{self.folder}/initrd.img", "-append", command_line]
        self._switch_on(["qemu-system-aarch64"], ["-M", self.likeness, *kernel, *settings], extra)
        return self
